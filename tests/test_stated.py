"""What a caller states of his hands: the same from Python and files, for any side, frame and number of hands."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from evidence_scene import INTRINSICS, Scene, can, scene, skin
from torch import Tensor

from contact import weights as shipped
from contact.input_error import CAMERA
from contact.network import ContactNet, NetworkConfig
from contact.objects import ObjectMesh
from contact.perturb import PROTOCOLS
from contact.weights import save_weights
from hand_models import HandModel, HandPose, load_open_hand
from refine import RefineConfig, RefineResult, Status, refine_grasp
from refine.commands import cli
from refine.evidence.depth_points import DepthPoints
from refine.evidence.input_error import prior_of
from refine.evidence.keypoints import Reprojection
from refine.evidence.pose_prior import PosePrior
from refine.evidence.stated import KEYPOINT_SIGMA, Stated
from refine.files.prediction_files import parquet_pieces, read_predictions, write_parquet_pieces, write_predictions
from refine.files.prediction_poses import into_camera_frame, into_object_frame
from refine.files.predictions import Predictions
from refine.request import Request

EVERYTHING = ("input_error", "keypoints", "depth")
SOME = [("input_error",), ("keypoints",), ("input_error", "depth"), EVERYTHING]
NAN = float("nan")


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RefineConfig:
    """A network that has learnt nothing, but is calm; every result is taken, so that there is something to compare."""
    torch.manual_seed(0)
    network = ContactNet(NetworkConfig(fine=8, middle=8, token=16, layers=1, heads=2))
    with torch.no_grad():
        network.point_head.bias[2] = -8.0  # near
        network.skin_head[-1].bias[0] = -8.0  # touching
        network.joint_head[-1].bias[3] = -3.0  # spread
    path = save_weights(network, {}, tmp_path_factory.mktemp("weights") / "tiny.safetensors")
    return RefineConfig(weights=path, volumes=False, gate=False)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> ObjectMesh:
    return ObjectMesh.from_any(can(), name="can", resolution=64)


@pytest.fixture(scope="module")
def hands(model: HandModel) -> Scene:
    return scene(model)


@pytest.fixture(scope="module")
def results(hands: Scene, held: ObjectMesh, config: RefineConfig) -> dict[tuple[str, ...], RefineResult]:
    return {
        names: refine_grasp(hands.given, held, object_pose=hands.object_pose, config=config, **hands.known(*names))
        for names in [(), *SOME]
    }


def apart_mm(model: HandModel, a: HandPose, b: HandPose) -> float:
    """The farthest that a joint of one is from that of the other."""
    assert a.side == b.side
    return 1e3 * float((model.joints(a) - model.joints(b)).norm(dim=2).max())


# What it does ---------------------------------------------------------------------------------------


def test_hands_lie_on_their_picture(hands, results):
    """Keypoints of some pixels decide across the view, whatever the network sees; without them it decides."""
    off = {names: hands.pixels_off(result.pose) for names, result in results.items()}
    assert (off["keypoints",] < 4).all()
    assert (off[EVERYTHING] < 4).all()
    assert (off[()] > 10).all()


def test_depth_is_where_it_is_measured(model, hands, results):
    truth = into_camera_frame(hands.truth, hands.object_pose, model)
    given, found = (
        (model.joints(pose) - model.joints(truth))[..., 2].mean(1).abs()
        for pose in (hands.given, results[EVERYTHING].pose)
    )
    assert (given[1:] > 0.05).all()  # the first was about right
    assert (found < 0.02).all()


def test_nothing_known_changes_nothing(model, hands, held, config, results):
    nothing = dict(
        input_error="unknown", camera=INTRINSICS, keypoints_2d=torch.full((3, 21, 2), NAN),
        depth_points=torch.full((3, 5, 3), NAN),
    )  # fmt: skip
    for known in (nothing, {"input_error": ["", None, "unknown"]}, {"depth_points": torch.zeros(3, 0, 3)}):
        found = refine_grasp(hands.given, held, object_pose=hands.object_pose, config=config, **known)
        assert apart_mm(model, found.pose, results[()].pose) < 0.01


# One way in -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", SOME, ids="+".join)
def test_one_hand_alone(model, hands, held, config, results, names):
    """As in a batch, given without the first dimension."""
    known = {n: v[1] if isinstance(v, Tensor) and n != "camera" else v for n, v in hands.known(*names).items()}
    found = refine_grasp(hands.given[1], held, object_pose=hands.object_pose[1], config=config, **known)
    assert apart_mm(model, found.pose, results[names].pose[1]) < 0.1


@pytest.mark.parametrize("names", SOME, ids="+".join)
def test_in_a_mirror(model, hands, held, config, results, names):
    left = hands.mirrored()
    found = refine_grasp(left.given, held.mirrored(), object_pose=left.object_pose, config=config, **left.known(*names))
    assert found.pose.side == "left"
    assert apart_mm(model, found.pose.mirrored(), results[names].pose) < 0.1


@pytest.mark.parametrize("names", SOME, ids="+".join)
def test_the_frame_may_be_the_cameras(model, hands, config, results, names):
    """An object that is given where the camera sees it needs no pose. Its grid lies otherwise, which is all."""
    row = 1
    mesh = can().apply_transform(hands.object_pose[row].double().numpy())
    seen = ObjectMesh.from_any(mesh, resolution=64)
    found = refine_grasp(hands.given[row], seen, config=config, **hands.known(*names, rows=[row]))
    assert found.object_pose is None
    assert apart_mm(model, found.pose, results[names].pose[row]) < 1.0
    assert apart_mm(model, found.pose, hands.given[row]) > 10


def rows_that_differ(hands: Scene) -> dict[str, Any]:
    """Arguments of which the first hand has keypoints and is known to hold, the second depth and an error, and the
    third nothing."""
    keypoints, depth = hands.keypoints_2d.clone(), hands.depth_points.clone()
    keypoints[1:], depth[[0, 2]] = torch.nan, torch.nan
    return dict(
        input_error=[None, "camera", "unknown"], camera=INTRINSICS, keypoints_2d=keypoints,
        confidence=hands.confidence, keypoint_sigma=2.0, depth_points=depth, holding=np.array([1, np.nan, np.nan]),
    )  # fmt: skip


def test_hands_of_which_other_things_are_known(model, hands, held, config, results):
    """Each is refined as if it were alone with what is known of it."""
    found = refine_grasp(
        hands.given, held, object_pose=hands.object_pose, config=config, **rows_that_differ(hands)
    ).pose
    assert apart_mm(model, found[0], results["keypoints",].pose[0]) < 0.1
    assert apart_mm(model, found[1], results["input_error", "depth"].pose[1]) < 0.1
    assert apart_mm(model, found[2], results[()].pose[2]) < 0.1


def test_two_hands(model, hands, held, config):
    """A list of two says something of each; the left one is the mirror image of the other, half a metre aside."""
    left = into_object_frame(hands.given, hands.object_pose, model).mirrored()
    aside = torch.tensor([0.0, 0.0, 0.5])
    left = into_camera_frame(replace(left, transl=left.transl + aside), hands.object_pose, model)
    scan = skin(model, left)
    at = dict(object_pose=hands.object_pose, config=config)
    alone = [
        refine_grasp(hands.given, held, **at, **hands.known("input_error", "keypoints")),
        refine_grasp(left, held, **at, input_error="image", depth_points=scan),
    ]
    assert apart_mm(model, alone[1].pose, left) > 1
    pair: list[HandPose] = [hands.given, left]
    known: dict[str, list[Any]] = dict(
        input_error=["camera", "image"], keypoints_2d=[hands.keypoints_2d, None], confidence=[hands.confidence, None],
        depth_points=[None, scan],
    )  # fmt: skip
    for order in (slice(None), slice(None, None, -1)):
        lists = {name: value[order] for name, value in known.items()}
        found = refine_grasp(pair[order], held, **at, camera=INTRINSICS, keypoint_sigma=2.0, **lists)
        for result, expected in zip(found, alone[order], strict=True):
            assert apart_mm(model, result.pose, expected.pose) < 0.1


def into(pose: Tensor, points: Tensor) -> Tensor:
    return points @ pose[:, :3, :3].transpose(1, 2) + pose[:, None, :3, 3]


# Files ----------------------------------------------------------------------------------------------


def columns(hands: Scene, known: dict[str, Any]) -> Predictions:
    """A file of the hands, with the same arguments by the names of its columns."""
    names = {"camera": "cam_K", "confidence": "keypoint_confidence"}
    values = {names.get(name, name): np.asarray(value) for name, value in known.items()}
    if "input_error" in values:
        values["input_error"] = np.array([e or "" for e in np.broadcast_to(values["input_error"], len(hands.given))])
    return Predictions.from_columns(
        {"object_id": ["can"] * len(hands.given), "side": hands.given.side, "hand_model": "open"}
        | hands.given.as_arrays() | {"object_pose": hands.object_pose.numpy()} | values
    )  # fmt: skip


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("names", [*SOME, "differing"], ids=lambda n: n if isinstance(n, str) else "+".join(n))
def test_rows_ask_for_what_python_asks_for(model, hands, held, names, side):
    hands = hands if side == "right" else hands.mirrored()
    known = rows_that_differ(hands) if names == "differing" else hands.known(*names)
    mesh = held if side == "right" else held.mirrored()
    python = Request.make(hands.given, mesh, hands.object_pose, model=model, stated=Stated(**known))
    rows = Request.of_rows(columns(hands, known), mesh, model)
    assert rows.problems == python.problems == {}
    expected = [1, NAN, NAN] if names == "differing" else [NAN] * 3
    np.testing.assert_array_equal(rows.holding, np.float32(expected))
    np.testing.assert_array_equal(python.holding, np.float32(expected))
    pairs = list(zip(rows.right_evidence(), python.right_evidence(), strict=True))
    assert len(pairs) == 3 if names in (EVERYTHING, "differing") else len(pairs) in (1, 2)
    for found, expected in pairs:
        assert type(found) is type(expected)
        for name, value in vars(expected).items():
            if isinstance(value, Tensor):
                torch.testing.assert_close(getattr(found, name), value, equal_nan=True)
    assert torch.equal(rows.right_hands().transl, python.right_hands().transl)


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_command_does_what_the_function_does(hands, config, tmp_path, monkeypatch, side):
    hands = hands if side == "right" else hands.mirrored()
    monkeypatch.setattr(shipped, "DEFAULT", config.weights)
    (tmp_path / "meshes").mkdir()
    path = tmp_path / "meshes" / "can.ply"
    can().export(path)
    known = rows_that_differ(hands)
    file = write_predictions(tmp_path / "estimates.json", columns(hands, known))
    assert cli.main(["refine", str(file), "--objects", str(path.parent), "--out", str(tmp_path / "out")]) == 0
    rows = read_predictions(tmp_path / "out" / "estimates.refined.json")
    gated = replace(config, gate=True, volumes=True)
    result = refine_grasp(hands.given, path, object_pose=hands.object_pose, config=gated, **known)
    assert rows.column("status").tolist() == [s.value for s in result.status]
    np.testing.assert_allclose(rows.column("score_after"), result.score_after, rtol=1e-5)
    np.testing.assert_allclose(rows.column("holding_probability"), result.holding, rtol=1e-4)
    assert result.holding[0] == 1
    np.testing.assert_array_equal(rows.column("holding"), known["holding"])
    for name, value in result.pose.as_arrays().items():
        np.testing.assert_allclose(rows.column(name), value, atol=1e-6)
    np.testing.assert_array_equal(rows.column("depth_points"), known["depth_points"].numpy())


def test_rows_without_a_camera_are_as_if_nothing_was_seen(model, hands, held):
    """Some rows without intrinsics, or none with the object's pose: the keypoints are not used, and no row fails."""
    known = hands.known("input_error", "keypoints")
    intrinsics = INTRINSICS.repeat(3, 1, 1)
    intrinsics[2] = torch.nan
    rows = columns(hands, known | {"camera": intrinsics})
    for part, places in ((rows, [True, True, False]), (rows.take([2]), [False])):
        request = Request.of_rows(part, held, model)
        seen = [term.places.tolist() for term in request.evidence if isinstance(term, Reprojection)]
        assert seen == ([places] if any(places) else [])
        assert not request.problems
    inside = into_object_frame(hands.given, hands.object_pose, model)
    fields = rows.columns() | inside.as_arrays() | {"cam_K": INTRINSICS.numpy()}
    del fields["object_pose"], fields["input_error"]
    assert Request.of_rows(Predictions.from_columns(fields), held, model).evidence == ()


def test_a_file_in_the_frame_of_its_camera_needs_no_object_pose(model, hands):
    """One object pose for all, so that the object may lie in the camera's frame."""
    matrix, known = hands.object_pose[0], hands.known("keypoints")
    seen = into_camera_frame(into_object_frame(hands.given, hands.object_pose, model), matrix.expand(3, 4, 4), model)
    mesh = can()
    mesh.apply_transform(matrix.numpy())
    laid = ObjectMesh.from_any(mesh, resolution=32)
    python = Request.make(seen, laid, model=model, stated=Stated(**known))
    fields = columns(hands, known).columns() | seen.as_arrays()
    del fields["object_pose"]
    rows = Request.of_rows(Predictions.from_columns(fields), laid, model)
    assert not python.problems
    (one,), (other,) = ([t for t in r.evidence if isinstance(t, Reprojection)] for r in (python, rows))
    torch.testing.assert_close(one.keypoints, other.keypoints)
    torch.testing.assert_close(one.sigma, other.sigma)
    torch.testing.assert_close(one.object_pose, other.object_pose)


def test_rows_that_do_not_say_how_sure_keypoints_are(hands, model, held):
    sigma = np.array([2.0, NAN, 5.0])
    request = Request.of_rows(columns(hands, hands.known("keypoints") | {"keypoint_sigma": sigma}), held, model)
    seen = next(term for term in request.evidence if isinstance(term, Reprojection))
    expected = torch.tensor([[2.0], [KEYPOINT_SIGMA], [5.0]]) / hands.confidence.sqrt()
    expected[:, 4] = torch.inf  # the keypoint that is missing
    torch.testing.assert_close(seen.sigma, expected)


@pytest.mark.parametrize("suffix", [".npz", ".json", ".parquet"])
def test_rows_of_different_lengths_read_back(hands, tmp_path, suffix):
    """Depth points of 40, 35 and 30; rows without any; and a column of none at all."""
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    assert hands.depth_points.isfinite().all(2).sum(1).tolist() == [40, 35, 30]
    known = rows_that_differ(hands)
    for points in (hands.depth_points, known["depth_points"], torch.zeros(3, 0, 3)):
        sigma = np.array([2.0, NAN, 5.0])
        rows = columns(hands, known | {"depth_points": points, "keypoint_sigma": sigma})
        back = read_predictions(write_predictions(tmp_path / f"rows{suffix}", rows))
        for name, value in rows.columns().items():
            np.testing.assert_array_equal(getattr(back, name), value, err_msg=name)
            assert getattr(back, name).dtype.kind == value.dtype.kind


def test_rows_that_are_written_as_long_as_they_are_are_filled_up(hands, tmp_path):
    """In JSON and Parquet; pieces of a Parquet file are as wide as their longest row, and make one file again."""
    pyarrow = pytest.importorskip("pyarrow.parquet")
    rows = columns(hands, hands.known("depth"))
    wanted = rows.column("depth_points").copy()
    wanted[1], wanted[2, 12:] = np.nan, np.nan
    cells: list[Any] = [wanted[0].tolist(), None, wanted[2, :12].tolist()]
    document = json.loads(write_predictions(tmp_path / "rows.json", rows).read_text())
    for row, cell in zip(document["rows"], cells, strict=True):
        row["depth_points"] = cell
    (tmp_path / "rows.json").write_text(json.dumps(document))
    np.testing.assert_array_equal(read_predictions(tmp_path / "rows.json").column("depth_points"), wanted)
    table = pyarrow.read_table(write_predictions(tmp_path / "rows.parquet", rows))
    place = table.column_names.index("depth_points")
    table = table.set_column(place, "depth_points", [cells])
    pyarrow.write_table(table, tmp_path / "rows.parquet")
    np.testing.assert_array_equal(read_predictions(tmp_path / "rows.parquet").column("depth_points"), wanted)
    parts = list(parquet_pieces(tmp_path / "rows.parquet", 1))
    assert [part.column("depth_points").shape[1] for part in parts] == [40, 0, 12]
    with (tmp_path / "again.parquet").open("wb") as stream:
        write_parquet_pieces(stream, parts)
    np.testing.assert_array_equal(read_predictions(tmp_path / "again.parquet").column("depth_points"), wanted)


# How each is read -----------------------------------------------------------------------------------


def test_input_errors_by_name_by_record_and_as_covariance(model, hands):
    pose = into_object_frame(hands.given, hands.object_pose, model)

    def prior(error: Any) -> Tensor:
        (term,) = Stated(input_error=error).evidence(pose, hands.object_pose, model)
        assert isinstance(term, PosePrior)
        return term.factor.double() @ term.factor.double().transpose(1, 2)

    camera, image = (prior_of(pose, e, model, hands.object_pose).factor for e in (CAMERA, PROTOCOLS["image"]))
    precision = camera.double() @ camera.double().transpose(1, 2)
    torch.testing.assert_close(prior("camera"), precision)
    torch.testing.assert_close(prior(CAMERA), precision)
    torch.testing.assert_close(prior(np.array(["camera"] * 3)), precision)
    torch.testing.assert_close(prior(torch.linalg.inv(precision)), precision, rtol=1e-3, atol=1.0)
    shared = torch.linalg.inv(precision[0])
    torch.testing.assert_close(prior(shared)[2], precision[0], rtol=1e-3, atol=1.0)
    mixed = prior(["camera", PROTOCOLS["image"], "unknown"])
    torch.testing.assert_close(mixed[0], precision[0])
    torch.testing.assert_close(mixed[1], image[1].double() @ image[1].double().T)
    assert not mixed[2].any()
    assert Stated(input_error="unknown").evidence(pose, hands.object_pose, model) == []


def test_what_is_seen_of_hands_of_unknown_error_makes_them_roughly_right(model, hands):
    pose = into_object_frame(hands.given, hands.object_pose, model)
    prior, seen = Stated(**hands.known("keypoints")).evidence(pose, hands.object_pose, model)
    assert isinstance(seen, Reprojection)
    expected = prior_of(pose, PROTOCOLS["contactopt"], model, hands.object_pose).factor
    torch.testing.assert_close(prior.factor, expected)
    few = hands.keypoints_2d.clone()
    few[0, 3:] = torch.nan  # three tell nothing of where it is
    prior, _ = Stated(**hands.known("keypoints") | {"keypoints_2d": few}).evidence(pose, hands.object_pose, model)
    torch.testing.assert_close(prior.factor[1:], expected[1:])
    assert not prior.factor[0].any()


def test_confidence_widens_keypoints_and_depth_points_come_into_the_objects_frame(model, hands):
    pose = into_object_frame(hands.given, hands.object_pose, model)
    confidence = torch.ones(21)
    confidence[:4] = torch.tensor([0.25, 1.0, 2.0, 0.0])
    known = hands.known(*EVERYTHING) | {"confidence": confidence}
    _, seen, depth = Stated(**known).evidence(pose, hands.object_pose, model)
    assert isinstance(seen, Reprojection)
    assert isinstance(depth, DepthPoints)
    expected = torch.full((3, 21), 2.0)
    expected[:, 0], expected[:, 3], expected[:, 4] = 4.0, torch.inf, torch.inf
    torch.testing.assert_close(seen.sigma, expected)
    torch.testing.assert_close(into(hands.object_pose, depth.points), hands.depth_points, equal_nan=True)
    torch.testing.assert_close(into(hands.object_pose, depth.eye[:, None]), torch.zeros(3, 1, 3), atol=1e-6, rtol=0)


# What is wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"input_error": "kinect"}, "input_error: 'kinect' is unknown; choose one of .*camera"),
        ({"input_error": ["camera", "kinect", "image"]}, "input_error: 'kinect' is unknown"),
        ({"input_error": ["camera", "image"]}, "input_error: 2 names for 3 hands; give one, or one a hand"),
        ({"input_error": 0.02}, r"input_error: got shape \(\); pass a name such as 'camera', an InputError"),
        ({"input_error": torch.eye(45)}, r"input_error: got shape \(45, 45\).*covariance \(3, 51, 51\)"),
        ({"input_error": object()}, "input_error: not an array of numbers"),
        ({"input_error": -torch.eye(51)}, "input_error: not positive definite; pass a covariance in metres"),
        ({"input_error": torch.full((51, 51), NAN)}, "input_error: not positive definite"),
        ({"keypoints_2d": torch.ones(3, 21, 2)}, "camera: missing; keypoints_2d are seen by a camera"),
        ({"confidence": torch.ones(21)}, "keypoints_2d: missing; confidence and keypoint_sigma are about keypoints"),
        ({"keypoint_sigma": 3.0}, "keypoints_2d: missing"),
        ({"keypoints": {"camera": torch.eye(4)}}, r"camera: got shape \(4, 4\); expected intrinsics \(3, 3\)"),
        ({"keypoints": {"camera": torch.eye(3)}}, "camera: of hand 0 not intrinsics in pixels"),
        ({"keypoints": {"camera": torch.full((3, 3), NAN)}}, "camera: of hand 0 not intrinsics in pixels"),
        ({"keypoints": {"camera": "pinhole"}}, "camera: not an array of numbers"),
        ({"keypoints": {"keypoints_2d": torch.ones(3, 20, 2)}}, r"keypoints_2d: got shape \(3, 20, 2\); expected \(3,"),
        ({"keypoints": {"keypoints_2d": torch.ones(21, 2)}}, r"keypoints_2d: got shape \(1, 21, 2\)"),
        ({"keypoints": {"keypoint_sigma": torch.ones(3)}}, r"keypoint_sigma: got shape \(3,\); expected \(3, 21\)"),
        ({"keypoints": {"keypoint_sigma": 0.0}}, "keypoint_sigma: not positive; give pixels per axis"),
        ({"keypoints": {"confidence": torch.ones(3, 29)}}, r"confidence: got shape \(3, 29\)"),
        ({"depth_points": torch.ones(2, 5, 3)}, r"depth_points: got shape \(2, 5, 3\); expected \(3, n, 3\) metres"),
        ({"depth_points": torch.ones(3, 5, 2)}, r"depth_points: got shape \(3, 5, 2\)"),
        ({"depth_points": torch.ones(5)}, r"depth_points: got shape \(5,\)"),
    ],
)  # fmt: skip
def test_mistakes_say_how_to_mend_them(hands, held, known, message):
    if "keypoints" in known:
        known = hands.known("keypoints") | known["keypoints"]
    with pytest.raises(ValueError, match=message):
        refine_grasp(hands.given, held, object_pose=hands.object_pose, **known)


def test_of_two_hands_each_has_its_own_keypoints(hands, held):
    pair = [hands.given, hands.given.mirrored()]
    for name in ("keypoints", "depth"):
        known = hands.known(name)
        with pytest.raises(ValueError, match=r"(keypoints_2d|depth_points): is of one hand; give a list of two"):
            refine_grasp(pair, held, object_pose=hands.object_pose, **known)


def test_hands_behind_the_camera_say_what_is_missing(model, hands, held, config, results):
    """Without the object's pose their frame would have to be the camera's; with a wrong one, that is said."""
    inside = into_object_frame(hands.given, hands.object_pose, model)
    for names in SOME:
        with pytest.raises(ValueError, match=r"hand and object are not before the camera \(the .*; give object_pose"):
            refine_grasp(inside, held, **hands.known(*names))
    wrong = hands.object_pose.clone()
    wrong[1, 2, 3] = -0.7
    given = into_camera_frame(inside, wrong, model)
    with pytest.warns(UserWarning, match=r"1 of 3 hands are not refined; row 1: .* check object_pose"):
        found = refine_grasp(given, held, object_pose=wrong, config=config, **hands.known("keypoints"))
    assert [s is Status.FAILED for s in found.status] == [False, True, False]
    assert apart_mm(model, found.pose[[0, 2]], results["keypoints",].pose[[0, 2]]) < 0.1
    assert refine_grasp(inside[0], held, config=config, input_error="image").status != [Status.FAILED]
