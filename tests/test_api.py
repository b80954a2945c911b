"""`refine_grasp` end to end on a small network with random weights: what must hold however good the weights are."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import mano_file
import numpy as np
import pytest
import torch
import trimesh

from contact import weights as shipped
from contact.network import ContactNet, NetworkConfig
from contact.objects import ObjectMesh
from contact.weights import save_weights
from hand_models import HandModel, HandPose, load_mano, load_open_hand
from hand_models.rotations import exp_so3
from refine import RefineConfig, RefineResult, Status, refine_grasp
from refine.commands import cli
from refine.evidence.pose_prior import PosePrior
from refine.files.prediction_files import read_predictions, write_predictions
from refine.files.predictions import Predictions
from refine.files.status import statuses
from refine.measure.contact import contact_ratio, penetration_depth
from refine.measure.crossing import crossing_depth
from refine.measure.joints import mpjpe
from refine.measure.volumes import intersection_volume
from refine.solve import contactopt as baseline
from refine.solve.score import ScoreWeights

RADIUS = 0.032
FIELDS = ("global_orient", "hand_pose", "betas", "transl")


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


def tiny_network(seed: int) -> ContactNet:
    """A network that has learnt nothing, but is calm: it sees joints a little off, surely, and no contact.

    Wild predictions contradict one another, and what then comes out hangs on the last digit of what goes in.
    """
    torch.manual_seed(seed)
    network = ContactNet(NetworkConfig(fine=8, middle=8, token=16, layers=1, heads=2))
    with torch.no_grad():
        network.point_head.bias[2] = -8.0  # near
        network.skin_head[-1].bias[0] = -8.0  # touching
        network.joint_head[-1].weight[:3] *= 0.1
        network.joint_head[-1].bias[:3] *= 0.1
        network.joint_head[-1].bias[3] = -3.0  # spread
    return network


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return save_weights(tiny_network(0), {}, tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def never(tmp_path_factory) -> Path:
    """Weights by whose score no result is better, and no hand too deep."""
    score = ScoreWeights(bias=-1e9, deep=(1.0, 2.0))
    return save_weights(tiny_network(0), {"score": asdict(score)}, tmp_path_factory.mktemp("never") / "w.safetensors")


@pytest.fixture(scope="module")
def config(weights) -> RefineConfig:
    return RefineConfig(weights=weights, volumes=False)


@pytest.fixture(scope="module")
def always(config) -> RefineConfig:
    """Every result is taken, so that there is something to compare."""
    return replace(config, gate=False)


@pytest.fixture(scope="module")
def mesh() -> trimesh.Trimesh:
    return trimesh.creation.cylinder(RADIUS, 0.12, sections=48)


@pytest.fixture(scope="module")
def can(mesh) -> ObjectMesh:
    return ObjectMesh.from_any(mesh, name="can", resolution=64)


@pytest.fixture(scope="module")
def hands(model) -> HandPose:
    """Four half-closed hands that sink into the can, no two alike."""
    g = torch.Generator().manual_seed(0)
    bend = torch.zeros(4, 15, 3)
    bend[:, :12, 2] = 0.5 + 0.1 * torch.randn(4, 12, generator=g)
    orient, betas = 0.2 * torch.randn(4, 3, generator=g), 0.5 * torch.randn(4, 10, generator=g)
    transl = torch.tensor([-0.02, 0.048, 0.0]) + 0.003 * torch.randn(4, 3, generator=g)
    transl[0, 1] -= 0.03  # this one is turned away from the can
    return HandPose("right", orient, bend, betas, transl)


@pytest.fixture(scope="module")
def result(hands, can, always) -> RefineResult:
    return refine_grasp(hands, can, config=always)


def distance_mm(model: HandModel, a: HandPose, b: HandPose) -> np.ndarray:
    assert a.side == b.side
    return 1e3 * mpjpe(model.joints(a), model.joints(b))


def same(a: HandPose, b: HandPose) -> bool:
    return a.side == b.side and all(torch.equal(getattr(a, n), getattr(b, n)) for n in FIELDS)


# What comes back ------------------------------------------------------------------------------------


def test_the_result_is_whole_and_fits_together(model, hands, can, result):
    assert len(result) == 4
    assert result.status == [Status.REFINED] * 4
    assert same(result.initial_pose, hands)
    assert result.pose.finite().all()
    assert result.object is can
    assert result.object_pose is None
    torch.testing.assert_close(result.vertices_before, model(hands).vertices)
    torch.testing.assert_close(result.joints_after, model.joints(result.pose), atol=1e-6, rtol=0)
    torch.testing.assert_close(result.vertices_after, model(result.pose).vertices, atol=1e-6, rtol=0)
    assert result.faces.shape == model.closed_faces.shape
    assert result.uncertainty.shape == (4, 21)
    assert (result.uncertainty > 0).all()
    assert (result.steps > 0).all()
    assert np.isfinite(result.score_before).all()
    assert result.contact.contact.shape == (4, 2048)
    assert result.contact.hand_contact.shape == (4, len(model.contact_points))
    assert (distance_mm(model, result.pose, hands) > 0.5).all()


def test_metrics_are_those_of_the_metrics_module(hands, can, always):
    result = refine_grasp(hands[:2], can, config=replace(always, volumes=True))
    names = ("penetration_mm", "crossing_mm", "volume_cm3", "contact_ratio")
    assert set(result.metrics) == {f"{name}_{when}" for name in names for when in ("before", "after")}
    for when, vertices in (("before", result.vertices_before), ("after", result.vertices_after)):
        expected = {
            "penetration_mm": 1e3 * penetration_depth(vertices, can),
            "crossing_mm": 1e3 * crossing_depth(getattr(result, f"joints_{when}"), vertices, can),
            "volume_cm3": 1e6 * intersection_volume(vertices, result.faces, can),
            "contact_ratio": contact_ratio(vertices, can),
        }
        for name, values in expected.items():
            np.testing.assert_allclose(result.metrics[f"{name}_{when}"], values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_keypoints_are_measured_against_before_and_after(model, hands, can, mesh, always, side, tmp_path, monkeypatch):
    """In pixels, from the joints returned; the same through a file; nothing where nothing was given."""
    matrix, intrinsics = torch.eye(4), np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]], np.float32)
    matrix[:3, :3] = exp_so3(torch.tensor([0.5, -1.0, 0.3]))
    matrix[:3, 3] = torch.tensor([0.1, -0.05, 0.7])
    there = (hands if side == "right" else hands.mirrored())[:3]
    there = there.transformed(matrix[:3, :3], matrix[:3, 3], model.root(there))

    def pixels(joints: torch.Tensor) -> np.ndarray:
        seen = joints.numpy() @ intrinsics.T
        return seen[..., :2] / seen[..., 2:]

    keypoints = pixels(model.joints(there)) + np.array([9, -12], np.float32)
    keypoints[0, 4:9], keypoints[1] = np.nan, np.nan
    told = {"keypoints_2d": keypoints, "camera": intrinsics}
    found = refine_grasp(there, can, object_pose=matrix.numpy(), config=always, **told)
    before, after = (found.metrics[f"reprojection_px_{when}"] for when in ("before", "after"))
    np.testing.assert_allclose(before, [15, np.nan, 15], atol=1e-2)
    expected = np.linalg.norm(pixels(model.joints(found.pose)) - keypoints, axis=2)
    np.testing.assert_allclose(after, [np.nanmean(expected[0]), np.nan, expected[2].mean()], atol=1e-2)
    assert (after < before)[[0, 2]].all()
    (tmp_path / "meshes").mkdir()
    mesh.export(tmp_path / "meshes" / "can.ply")
    monkeypatch.setattr(shipped, "DEFAULT", always.weights)
    poses = {"object_pose": matrix.numpy(), "cam_K": intrinsics, "keypoints_2d": keypoints}
    file = write_predictions(tmp_path / "estimates.npz", replace(rows_of(there, ["can"] * 3), **poses))
    arguments = ["refine", str(file), "--objects", str(tmp_path / "meshes"), "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 0
    rows = read_predictions(tmp_path / "out" / "estimates.refined.npz")
    np.testing.assert_allclose(rows.column("reprojection_px_before"), before, atol=1e-3)
    expected = np.linalg.norm(pixels(model.joints(pose_of_rows(rows))) - keypoints, axis=2)
    np.testing.assert_allclose(rows.column("reprojection_px_after")[[0, 2]], np.nanmean(expected[[0, 2]], 1), atol=1e-2)
    means = json.loads((tmp_path / "out" / "estimates.summary.json").read_text())["mean"]
    assert means["reprojection_px_before"] == pytest.approx(15, abs=1e-2)


def pose_of_rows(rows: Predictions) -> HandPose:
    return HandPose.from_arrays({name: getattr(rows, name) for name in FIELDS}, side=str(rows.side[0]))


def test_equal_inputs_and_seeds_give_equal_results(hands, can, always, result):
    again = refine_grasp(hands, can, config=always)
    assert same(again.pose, result.pose)
    np.testing.assert_array_equal(again.score_after, result.score_after)
    torch.testing.assert_close(again.contact.contact, result.contact.contact, rtol=0, atol=0)


def test_the_input_is_not_changed(hands, can, always):
    before = {name: value.copy() for name, value in hands.as_arrays().items()}
    refine_grasp(hands, can, config=always)
    for name, value in hands.as_arrays().items():
        np.testing.assert_array_equal(value, before[name])


# Batches and symmetries -----------------------------------------------------------------------------


def test_a_batch_is_a_loop_in_any_order_and_any_cut(model, hands, can, always, result):
    order = [2, 0, 3, 1]
    shuffled = refine_grasp(hands[order], can, config=always)
    assert (distance_mm(model, shuffled.pose, result.pose[order]) < 1.0).all()
    cut = refine_grasp(hands, can, config=replace(always, batch_size=3))
    assert (distance_mm(model, cut.pose, result.pose) < 1.0).all()
    np.testing.assert_allclose(cut.uncertainty, result.uncertainty, rtol=1e-3)
    alone = refine_grasp(hands[1], can, config=always)
    assert (distance_mm(model, alone.pose, result.pose[1]) < 1.0).all()
    np.testing.assert_allclose(alone.score_before, result.score_before[1:2], rtol=1e-3, atol=1e-3)


def test_a_mirrored_input_gives_the_mirrored_result(model, hands, can, always, result):
    mirrored = refine_grasp(hands.mirrored(), can.mirrored(), config=always)
    assert mirrored.pose.side == "left"
    assert (distance_mm(model, mirrored.pose.mirrored(), result.pose) < 1.0).all()
    flip = torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(mirrored.vertices_after, result.vertices_after * flip, atol=1e-3, rtol=0)
    torch.testing.assert_close(mirrored.contact.contact, result.contact.contact, atol=1e-4, rtol=0)
    torch.testing.assert_close(mirrored.contact.joints, result.contact.joints * flip, atol=1e-4, rtol=0)
    np.testing.assert_allclose(
        mirrored.metrics["penetration_mm_after"], result.metrics["penetration_mm_after"], atol=0.5
    )
    # Its triangles point outward too.
    corners = mirrored.vertices_after[0][torch.from_numpy(mirrored.faces)]
    assert (corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() > 0


def test_a_camera_frame_moves_the_result_with_it(model, hands, can, always, result):
    matrix = torch.eye(4)
    matrix[:3, :3] = exp_so3(torch.tensor([0.5, -1.0, 0.3]))
    matrix[:3, 3] = torch.tensor([0.1, -0.05, 0.7])

    def seen(pose: HandPose) -> HandPose:
        return pose.transformed(matrix[:3, :3], matrix[:3, 3], model.root(pose))

    camera = refine_grasp(seen(hands), can, object_pose=matrix.numpy(), config=always)
    assert (distance_mm(model, camera.pose, seen(result.pose)) < 1.0).all()
    torch.testing.assert_close(camera.vertices_after, result.vertices_after, atol=1e-3, rtol=0)  # object frame
    np.testing.assert_allclose(camera.object_pose, np.tile(matrix.numpy(), (4, 1, 1)))
    each = refine_grasp(seen(hands), can, object_pose=matrix.repeat(4, 1, 1), config=always)
    assert same(each.pose, camera.pose)


def test_the_result_moves_with_hand_and_object(model, hands, can, always, result):
    rotation, shift = exp_so3(torch.tensor([0.0, 0.0, torch.pi / 2])), torch.tensor([0.2, 0.1, -0.3])
    turned = ObjectMesh.from_any((can.vertices @ rotation.T + shift, can.faces), resolution=64)
    points, normals = can.points @ rotation.T + shift, can.normals @ rotation.T
    turned = replace(turned, points=points, normals=normals, thickness=can.thickness)  # the same samples
    moved = refine_grasp(hands.transformed(rotation, shift, model.root(hands)), turned, config=always)
    expected = result.pose.transformed(rotation, shift, model.root(result.pose))
    assert (distance_mm(model, moved.pose, expected) < 2.0).all()


# Do no harm -----------------------------------------------------------------------------------------


# With the weights that ship, from the mesh as it is given, to 1e-3 m at every joint
SHIPPED = RefineConfig(gate=False, volumes=False)


def farthest(model: HandModel, a: HandPose, b: HandPose) -> float:
    """Metres between the joints that differ most."""
    return float((model.joints(a) - model.joints(b)).norm(dim=-1).max())


@pytest.fixture(scope="module")
def real(hands, mesh) -> RefineResult:
    return refine_grasp(hands, mesh, config=SHIPPED)


def test_a_mirrored_scene_gives_the_mirrored_result(model, hands, mesh, real):
    mirror = trimesh.Trimesh(mesh.vertices * [-1.0, 1.0, 1.0], mesh.faces[:, ::-1], process=False)
    mirrored = refine_grasp(hands.mirrored(), mirror, config=SHIPPED)
    assert farthest(model, mirrored.pose.mirrored(), real.pose) < 1e-3
    np.testing.assert_allclose(mirrored.object.points.numpy() * [-1, 1, 1], real.object.points, atol=1e-6)


def test_a_permuted_batch_gives_the_permuted_result(model, hands, mesh, real):
    order = torch.tensor([2, 0, 3, 1])
    assert farthest(model, refine_grasp(hands[order], mesh, config=SHIPPED).pose, real.pose[order]) < 1e-3


def test_a_moved_scene_gives_the_moved_result(model, hands, mesh, real):
    matrix = torch.eye(4)
    matrix[:3, :3], matrix[:3, 3] = exp_so3(torch.tensor([0.5, -1.0, 0.3])), torch.tensor([0.1, -0.05, 0.7])

    def seen(pose: HandPose) -> HandPose:
        return pose.transformed(matrix[:3, :3], matrix[:3, 3], model.root(pose))

    found = refine_grasp(seen(hands), mesh, object_pose=matrix, config=SHIPPED)
    assert farthest(model, found.pose, seen(real.pose)) < 1e-3


def test_a_prior_counts_as_much_as_it_is_sure(model, hands, can, always, result):
    """Sure of the input, the hands stay; sure of nothing, the prior changes nothing; and left hands mirror it."""

    def refined(std: float, pose: HandPose = hands, scene: ObjectMesh = can) -> HandPose:
        prior = PosePrior.from_covariance(pose, (std**2 * torch.eye(51)).expand(len(pose), -1, -1))
        return refine_grasp(pose, scene, config=always, prior=prior).pose

    assert distance_mm(model, refined(1e-5), hands).max() < 0.1
    assert distance_mm(model, refined(1e3), result.pose).max() < 0.5
    between = distance_mm(model, refined(0.01), hands)
    assert between.mean() < distance_mm(model, result.pose, hands).mean()
    mirrored = refined(0.01, hands.mirrored(), can.mirrored())
    assert distance_mm(model, mirrored.mirrored(), refined(0.01)).max() < 1.5


def test_a_prior_of_other_hands_is_refused(hands, can, always):
    prior = PosePrior.from_covariance(hands[:1], 1e-4 * torch.eye(51)[None])
    with pytest.raises(ValueError, match="prior: of 1 right hands"):
        refine_grasp(hands, can, config=always, prior=prior)
    with pytest.raises(ValueError, match="prior: is for single hands"):
        refine_grasp([hands, hands.mirrored()], can, config=always, prior=prior)


def test_kept_hands_come_back_to_the_bit(hands, can, config, never):
    strict = replace(config, weights=never)  # nothing is good enough
    result = refine_grasp(hands, can, config=strict, holding=True)
    assert result.status == [Status.KEPT] * 4
    assert result[0].status == "kept"  # a single hand's
    assert result.status != "kept"
    assert same(result.pose, hands)
    torch.testing.assert_close(result.vertices_after, result.vertices_before, rtol=0, atol=0)
    np.testing.assert_array_equal(result.score_after, result.score_before)
    assert (result.holding == 1).all()
    left = refine_grasp(hands.mirrored(), can.mirrored(), config=strict, holding=True)
    assert same(left.pose, hands.mirrored())
    matrix = torch.eye(4)
    matrix[:3, :3], matrix[:3, 3] = exp_so3(torch.tensor([0.2, 0.1, -0.4])), torch.tensor([0.0, 0.1, 0.5])
    model = load_open_hand()
    seen = hands.transformed(matrix[:3, :3], matrix[:3, 3], model.root(hands))
    assert same(refine_grasp(seen, can, object_pose=matrix, config=strict, holding=True).pose, seen)


def test_results_are_taken_as_far_as_they_are_probably_better(model, hands, can, config, result, tmp_path):
    """Some of the way where that is likely, all of it where it is sure."""
    gain = result.score_after - result.score_before
    bias = -float(np.sort(gain)[1])  # even odds for the second of four
    score = ScoreWeights(bias=bias, deep=(1.0, 2.0))
    path = save_weights(tiny_network(0), {"score": asdict(score)}, tmp_path / "w.safetensors")
    probable = 1 / (1 + np.exp(-(gain + bias)))
    middle = float(np.sort(probable)[2])
    gated = refine_grasp(hands, can, config=replace(config, weights=path, undecided=0.51, sure=middle), holding=True)
    share = np.clip((probable - 0.51) / (middle - 0.51), 0, 1)
    assert (share == 0).sum() == 2
    whole = distance_mm(model, result.pose, hands)
    np.testing.assert_allclose(distance_mm(model, gated.pose, hands), share * whole, atol=0.3)


def test_the_hands_that_hold_nothing_stay(model, hands, can, config, always, result):
    """Whether it is said of all of them or of some."""
    for holding in (False, [False] * 4, np.zeros(4), torch.zeros(4)):
        found = refine_grasp(hands, can, config=always, holding=holding)
        assert found.status == [Status.APART] * 4
        assert (found.holding == 0).all()
        assert (found.metrics["penetration_mm_after"] < 0.5 * found.metrics["penetration_mm_before"] + 0.1).all()
        assert (distance_mm(model, found.pose, result.pose) > 1).all()
    some = refine_grasp(hands, can, config=always, holding=[True, False, None, True])
    assert [s is Status.APART for s in some.status] == [False, True, False, False]
    assert some.holding[[0, 1, 3]].tolist() == [1, 0, 1]
    judged = refine_grasp(hands, can, config=always).holding
    assert some.holding[2] == pytest.approx(judged[2], abs=1e-4)
    assert ((judged > 0) & (judged < 1)).all()
    assert (distance_mm(model, some.pose[[0, 3]], result.pose[[0, 3]]) < 1.0).all()


@pytest.mark.parametrize("holding", ["yes", 0.5, [True, False], [[True] * 4], 2, [True, True, True, "no"]])
def test_what_says_nothing_of_holding_is_refused(hands, can, config, holding):
    with pytest.raises(
        ValueError, match=r"holding: got .*; pass True, False or None, or a list of 4 of them, one a hand"
    ):
        refine_grasp(hands, can, config=config, holding=holding)


def test_a_hand_of_nan_fails_alone(model, hands, can, always, result):
    broken = replace(hands, transl=hands.transl.clone())
    broken.transl[2, 1] = torch.nan
    mixed = refine_grasp(broken, can, config=always)
    assert mixed.status == [Status.REFINED, Status.REFINED, Status.FAILED, Status.REFINED]
    others = [0, 1, 3]
    assert (distance_mm(model, mixed.pose[others], result.pose[others]) < 1.0).all()
    assert torch.isnan(mixed.pose.transl[2, 1])
    torch.testing.assert_close(mixed.pose.hand_pose[2], hands.hand_pose[2], rtol=0, atol=0)
    assert np.isnan(mixed.score_after[2])
    assert np.isnan(mixed.uncertainty[2]).all()
    assert np.isnan(mixed.metrics["penetration_mm_after"][2])
    assert mixed.steps[2] == 0
    assert torch.isnan(mixed.contact.contact[2]).all()


def test_statuses():
    """Never refined without contact; a hand that holds nothing is apart, however far it was brought out."""
    usable = torch.tensor([True, True, True, True, True, False])
    holds = torch.tensor([True, True, True, False, False, False])
    way, touches = torch.tensor([0.01, 0.01, 0.0009, 0.0, 0.006, 0.0]), torch.tensor([1, 0, 0, 1, 1, 1]).bool()
    expected = [Status.REFINED, Status.APART, Status.KEPT, Status.APART, Status.APART, Status.FAILED]
    assert statuses(usable, holds, way, touches) == expected
    assert all(len(s.explanation) > 20 for s in Status)


# Forms of input -------------------------------------------------------------------------------------


def test_every_form_of_hand_gives_the_same_grasp(model, hands, can, always, result, never):
    h = hands[0]
    vector = torch.cat([h.global_orient, h.hand_pose.flatten(1), h.betas, h.transl], 1)
    arrays = h.as_arrays()
    expected = refine_grasp(h, can, config=always).pose
    for form in (vector, vector[0].numpy(), vector.tolist(), arrays, {k: v[0] for k, v in arrays.items()}):
        assert same(refine_grasp(form, can, config=always).pose, expected)
    plain = replace(h, betas=torch.zeros(1, 10))
    short = torch.cat([plain.global_orient, plain.hand_pose.flatten(1), plain.transl], 1)
    assert same(refine_grasp(short, can, config=always).pose, refine_grasp(plain, can, config=always).pose)
    joints = refine_grasp(model.joints(h), can, config=replace(always, weights=never, gate=True))
    assert distance_mm(model, joints.pose, h) < 1.5


def test_left_hands_are_said_to_be_left(hands, can, always):
    left = hands[0].mirrored()
    expected = refine_grasp(left, can, config=always).pose
    arrays = left.as_arrays()
    assert same(refine_grasp(arrays, can, side="left", config=always).pose, expected)
    assert same(refine_grasp({**arrays, "side": "left"}, can, config=always).pose, expected)


def test_every_form_of_object_gives_the_same_grasp(model, hands, mesh, tmp_path, always):
    path = tmp_path / "can.ply"
    mesh.export(path)
    exact = refine_grasp(hands[0], mesh, config=always)
    for form in ((mesh.vertices, mesh.faces), ObjectMesh.from_any(mesh)):
        assert same(refine_grasp(hands[0], form, config=always).pose, exact.pose)
    larger = (mesh.vertices * 1024, mesh.faces)  # a power of two, so that nothing is rounded
    assert same(refine_grasp(hands[0], larger, scale=1 / 1024, config=always).pose, exact.pose)
    for form in (path, str(path)):  # vertices pass through the file as float32
        found = refine_grasp(hands[0], form, config=always)
        assert found.object.name == "can"
        assert distance_mm(model, found.pose, exact.pose) < 5.0


@pytest.mark.parametrize("side", ["right", "left"])
def test_mano_hands_are_refined_too(hands, can, always, tmp_path, side):
    mano_file.write_mano(tmp_path, side)
    mano = load_mano(tmp_path, side=side)
    given = hands[:2] if side == "right" else hands[:2].mirrored()
    result = refine_grasp(given, can, config=always, hand_model=mano)
    assert result.pose.side == side
    assert result.status == [Status.REFINED] * 2
    assert result.vertices_after.shape == (2, 778, 3)
    torch.testing.assert_close(result.joints_after, mano.joints(result.pose), atol=1e-5, rtol=0)
    assert result.hand_model is mano


def test_a_model_of_either_side_serves_hands_of_either_side(model, hands, can, always, result):
    other = refine_grasp(hands, can, config=always, hand_model=model.mirrored())
    assert (distance_mm(model, other.pose, result.pose) < 1.0).all()


def test_contactopt_runs_its_own_procedure(hands, can, always, monkeypatch):
    real, seen = baseline.contactopt, []

    def short(*arguments, **options):
        seen.append(options)
        return real(*arguments, iterations=3, restarts=2, **options)

    monkeypatch.setattr(baseline, "contactopt", short)
    result = refine_grasp(hands[:2], can, config=replace(always, method="contactopt"), seed=5)
    assert seen == [{"seed": 5}]
    assert result.pose.finite().all()
    assert Status.FAILED not in result.status
    again = refine_grasp(hands[:2], can, config=replace(always, method="contactopt"), seed=5)
    assert same(again.pose, result.pose)
    other = refine_grasp(hands[:2], can, config=replace(always, method="contactopt"), seed=6)
    assert not same(other.pose, result.pose)


# Mistakes -------------------------------------------------------------------------------------------


def pose_51(value: float = 0.0) -> np.ndarray:
    return np.full(51, value, np.float32)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"hand_pose": pose_51(np.nan)}, ValueError, r"hand_pose: every hand holds NaN .*check the estimator"),
        ({"hand_pose": np.full((21, 3), np.nan)}, ValueError, r"hand_pose: every hand holds NaN"),
        ({"hand_pose": np.zeros(52)}, ValueError, r"hand_pose: got shape \(52,\); pass"),
        ({"hand_pose": np.append(np.zeros(48), [0, 75.0, 0])}, ValueError, r"hand_pose: .* 74\.\d m away.*metres"),
        ({"side": "both"}, ValueError, r"side: got 'both'; pass 'right' or 'left'"),
        ({"object_mesh": "gone.ply"}, FileNotFoundError, r"object_mesh: there is no file 'gone.ply': check"),
        ({"object_mesh": trimesh.Trimesh()}, ValueError, r"object_mesh"),
        ({"object_mesh": (np.eye(3), np.zeros((0, 3), int))}, ValueError, r"object_mesh.*fac"),
        ({"object_mesh": trimesh.creation.box((60.0, 80.0, 90.0))}, ValueError, r"object_mesh.*pass scale=0\.001"),
        ({"object_mesh": 7}, ValueError, r"object_mesh: cannot make an object from int; pass a path"),
        ({"object_mesh": (np.full((4, 3), np.nan), [[0, 1, 2]])}, ValueError, r"object_mesh"),
        ({"object_mesh": (np.eye(3), [[0, 1, 3]])}, ValueError, r"object_mesh"),
        ({"object_pose": np.eye(3)}, ValueError, r"object_pose: got shape \(3, 3\); expected \(4, 4\)"),
        ({"object_pose": np.zeros((4, 4))}, ValueError, r"object_pose: .*not a rotation"),
        ({"config": {"method": "regrasp"}}, ValueError, r"config: got dict; pass a RefineConfig"),
        ({"hand_model": "mano"}, ValueError, r"hand_model: got str; pass a HandModel, e\.g\. load_hand_model"),
    ],
)  # fmt: skip
def test_mistakes_name_the_argument_and_the_mend(mesh, config, changed, error, message):
    arguments = {"hand_pose": pose_51(), "object_mesh": mesh, "config": config} | changed
    with pytest.raises(error, match=message):
        refine_grasp(arguments.pop("hand_pose"), arguments.pop("object_mesh"), **arguments)


def test_files_that_are_no_meshes_are_named(tmp_path, config):
    path = tmp_path / "cup.ply"
    path.write_bytes(b"ply\nnot really")
    with pytest.raises(ValueError, match=r"object_mesh: .*cup\.ply"):
        refine_grasp(pose_51(), path, config=config)
    with pytest.raises(ValueError, match=r"object_mesh: .*3 points|object_mesh: .*100 points"):
        refine_grasp(pose_51(), ObjectMesh.from_any(trimesh.creation.box((0.1,) * 3), n_points=100), config=config)


def test_missing_or_broken_weights_are_named(hands, can, config, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights: .*regrasp train"):
        refine_grasp(hands, can, config=replace(config, weights=tmp_path / "gone.safetensors"))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not a weight file")
    broken.with_suffix(".json").write_text("{}")
    with pytest.raises(ValueError, match=r"weights: .*train it again"):
        refine_grasp(hands, can, config=replace(config, weights=broken))


def test_new_weights_under_an_old_name_are_read_anew(hands, can, always, weights, tmp_path):
    path = tmp_path / "w.safetensors"
    for suffix in (".safetensors", ".json"):
        path.with_suffix(suffix).write_bytes(weights.with_suffix(suffix).read_bytes())
    first = refine_grasp(hands[0], can, config=replace(always, weights=path))
    save_weights(tiny_network(1), {}, path)
    assert not same(refine_grasp(hands[0], can, config=replace(always, weights=path)).pose, first.pose)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "best"}, "method: got 'best'"),
        ({"batch_size": 0}, "batch_size: got 0; give 1 or more"),
        ({"skin_points": 0}, "skin_points"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        RefineConfig(**options)


# The command ----------------------------------------------------------------------------------------


def rows_of(pose: HandPose, object_id: list[str]) -> Predictions:
    return Predictions(np.array(object_id), np.full(len(pose), pose.side), "open", **pose.as_arrays())


def test_the_command_does_what_the_function_does(hands, mesh, config, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "DEFAULT", config.weights)
    (tmp_path / "meshes").mkdir()
    mesh.export(tmp_path / "meshes" / "can.ply")
    file = write_predictions(tmp_path / "estimates.npz", rows_of(hands.mirrored(), ["can"] * 4))
    arguments = ["refine", str(file), "--objects", str(tmp_path / "meshes"), "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 0
    rows = read_predictions(tmp_path / "out" / "estimates.refined.npz")
    path = tmp_path / "meshes" / "can.ply"
    result = refine_grasp(hands.mirrored(), path, config=replace(config, volumes=True))
    assert rows.column("status").tolist() == [s.value for s in result.status]
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(rows, name), getattr(result.pose, name).numpy())
    np.testing.assert_allclose(rows.column("volume_cm3_after"), result.metrics["volume_cm3_after"])
    np.testing.assert_allclose(rows.column("uncertainty"), result.uncertainty)


def test_betas_of_another_model_are_left_out_in_files_and_in_python_alike(hands, mesh, config, tmp_path, monkeypatch):
    """Equal poses with MANO's betas, said to be MANO's, give the same open hand either way."""
    mano_file.write_mano(tmp_path, "right")
    monkeypatch.setenv("MANO_DIR", str(tmp_path))
    monkeypatch.setattr(shipped, "DEFAULT", config.weights)
    (tmp_path / "meshes").mkdir()
    mesh.export(tmp_path / "meshes" / "can.ply")
    given = replace(hands, betas=torch.linspace(-2, 2, 10).repeat(4, 1))
    rows = replace(rows_of(given, ["can"] * 4), hand_model=np.full(4, "mano"))
    file = write_predictions(tmp_path / "estimates.npz", rows)
    arguments = ["refine", str(file), "--objects", str(tmp_path / "meshes"), "--out", str(tmp_path / "out")]
    with pytest.warns(UserWarning, match="betas of the hand model 'mano'"):
        result = refine_grasp(
            given.as_arrays() | {"hand_model": "mano"}, tmp_path / "meshes" / "can.ply", config=config
        )
    assert (result.initial_pose.betas == 0).all()
    assert cli.main(arguments) == 0
    rows = read_predictions(tmp_path / "out" / "estimates.refined.npz")
    moved = np.array([s is not Status.KEPT for s in result.status])
    assert moved.any()
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(rows, name)[moved], getattr(result.pose, name).numpy()[moved])
    assert (rows.hand_model == np.where(moved, "open", "mano")).all()


def test_a_hand_out_of_reach_fails_alone(model, hands, mesh, can, config, always, result, tmp_path, monkeypatch):
    far = replace(hands, transl=hands.transl.clone())
    far.transl[2, 2] += 3.0
    with pytest.warns(UserWarning, match=r"1 of 4 hands are not refined; row 2: the hand is 2\.\d m away"):
        found = refine_grasp(far, can, config=always)
    assert found.status == [Status.REFINED, Status.REFINED, Status.FAILED, Status.REFINED]
    assert same(found.pose[2], far[2])
    others = [0, 1, 3]
    assert found.reason[2].startswith("the hand is 2")
    assert [found.reason[row] for row in others] == [""] * 3
    assert (distance_mm(model, found.pose[others], result.pose[others]) < 1.0).all()
    with pytest.raises(ValueError, match=r"hand_pose: the hand is 2\.\d m away"):
        refine_grasp(far[2], can, config=always)
    monkeypatch.setattr(shipped, "DEFAULT", config.weights)
    (tmp_path / "meshes").mkdir()
    mesh.export(tmp_path / "meshes" / "can.ply")
    file = write_predictions(tmp_path / "estimates.npz", rows_of(far, ["can"] * 4))
    arguments = ["refine", str(file), "--objects", str(tmp_path / "meshes"), "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 1
    rows = read_predictions(tmp_path / "out" / "estimates.refined.npz")
    assert (rows.status == "failed").tolist() == [False, False, True, False]
    assert rows.reason[2].startswith("row 2: the hand is 2")
    np.testing.assert_array_equal(rows.transl[2], far.transl[2])


@pytest.mark.parametrize("spoil", ["truncated", "text", "pickle", "gone", "millimetres", "empty", "side"])
def test_the_command_names_what_is_wrong_with_its_files(hands, mesh, config, tmp_path, monkeypatch, capsys, spoil):
    monkeypatch.setattr(shipped, "DEFAULT", config.weights)
    (tmp_path / "meshes").mkdir()
    part = mesh.copy()
    if spoil == "millimetres":
        part.apply_scale(1000)
    part.export(tmp_path / "meshes" / "can.ply")
    if spoil == "empty":
        (tmp_path / "meshes" / "can.ply").write_bytes(b"")
    rows = rows_of(hands[:1], ["can"])
    if spoil == "side":
        rows = replace(rows, side=np.array(["both"]))
    file = write_predictions(tmp_path / "estimates.npz", rows)
    if spoil == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif spoil == "text":
        file.write_text("not an archive")
    elif spoil == "pickle":
        np.savez(file, object_id=np.array(["can"], object), side=["right"])
    elif spoil == "gone":
        file.unlink()
    arguments = ["refine", str(file), "--objects", str(tmp_path / "meshes"), "--out", str(tmp_path / "out")]
    status, printed = cli.main(arguments), capsys.readouterr()
    expected = {
        "truncated": (2, "estimates.npz: not a readable .npz file"), "text": (2, "write it again"),
        "pickle": (2, "never read; save plain arrays"), "gone": (2, "there is no such file"),
        "millimetres": (1, "pass scale=0.001"), "empty": (1, "can.ply"), "side": (1, "neither 'right' nor 'left'"),
    }[spoil]  # fmt: skip
    assert status == expected[0]
    assert expected[1] in printed.out + printed.err
    assert "Traceback" not in printed.err


# To disk and browser --------------------------------------------------------------------------------


def test_saved_results_hold_everything_without_pickle(hands, can, always, tmp_path):
    broken = replace(hands, transl=hands.transl.clone())
    broken.transl[1] = torch.nan
    pose = np.eye(4, dtype=np.float32)
    result = refine_grasp(broken, can, object_pose=pose, config=always)
    folder = result.save(tmp_path / "new" / "result")
    assert sorted(p.name for p in folder.iterdir()) == ["result.npz", "summary.json"]
    with np.load(folder / "result.npz", allow_pickle=False) as data:
        arrays = dict(data)
    for name in FIELDS:
        np.testing.assert_array_equal(arrays[name], getattr(result.pose, name).numpy())
        np.testing.assert_array_equal(arrays[f"initial_{name}"], getattr(broken, name).numpy())
    np.testing.assert_array_equal(arrays["vertices_after"], result.vertices_after.numpy())
    assert arrays["status"].tolist() == ["refined", "failed", "refined", "refined"]
    assert str(arrays["side"]) == "right"
    assert arrays["object_pose"].shape == (4, 4, 4)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    summary = json.loads((folder / "summary.json").read_text(), parse_constant=refuse)
    assert summary["object"] == "can"
    assert summary["metrics"]["penetration_mm_after"][1] is None
    assert summary["metrics"]["penetration_mm_after"][0] is not None
    result.save(folder)  # again, in the same place


def test_a_page_is_written(result, tmp_path):
    page = result.to_html(tmp_path / "new" / "page.html", index=2)
    text = page.read_text()
    assert text.lstrip().lower().startswith("<!doctype html")
    assert "can" in text
    assert not list(page.parent.glob("*.tmp"))
    with pytest.raises(IndexError, match=r"index 4 is out of range: the result holds 4 grasps"):
        result.to_html(tmp_path / "page.html", index=4)


def test_the_page_of_a_failed_hand_says_why_there_is_none(hands, can, always, tmp_path):
    broken = replace(hands[:2], transl=hands.transl[:2].clone())
    broken.transl[1] = torch.nan
    result = refine_grasp(broken, can, config=always)
    with pytest.raises(ValueError, match=r"index: grasp 1 failed.*NaN"):
        result.to_html(tmp_path / "page.html", index=1)
