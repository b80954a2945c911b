"""The 29-node graph, its networks, the virtual camera, random cameras, and training."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hand_models.resumable import Checkpoint
from hand_models.rotations import exp_so3
from pose_graph.affinity import FLESH, affinity_loss, kabsch, surface_distance
from pose_graph.cameras import CameraConfig, GraspSet, confidence_of, detect, random_rotations, sample
from pose_graph.graph import (
    JOINTS,
    NODES,
    LearnedAdjacency,
    adjacency,
    cuboid_edges,
    draw_adjacency,
    grasp_adjacency,
    learned_adjacencies,
    normalised,
)
from pose_graph.lifting import USUAL_RADIUS, lift, mirror_nodes, place, project, view_of
from pose_graph.network import UNIT, LiftConfig, LiftNet, LiftOutput
from pose_graph.train import LiftTraining, evaluate, in_object_frame, train
from pose_graph.weights import load_network, save_network

KINDS = ("context", "unet", "mlp")
CAMERA = torch.tensor([[1400.0, 0, 960], [0, 1400, 540], [0, 0, 1]])
SMALL = {"width": 16, "readout": 32, "unet_channels": (8, 8, 8, 8, 8), "mlp_width": 32}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grasps(count: int = 12) -> GraspSet:
    """Made-up grasps: a cloud of joints beside a box, with the box's surface."""
    g = generator(3)
    box = torch.tensor([0.06, 0.08, 0.10])
    bits = torch.tensor([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    corners = (bits - 0.5) * box
    joints = torch.randn(count, JOINTS, 3, generator=g) * 0.03 + torch.tensor([0.06, 0.0, 0.0])
    points = torch.cat([joints, corners.expand(count, 8, 3)], 1)
    normals = torch.nn.functional.normalize(torch.randn(1, 64, 3, generator=g), dim=-1)
    return GraspSet(
        points,
        torch.arange(count) % 3,
        box.expand(count, 3),
        (normals * 0.05).expand(3, -1, -1),
        normals.expand(3, -1, -1),
    )


def seen_points(count: int = 4) -> torch.Tensor:
    return grasps(count).points @ random_rotations(1, generator(5))[0].T + torch.tensor([0.05, -0.03, 0.6])


# Graph ----------------------------------------------------------------------------------------------


def test_cuboid_edges_join_corners_that_differ_in_one_bit():
    edges = cuboid_edges()
    assert len(edges) == 12
    assert all(bin(a ^ b).count("1") == 1 for a, b in edges)


def test_grasp_adjacency_keeps_hand_and_object_apart():
    matrix = grasp_adjacency()
    assert torch.equal(matrix, matrix.T)
    assert matrix[:JOINTS, JOINTS:].sum() == 0
    assert matrix.sum() == NODES + 2 * (20 + 12)
    # One component each: the hand is a tree, the box is connected.
    reach = torch.linalg.matrix_power(matrix, NODES) > 0
    assert reach[:JOINTS, :JOINTS].all()
    assert reach[JOINTS:, JOINTS:].all()


def test_normalisation_of_a_regular_graph_has_rows_that_sum_to_one():
    box = normalised(adjacency(cuboid_edges(), 8))
    torch.testing.assert_close(box.sum(1), torch.ones(8))


def test_adjacency_refuses_nodes_that_are_not_there():
    with pytest.raises(ValueError, match="number the nodes from 0"):
        adjacency([(0, 8)], 8)


def test_adjacencies_are_learned_and_drawn(tmp_path):
    network = LiftNet(LiftConfig(**SMALL))
    drawn = learned_adjacencies(network)
    assert {tuple(m.shape) for m in drawn.values()} == {(29, 29), (21, 21), (8, 8)}
    assert all(m.matrix.requires_grad for m in network.modules() if isinstance(m, LearnedAdjacency))
    from PIL import Image

    path = draw_adjacency(torch.eye(8), tmp_path / "box.png", cell=10)
    picture = np.asarray(Image.open(path))
    assert picture.shape[0] == 80
    red = (picture == [200, 30, 40]).all(-1).sum()
    assert red >= 7 * 100  # the diagonal, less what labels cover
    with pytest.raises(ValueError, match="one for each"):
        draw_adjacency(torch.eye(8), tmp_path / "x.png", names=["a"])


# Networks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("features", [0, 5])
def test_every_network_gives_the_same_numbers(kind, features):
    network = LiftNet(LiftConfig(kind=kind, image_features=features, **SMALL)).eval()
    x = torch.randn(3, NODES, 8 + features)
    out = network(x)
    assert out.keypoints.shape == (3, NODES, 2)
    assert out.offsets.shape == (3, NODES, 3)
    assert out.log_sigma.shape == (3, NODES)
    assert out.log_depth.shape == (3,)
    # Rows do not speak to each other.
    torch.testing.assert_close(network(x[1:2]).offsets, out.offsets[1:2], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"expected \(B, 29, "):
        network(x[..., 1:])


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_used(kind):
    network = LiftNet(LiftConfig(kind=kind, dropout=0.0, **SMALL))
    out = network(torch.randn(4, NODES, 8))
    (out.keypoints.sum() + out.offsets.square().sum() + out.log_sigma.sum() + out.log_depth.sum()).backward()
    unused = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []


def test_config_errors():
    with pytest.raises(ValueError, match="choose 'context'"):
        LiftConfig(kind="gcn")
    with pytest.raises(ValueError, match="give five"):
        LiftConfig(unet_channels=(1, 2))


# The virtual camera ---------------------------------------------------------------------------------


def test_features_do_not_depend_on_where_and_which_way_up_a_grasp_is_seen():
    points = seen_points()
    view = view_of(project(points, CAMERA), CAMERA)
    aside = exp_so3(torch.tensor([0.1, -0.25, 1.3]))  # the camera turns about itself, and rolls
    other_camera = torch.tensor([[900.0, 0, 300], [0, 950, 200], [0, 0, 1]])
    other = view_of(project(points @ aside.T, other_camera), other_camera)
    torch.testing.assert_close(view.features(), other.features(), rtol=0, atol=0.03)


def test_hands_point_up_in_the_view():
    view = view_of(project(seen_points(), CAMERA), CAMERA)
    near = [0, 1, 5, 9, 13, 17]
    far = [k for k in range(JOINTS) if k not in near]
    up = view.seen[:, far].mean(1) - view.seen[:, near].mean(1)
    assert (up[:, 1] < 0).all()
    torch.testing.assert_close(up[:, 0], torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.linalg.det(view.rotation), torch.ones(4))


def test_true_offsets_give_the_true_points():
    points = seen_points()
    view = view_of(project(points, CAMERA), CAMERA)
    turned = points @ view.rotation.transpose(1, 2)
    log_depth = (turned[..., 2].mean(1) / (USUAL_RADIUS / view.spread)).log()
    depth = turned[..., 2].mean(1)
    base = torch.cat([view.seen, torch.ones(4, NODES, 1)], 2) * depth[:, None, None]
    output = LiftOutput(view.seen, (turned - base) / UNIT, torch.zeros(4, NODES), log_depth)
    torch.testing.assert_close(place(output, view) @ view.rotation, points, atol=1e-5, rtol=1e-4)


def test_missing_keypoints_have_no_say():
    keypoints = project(seen_points(), CAMERA)
    keypoints[:, 4] = torch.nan
    view = view_of(keypoints, CAMERA)
    wild = keypoints.clone()
    wild[:, 4] = 1e6
    confidence = torch.ones(4, NODES)
    confidence[:, 4] = 0
    torch.testing.assert_close(view.features(), view_of(wild, CAMERA, confidence).features())
    assert (view.features()[:, 4, :3] == 0).all()


def test_the_box_is_told_or_unknown():
    view = view_of(project(seen_points(), CAMERA), CAMERA)
    box = torch.tensor([[0.1, 0.2, 0.3]]).repeat(4, 1)
    box[1] = torch.nan
    told = view.features(box)
    torch.testing.assert_close(told[0, 0, 4:], torch.tensor([1.0, 2.0, 3.0, 1.0]))
    assert (told[1, :, 4:] == 0).all()


def test_left_hands_are_lifted_in_the_mirror():
    network = LiftNet(LiftConfig(**SMALL)).eval()
    points = seen_points()
    right = lift(network, project(points, CAMERA), CAMERA, box=[0.06, 0.08, 0.1])
    order = mirror_nodes("left")
    mirrored = (points * torch.tensor([-1.0, 1, 1]))[:, order]
    left = lift(network, project(mirrored, CAMERA), CAMERA, box=[0.06, 0.08, 0.1], side="left")
    expected = (right.points * torch.tensor([-1.0, 1, 1]))[:, order]
    torch.testing.assert_close(left.points, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": np.zeros((4, 21, 2))}, "expected \\(B, 29, 2\\)"),
        ({"cam_K": np.eye(4)}, "expected \\(3, 3\\)"),
        ({"cam_K": np.array([[1400.0, 0, 0], [0, 1400, 0], [960, 540, 0]])}, "is it transposed"),
        ({"side": "both"}, "'right' or 'left'"),
        ({"box": [1.0, 2.0]}, "expected \\(3,\\)"),
        ({"confidence": np.ones(3)}, "confidence: got shape"),
        ({"keypoints": np.full((1, 29, 2), np.nan)}, "fewer than six"),
    ],
)
def test_lift_says_what_is_wrong(change, message):
    arguments = {"keypoints": project(seen_points(), CAMERA), "cam_K": CAMERA} | change
    with pytest.raises(ValueError, match=message):
        lift(LiftNet(LiftConfig(**SMALL)), **arguments)


# Random cameras -------------------------------------------------------------------------------------


def test_samples_are_projections_of_the_truth_at_the_distances_asked_for():
    config = CameraConfig(noise=(1e-6, 1e-6), drop=0, drop_part=0, swap=0)
    data = grasps()
    s = sample(data, torch.arange(12), config, generator())
    torch.testing.assert_close(s.keypoints, project(s.points, s.cam_K), atol=1e-2, rtol=0)
    middle = s.points.mean(1)[:, 2]
    assert ((middle > config.distance[0]) & (middle < config.distance[1])).all()
    back = (s.points - s.translation[:, None]) @ s.rotation
    torch.testing.assert_close(back, data.points, atol=1e-5, rtol=0)


def test_noise_has_the_size_asked_for_and_confidence_says_so():
    config = CameraConfig(noise=(2, 10), drop=0, drop_part=0, swap=0, unsaid=0)
    clean = torch.zeros(4000, NODES, 2)
    keypoints, confidence = detect(clean, config, generator())
    error = keypoints.norm(dim=-1) / 2**0.5
    sure, unsure = confidence > confidence_of(torch.tensor(3.0)) * 0.95, confidence < 0.5
    assert 1.5 < error[sure].square().mean().sqrt() < 4
    assert error[unsure].square().mean().sqrt() > 6


def test_drops_and_swaps():
    config = CameraConfig(noise=(1e-6, 1e-6), drop=0.2, drop_part=0, swap=0)
    keypoints, confidence = detect(torch.zeros(500, NODES, 2), config, generator())
    missing = keypoints.isnan().any(-1)
    assert 0.17 < missing.float().mean() < 0.23
    assert (confidence[missing] == 0).all()
    assert (confidence[~missing] > 0).all()
    clean = torch.arange(NODES, dtype=torch.float32)[None, :, None].expand(300, NODES, 2) * 100
    swapped, _ = detect(clean, CameraConfig(noise=(1e-6, 1e-6), drop=0, drop_part=0, swap=1), generator())
    moved = ((swapped - clean).abs().amax(-1) > 1).sum(1)
    assert (moved == 2).all()  # always a pair, never an invention


def test_random_rotations_are_rotations_without_a_preferred_direction():
    r = random_rotations(4000, generator())
    torch.testing.assert_close(r @ r.transpose(1, 2), torch.eye(3).expand(4000, 3, 3), atol=1e-5, rtol=0)
    assert r.mean(0).abs().max() < 0.03


# Affinity -------------------------------------------------------------------------------------------


def test_kabsch_finds_the_motion_and_never_a_reflection():
    source = torch.randn(5, 8, 3)
    rotation, shift = random_rotations(5, generator(1)), torch.randn(5, 3)
    found, moved = kabsch(source, source @ rotation.transpose(1, 2) + shift[:, None])
    torch.testing.assert_close(found, rotation, atol=1e-4, rtol=0)
    torch.testing.assert_close(moved, shift, atol=1e-4, rtol=0)
    flipped, _ = kabsch(source, source * torch.tensor([-1.0, 1, 1]))
    torch.testing.assert_close(torch.linalg.det(flipped), torch.ones(5))


def test_surface_distance_of_a_sphere():
    normals = torch.nn.functional.normalize(torch.randn(1, 4000, 3), dim=-1)
    points = torch.tensor([[[0.0, 0, 0.07], [0, 0.03, 0]]])
    distance = surface_distance(points, normals * 0.05, normals)
    torch.testing.assert_close(distance, torch.tensor([[0.02, -0.02]]), atol=1e-3, rtol=0)


def test_affinity_loss_is_zero_at_the_truth_and_pulls_the_right_way():
    flesh = torch.tensor(FLESH)
    true = (flesh + torch.tensor([0.0, 0.05, -0.002] * 7))[None]  # touching, free, pressed in
    assert affinity_loss(true, true) == 0
    inside = (true - 0.01).requires_grad_()
    affinity_loss(inside, true).backward()
    assert (inside.grad[0, [0, 2]] < 0).all()  # descent moves outwards
    away = (true + 0.02).requires_grad_()
    affinity_loss(away, true).backward()
    assert (away.grad[0, [0, 2]] > 0).all()  # touching joints are drawn in
    assert away.grad[0, 1] == 0  # free ones are not
    assert (away.grad[0, [0, 2]].abs() < inside.grad[0, [0, 2]].abs()).all()  # pushed out more than drawn in


def test_joints_follow_the_predicted_object():
    truth = grasps(4).points
    rotation, shift = random_rotations(4, generator(2)), torch.tensor([0.1, 0, 0.5])
    moved = truth @ rotation.transpose(1, 2) + shift
    torch.testing.assert_close(in_object_frame(moved, truth[:, JOINTS:]), truth[:, :JOINTS], atol=1e-5, rtol=0)


# Training and weights -------------------------------------------------------------------------------


def training(**change) -> LiftTraining:
    values = {
        "steps": 20,
        "batch_size": 16,
        "warmup": 5,
        "checkpoint_every": 10,
        "average": 0.9,
        "surface_points": 32,
        "last_steps": 5,
        "last_batch": 16,
    }
    return LiftTraining(**(values | change))


def test_training_lowers_the_error_and_is_repeatable(tmp_path):
    data, config = grasps(), LiftConfig(kind="mlp", **SMALL)
    first = evaluate(LiftNet(config), data, CameraConfig())["mpjpe_mm"]
    path = train(data, config, training(steps=60), tmp_path / "a", "mlp", held_out=data, card={"who": "test"})
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["held_out"]["mpjpe_mm"] < 0.8 * first
    assert card["who"] == "test"
    assert card["training"]["seed"] == 0
    again = train(data, config, training(steps=60), tmp_path / "b", "mlp")
    assert path.read_bytes() == again.read_bytes()


def test_an_interrupted_training_ends_as_an_uninterrupted_one(tmp_path, monkeypatch):
    data, config = grasps(), LiftConfig(kind="context", **SMALL)
    whole = train(data, config, training(affinity=0.03), tmp_path / "whole", "net")

    save = Checkpoint.save

    def stop(*arguments, **progress):
        save(*arguments, **progress)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        train(data, config, training(affinity=0.03), tmp_path / "parts", "net")
    monkeypatch.setattr(Checkpoint, "save", save)
    assert not (tmp_path / "parts" / "net.safetensors").exists()
    parts = train(data, config, training(affinity=0.03), tmp_path / "parts", "net")
    assert whole.read_bytes() == parts.read_bytes()
    with pytest.raises(ValueError, match="another network or configuration"):
        train(data, config, training(affinity=0.0), tmp_path / "parts", "net")


def test_the_affinity_loss_takes_part(tmp_path):
    from pose_graph.train import losses

    network = LiftNet(LiftConfig(kind="mlp", **SMALL))
    terms = losses(network, grasps(), torch.arange(12), training(affinity=1.0), generator())
    network.zero_grad()
    terms["affinity"].backward()
    assert any(p.grad is not None and p.grad.any() for p in network.parameters())
    assert "affinity" not in losses(network, grasps(), torch.arange(12), training(affinity=0.0), generator())


def test_the_affinity_loss_changes_the_last_layer_only_and_for_its_purpose(tmp_path):
    data = grasps()
    config = LiftConfig(kind="context", **SMALL)
    found = {}
    for weight in (0.0, 5.0):
        change = training(affinity=weight, last_steps=60, last_rate=3e-3)
        found[weight] = load_network(train(data, config, change, tmp_path / str(weight), "net"))
    plain, ours = (dict(found[weight].named_parameters()) for weight in (0.0, 5.0))
    changed = {name for name in plain if not torch.equal(plain[name], ours[name])}
    assert changed == {"body.regress.layers.2.weight", "body.regress.layers.2.bias"}
    inside = {w: evaluate(network, data, CameraConfig())["inside_mm"] for w, network in found.items()}
    assert inside[5.0] < inside[0.0]


def test_weights_round_trip(tmp_path):
    network = LiftNet(LiftConfig(kind="unet", **SMALL)).eval()
    path = save_network(network, {"seed": 1}, tmp_path / "unet.safetensors")
    loaded = load_network(path)
    x = torch.randn(2, NODES, 8)
    torch.testing.assert_close(loaded(x).offsets, network(x).offsets, atol=2e-2, rtol=2e-2)  # half precision
    assert loaded.config == network.config
    with pytest.raises(FileNotFoundError, match="no lifting network 'nothing'"):
        load_network("nothing")
    path.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match="keep the card"):
        load_network(path)
    with pytest.raises(ValueError, match="is taken"):
        save_network(network, {"network": 1}, path)
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        save_network(network, {}, path)


def test_damaged_weights_are_refused(tmp_path):
    path = save_network(LiftNet(LiftConfig(**SMALL)), {}, tmp_path / "net.safetensors")
    path.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="does not hold a lifting network"):
        load_network(path)
