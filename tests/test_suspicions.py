"""Warnings: every mistake that people make is told in their terms, and good input is not."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from batch_fakes import fake_refine, predictions, small_box, tiny_hand
from torch import Tensor

from contact.corpus.shapes import demo_shapes
from contact.objects import ObjectMesh
from contact.perturb import PROTOCOLS, perturb
from hand_models import HandModel, HandPose, load_open_hand
from hand_models.fit import solve_joints
from hand_models.skeleton import ORDERS, convert
from refine import RefineConfig, refine_grasp
from refine.batch import rows
from refine.batch.tally import Tally, report
from refine.commands.demo import GRASPS
from refine.evidence.suspicions import APART, CHECKS, Grasps, kind_of, other_readings, suspicions
from refine.files.object_files import ObjectEntry
from refine.files.prediction_files import read_predictions
from refine.files.prediction_poses import hand_poses, into_camera_frame, into_object_frame, joints_fitted
from refine.files.predictions import SEPARATOR, Predictions
from refine.measure.contact import contact_ratio
from refine.request import Request

CONFIG = RefineConfig(volumes=False)


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture(scope="module")
def demo(model) -> dict[str, tuple[HandPose, ObjectMesh]]:
    """The shipped grasps by object."""
    p, meshes = read_predictions(GRASPS), demo_shapes()
    names = dict.fromkeys(p.object_id.tolist())
    return {n: (hand_poses(p, p.object_id == n, model), ObjectMesh.from_any(meshes[n])) for n in names}


@pytest.fixture(scope="module")
def grasp(demo) -> tuple[HandPose, ObjectMesh]:
    return next(iter(demo.values()))


@pytest.fixture(scope="module")
def camera() -> Tensor:
    """Object to camera, (1, 4, 4)."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    pose = torch.eye(4)[None].clone()
    pose[0, :3, :3] = torch.from_numpy(turn * np.sign(np.linalg.det(turn)))
    pose[0, :3, 3] = torch.tensor([0.1, 0.05, 0.6])
    return pose


def looked_at(
    model: HandModel,
    given: HandPose,
    obj: ObjectMesh,
    *,
    after: HandPose | None = None,
    object_pose: Tensor | None = None,
    joints: Tensor | None = None,
) -> Grasps:
    """The hands, object frame, as refinement to ``after`` leaves them to the checks."""
    pose = into_object_frame(given, object_pose, model)
    one, two = model(pose), model(pose if after is None else after)
    touching = [torch.from_numpy(contact_ratio(v, obj) > 0) for v in (one.vertices, two.vertices)]
    return Grasps(given, joints, object_pose, obj, model, one.vertices, two.vertices, one.joints, two.joints, *touching)


def kinds(grasps: Grasps) -> list[list[str]]:
    found = suspicions(grasps, torch.ones(len(grasps.given), dtype=torch.bool))
    return [[kind_of(text) for text in texts] for texts in found]


def of_joints(model: HandModel, joints: Tensor, obj: ObjectMesh, side: str = "right") -> Grasps:
    return looked_at(model, solve_joints(joints, model, side=side).pose, obj, joints=joints)


# Good input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_noise_of_the_protocols_is_not_suspicious(model, demo, protocol):
    for hand, obj in demo.values():
        many = HandPose.cat([hand] * 8)
        noisy = perturb(many, protocol, seed=1, model=model)
        assert kinds(looked_at(model, noisy, obj, after=many)) == [[]] * len(many)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("sigma", [0.0, 0.005, 0.01])
def test_joints_with_noise_are_not_suspicious(model, grasp, sigma, side):
    g = torch.Generator().manual_seed(2)
    pose = replace(HandPose.zeros(24), hand_pose=model.anatomy.sample(24, g), betas=torch.randn(24, 10, generator=g))
    pose = pose if side == "right" else pose.mirrored()
    joints = model.joints(pose) + sigma * torch.randn(24, 21, 3, generator=g)
    seen = of_joints(model, joints, grasp[1], side)
    assert not CHECKS["side"](seen)
    assert not CHECKS["joint order"](seen)
    assert not CHECKS["angles"](seen)
    assert not CHECKS["shape"](seen)


def test_hands_before_a_camera_may_be_far_away(model, grasp, camera):
    hand, obj = grasp
    away = replace(hand, transl=hand.transl + torch.tensor([0.3, 0.0, 0.0]))
    seen = looked_at(model, into_camera_frame(away, camera, model), obj, object_pose=camera)
    assert not CHECKS["frames"](seen)


def test_large_turns_that_are_small_ones_bend_nothing(model, grasp):
    """An axis-angle of 350° is one of −10°."""
    hand, obj = grasp
    angle = hand.hand_pose.norm(dim=-1, keepdim=True).clamp_min(1e-3)
    other = replace(hand, hand_pose=hand.hand_pose / angle * (angle - 2 * math.pi))
    torch.testing.assert_close(model.joints(other), model.joints(hand), atol=1e-3, rtol=0)
    assert kinds(looked_at(model, other, obj)) == [[]]


# Each mistake ---------------------------------------------------------------------------------------


def test_a_frame_that_is_not_shared(model, grasp):
    hand, obj = grasp
    along = model(hand).vertices[0].mean(0) - obj.points.mean(0)
    near, far = (replace(hand, transl=hand.transl + along / along.norm() * way) for way in (0.08, 0.4))
    seen = looked_at(model, HandPose.cat([near, far]), obj)
    gap = torch.cdist(seen.vertices_before[1], obj.points).amin()
    assert gap > APART
    ((row, text),) = CHECKS["frames"](seen).items()
    assert row == 1
    assert f"{100 * gap:.0f} cm apart" in text
    assert "Give object_pose" in text


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (torch.linalg.inv, "0 cm with the inverse of object_pose"),
        (lambda pose: torch.diag(torch.tensor([1.0, -1, -1, 1])) @ pose, "OpenGL"),
    ],
)
def test_an_object_pose_that_says_something_else(model, grasp, camera, mistake: Callable, told):
    hand, obj = grasp
    given = into_camera_frame(hand, camera, model)
    assert not CHECKS["frames"](looked_at(model, given, obj, object_pose=camera))
    wrong = looked_at(model, given, obj, object_pose=mistake(camera))
    assert told in CHECKS["frames"](wrong)[0]


def test_an_object_pose_for_hands_in_the_objects_frame(model, grasp, camera):
    hand, obj = grasp
    assert "without object_pose" in CHECKS["frames"](looked_at(model, hand, obj, object_pose=camera))[0]


def test_a_hand_out_of_reach_fails_with_the_reading_that_fits(model, grasp, camera):
    hand, obj = grasp
    away = camera.clone()
    away[:, :3, 3] *= 4
    given = into_camera_frame(hand, away, model)
    assert Request.make(given, obj, away[0], model=model).problems == {}
    with pytest.raises(ValueError, match=r"hand_pose: the hand is \d+ cm away .* 0 cm with the inverse of object_pose"):
        Request.make(given, obj, torch.linalg.inv(away[0]), model=model)
    assert other_readings(given, away, obj, model) == {}


def test_angles_in_degrees(model, grasp):
    hand, obj = grasp
    degrees = replace(hand, hand_pose=hand.hand_pose.rad2deg())
    text = CHECKS["angles"](looked_at(model, HandPose.cat([hand, degrees]), obj))
    assert list(text) == [1]
    assert f"{float(degrees.hand_pose.norm(dim=-1).max()):.0f} rad" in text[1]
    turned = replace(hand, global_orient=torch.tensor([[0.0, 90.0, 0.0]]))
    assert "degrees" in CHECKS["angles"](looked_at(model, turned, obj))[0]


@pytest.mark.parametrize("side", ["right", "left"])
def test_numbers_that_are_no_angles(model, grasp, side):
    """A finger twisted by 90°, as when principal components are read as angles; the same in the mirror."""
    hand, obj = grasp
    twist = torch.zeros(1, 15, 3)
    twist[0, 3, 2] = math.pi / 2
    wrong = replace(hand, hand_pose=model.anatomy.from_anatomical(twist))
    wrong = wrong if side == "right" else wrong.mirrored()
    assert CHECKS["angles"](looked_at(model, wrong, obj))[0].startswith("middle1 is bent 6")  # 90° less its range of 25


def test_shapes_that_nobody_has(model, grasp):
    hand, obj = grasp
    odd = replace(hand, betas=hand.betas + torch.eye(10)[3] * 12)
    assert kinds(looked_at(model, HandPose.cat([odd, hand]), obj, after=HandPose.cat([hand, hand]))) == [["shape"], []]


@pytest.mark.parametrize(("factor", "told"), [(10.0, "more than arms can hold"), (0.1, "less than a fingertip")])
def test_an_object_in_another_unit(model, factor, told):
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=0.035)
    hands = HandPose.zeros(2)
    right = looked_at(model, hands, ObjectMesh.from_any(sphere, resolution=16))
    assert not CHECKS["size"](right)
    wrong = looked_at(model, hands, ObjectMesh.from_any(sphere, resolution=16, scale=factor))
    found = CHECKS["size"](wrong)
    assert list(found) == [0, 1]
    assert told in found[1]


def test_a_broom_is_not_too_large(model):
    broom = trimesh.creation.cylinder(0.015, 1.4)
    broom.apply_transform(trimesh.transformations.rotation_matrix(0.8, [1, 1, 0]))
    assert not CHECKS["size"](looked_at(model, HandPose.zeros(1), ObjectMesh.from_any(broom, resolution=16)))


@pytest.mark.parametrize("side", ["right", "left"])
def test_joints_of_the_other_side(model, grasp, side):
    hand, obj = grasp
    true = model.joints(hand if side == "right" else hand.mirrored())
    other = "left" if side == "right" else "right"
    assert not CHECKS["side"](of_joints(model, true, obj, side))
    assert f"a {side} hand fits the joints better" in CHECKS["side"](of_joints(model, true, obj, other))[0]


def test_joints_in_another_order(model, grasp):
    hand, obj = grasp
    joints = model.joints(hand)
    orders = {order.joints: name for name, order in reversed(ORDERS.items()) if len(order) == 21}
    del orders[ORDERS["openpose"].joints]
    given = torch.cat([joints, *(convert(joints, source="openpose", target=name) for name in orders.values())])
    found = CHECKS["joint order"](of_joints(model, given, obj))
    assert list(found) == list(range(1, len(orders) + 1))
    for row, name in enumerate(orders.values(), 1):
        assert f"source={name!r}" in found[row]


def test_joints_of_no_hand(model, grasp):
    joints = 0.08 * torch.randn(1, 21, 3, generator=torch.Generator().manual_seed(0))
    assert "no hand comes nearer" in CHECKS["joint order"](of_joints(model, joints, grasp[1]))[0]


def test_a_jump_and_no_contact(model, grasp):
    hand, obj = grasp
    step = torch.tensor([0.2, 0.0, 0.0])
    away = replace(hand, transl=hand.transl + step)
    assert "moved by 20 cm" in CHECKS["jump"](looked_at(model, away, obj, after=hand))[0]
    assert not CHECKS["contact"](looked_at(model, away, obj, after=hand))
    assert "does not touch" in CHECKS["contact"](looked_at(model, hand, obj, after=away))[0]
    assert not CHECKS["jump"](looked_at(model, hand, obj, after=replace(hand, transl=hand.transl + step / 2)))


def test_rows_that_failed_have_a_reason_and_no_warning(model, grasp):
    hand, obj = grasp
    odd = replace(hand, betas=hand.betas + 12)
    found = suspicions(looked_at(model, HandPose.cat([odd, odd]), obj), torch.tensor([False, True]))
    assert found[0] == []
    assert "shape" in [kind_of(text) for text in found[1]]


# Where they are told --------------------------------------------------------------------------------


def test_a_result_tells_them_once(model, grasp, tmp_path: Path):
    hand, obj = grasp
    joints = model.joints(hand)
    wrong = convert(joints, source="openpose", target="smplx")
    with pytest.warns(UserWarning, match=r"hand_pose: 1 of 2 hands look wrong; row 1: joint order: .*'smplx'") as told:
        result = refine_grasp(torch.cat([joints, wrong]), obj, config=CONFIG)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert result.warnings[0] == []
    assert kind_of(result.warnings[1][0]) == "joint order"
    assert json.loads((result.save(tmp_path) / "summary.json").read_text())["warnings"] == result.warnings
    with np.load(tmp_path / "result.npz") as saved:
        assert saved["warnings"].tolist() == ["", SEPARATOR.join(result.warnings[1])]
    pages = [result.to_html(tmp_path / f"{k}.html", k).read_text(encoding="utf-8") for k in range(2)]
    assert [page.count('<p class="warning">') for page in pages] == [0, len(result.warnings[1])]
    assert "in the order &#x27;smplx&#x27;" in pages[1]


def test_good_grasps_are_refined_without_a_word(model, grasp):
    hand, obj = grasp
    noisy = perturb(HandPose.cat([hand] * 4), "image", seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refine_grasp(noisy, obj, config=CONFIG).warnings == [[]] * 4


def test_two_hands_have_theirs(grasp):
    hand, obj = grasp
    left = replace(hand.mirrored(), betas=hand.betas + 12)
    with pytest.warns(UserWarning, match="left hand, row 0: ") as told:
        right, other = refine_grasp([hand, left], obj, config=CONFIG)
    assert len([w for w in told if "look wrong" in str(w.message)]) == 1
    assert right.warnings == [[]]
    assert "shape" in [kind_of(text) for text in other.warnings[0]]


def test_files_know_which_rows_were_joints(model, grasp):
    hand, obj = grasp
    joints = model.joints(hand).numpy()
    wrong = convert(joints, source="openpose", target="smplx")
    pose = {name: np.repeat(value, 2, 0) for name, value in hand.as_arrays().items()}
    pose["transl"][1] = np.nan
    columns = {"object_id": "cup", "side": "right", "hand_model": "open", **pose}
    p = Predictions.from_columns(columns | {"keypoints_3d": np.concatenate([wrong, wrong])})
    fitted = joints_fitted(p)
    assert fitted is not None
    assert fitted.isfinite().all(2).all(1).tolist() == [False, True]
    given = Request.of_rows(p, obj, model)
    seen = looked_at(model, given.given, obj, joints=given.given_joints)
    assert list(CHECKS["joint order"](seen)) == [1]  # row 0 has a pose, and its keypoints are not used
    assert joints_fitted(p.take([0])) is None


def refined(count: int, told: dict[int, list[str]], monkeypatch: pytest.MonkeyPatch) -> Predictions:
    """Rows through a stand-in that has these warnings of them, by the number in betas[1]."""
    monkeypatch.setattr(rows, "load_object", lambda entry, side: small_box())

    def refine(request: Request):
        result = fake_refine(request)
        result.warnings = [told.get(int(number), []) for number in request.pose.betas[:, 1]]
        return result

    objects = {name: ObjectEntry(name, Path(name)) for name in ("mug", "box")}
    return rows.refine_rows(predictions(count), objects, tiny_hand(), refine)


def test_files_have_a_column_and_the_summary_counts(monkeypatch):
    told = {2: ["angles: degrees?", "jump: far"], 5: ["jump: farther"]}
    out = refined(7, told, monkeypatch)
    assert out.column("warnings").tolist() == ["", "", "angles: degrees?; jump: far", "", "", "jump: farther", ""]
    summary = Tally.of(out, 10).summary()
    assert summary["warnings"] == {
        "angles": {"rows": 1, "example": "row 12: degrees?"},
        "jump": {"rows": 2, "example": "row 12: far"},
    }
    halves = Tally.of(out.take(slice(0, 3)), 10) + Tally.of(out.take(slice(3, 7)), 13)
    assert halves == Tally.of(out, 10)
    text = report(summary | {"seconds": 1.0})
    assert "warning (jump), 2 of 7 rows, e.g. row 12: far" in text
    assert text.index("(jump)") < text.index("(angles)")  # the most frequent first


def test_a_cell_holds_whole_warnings(monkeypatch):
    texts = [f"{kind}: {'x' * 250}" for kind in ("size", "frames", "angles")]
    cell = refined(1, {0: texts}, monkeypatch).column("warnings")[0]
    assert cell.split(SEPARATOR) == texts[:2]


def test_every_kind_is_documented():
    page = (Path(__file__).resolve().parents[1] / "docs" / "conventions.md").read_text(encoding="utf-8")
    section = page.partition("## Warnings")[2]
    for kind in CHECKS:
        assert f"| `{kind}` |" in section
