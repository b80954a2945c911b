"""The architectures `ContactNet` is compared with: exact layers, shapes, invariance, learning, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from contact.objects.hierarchy import PointHierarchy, build_hierarchy
from hand_models import HandModel, HandPose, load_open_hand
from hand_models.rotations import exp_so3

KINDS = ("deepcontact", "edgeconv", "basis")


@pytest.fixture(autouse=True)
def _benchmarks_on_path(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


def scene(batch: int = 2, seed: int = 0) -> tuple[HandPose, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hands above balls: pose, and points, normals and thickness of the balls."""
    generator = torch.Generator().manual_seed(seed)
    normals = torch.nn.functional.normalize(torch.randn(batch, 2048, 3, generator=generator), dim=-1)
    return _flat_hands(batch), 0.04 * normals, normals, torch.full((batch, 2048), 0.08)


def _flat_hands(batch: int) -> HandPose:
    transl = torch.tensor([0.0, 0.06, 0.0]) + 0.01 * torch.arange(batch)[:, None]
    return HandPose("right", torch.zeros(batch, 3), torch.zeros(batch, 15, 3), torch.zeros(batch, 10), transl)


def hierarchy_of(points: torch.Tensor) -> PointHierarchy:
    return PointHierarchy.cat([build_hierarchy(p) for p in points])


@pytest.mark.parametrize("training", [True, False])
def test_pooled_edges_is_the_network_over_all_edges(training):
    from set_abstraction import PooledEdges, over_rows

    torch.manual_seed(0)
    fast, plain = (PooledEdges(5 + 3, 6, 7, 10).double().train(training) for _ in range(2))
    with torch.no_grad():
        for norm in fast.mlp[2::3]:  # gains of both signs, and statistics unlike the batch's
            norm.weight.normal_()
            norm.bias.normal_()
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    plain.load_state_dict(fast.state_dict())
    batch, points, centroids, width = 2, 30, 150, 8
    features = torch.randn(batch, points, 5).double().requires_grad_()
    xyz = torch.randn(batch, points, 3).double().requires_grad_()
    centre = torch.randn(batch, centroids, 3).double().requires_grad_()
    index = torch.randint(points, (batch, centroids, width))
    index[0, 0, 3:] = index[0, 0, 0]  # repeated neighbours tie

    rows = torch.arange(batch)[:, None, None]
    edges = torch.cat([features[rows, index], xyz[rows, index] - centre[:, :, None]], -1)
    expected = over_rows(plain.mlp, edges).amax(2)
    pooled = fast(features, xyz, centre, index)
    torch.testing.assert_close(pooled, expected)

    weight = torch.randn_like(pooled)
    inputs = [features, xyz, centre]
    found = torch.autograd.grad((pooled * weight).sum(), [*inputs, *fast.parameters()])
    wanted = torch.autograd.grad((expected * weight).sum(), [*inputs, *plain.parameters()])
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(fast.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_ball_takes_neighbours_within_the_radius_only_and_repeats_when_they_are_few():
    from set_abstraction import ball

    torch.manual_seed(0)
    xyz = torch.rand(2, 200, 3)
    centre = xyz[:, :20]
    index = ball(xyz, centre, 0.3, 16, 1 - torch.rand(20, 200))
    distance = torch.cdist(centre, xyz)
    assert (distance.gather(2, index) <= 0.3).all()
    for row in range(2):
        for k in range(20):
            inside = int((distance[row, k] <= 0.3).sum())
            assert len(index[row, k].unique()) == min(inside, 16)


def test_farthest_points_are_as_far_as_can_be():
    from set_abstraction import farthest_points

    torch.manual_seed(0)
    xyz = torch.rand(2, 60, 3)
    chosen = farthest_points(xyz, 12)
    for points, order in zip(xyz, chosen, strict=True):
        assert order[0] == 0
        for k in range(1, 12):
            clearance = torch.cdist(points, points[order[:k]]).amin(1)
            assert clearance[order[k]] == clearance.max()


def test_interpolation_returns_the_values_where_points_coincide():
    from set_abstraction import interpolate, nearest

    torch.manual_seed(0)
    coarse, values = torch.rand(2, 20, 3), torch.randn(2, 20, 4)
    torch.testing.assert_close(interpolate(values, *nearest(coarse, coarse)), values, atol=1e-3, rtol=1e-3)


def test_feature_propagation_is_that_of_the_joined_features():
    from set_abstraction import Propagate, interpolate, nearest, over_rows

    torch.manual_seed(0)
    layer = Propagate(6, 4, 5, 3)
    coarse, fine = torch.randn(2, 9, 6), torch.randn(2, 30, 4)
    index, weight = nearest(torch.rand(2, 9, 3), torch.rand(2, 30, 3))
    joined = torch.cat([interpolate(coarse, index, weight), fine], -1)
    matrix = torch.cat([layer.coarse.weight, layer.fine.weight], 1)
    expected = over_rows(layer.after, joined @ matrix.T + layer.coarse.bias)
    torch.testing.assert_close(layer(coarse, fine, index, weight), expected)


def test_deep_contact_has_the_published_size():
    from contact_architectures import build_architecture

    assert sum(p.numel() for p in build_architecture("deepcontact").parameters()) == pytest.approx(1.42e6, rel=0.005)


def test_the_cloud_says_how_far_hand_and_object_are(model):
    from contact_architectures import describe_cloud

    pose, points, normals, _ = scene()
    cloud = describe_cloud(model, pose, points, normals)
    hand = model(pose)
    skin = hand.vertices[:, model.contact_points]
    assert cloud.hand == len(model.contact_points)
    assert cloud.features.shape == (2, cloud.hand + 2048, 25)
    assert (cloud.features[:, : cloud.hand, 0] == 1).all()
    assert (cloud.features[:, cloud.hand :, 0] == 0).all()
    closest = torch.cdist(points, skin).amin(2)
    torch.testing.assert_close(cloud.features[:, cloud.hand :, 2], closest, atol=1e-5, rtol=1e-4)
    # Distances between points stay what they were.
    everything = torch.cat([skin, points], 1)
    chosen = torch.arange(0, everything.shape[1], 97)
    torch.testing.assert_close(
        torch.cdist(cloud.xyz[:, chosen], cloud.xyz[:, chosen]),
        torch.cdist(everything[:, chosen], everything[:, chosen]),
        atol=1e-4, rtol=1e-4,
    )  # fmt: skip
    torch.testing.assert_close(cloud.xyz[:, cloud.hand :].mean(1), torch.zeros(2, 3), atol=1e-5, rtol=0)


def some_network(kind: str) -> nn.Module:
    """Untrained, with statistics of its own where it normalises batches."""
    from contact_architectures import build_architecture

    torch.manual_seed(0)
    return build_architecture(kind, **({"neighbours": 8} if kind == "deepcontact" else {})).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_prediction_is_a_contact_field_and_does_not_depend_on_the_frame(kind, model):
    from contact_architectures import predict

    network = some_network(kind)
    pose, points, normals, thickness = scene()
    hierarchy = hierarchy_of(points)
    field = predict(network, model, pose, points, normals, thickness, hierarchy)
    skin = len(model.contact_points)
    assert field.contact.shape == field.near.shape == (2, 2048)
    assert field.hand_contact.shape == field.hand_contact_var.shape == (2, skin)
    for value in (field.contact, field.hand_contact):
        assert ((value >= 0) & (value <= 1)).all()
    for variance in (field.contact_var, field.hand_contact_var, field.gap_var, field.joints_var):
        assert (variance > 0).all()
    torch.testing.assert_close(field.part.sum(-1), torch.ones(2, 2048))
    torch.testing.assert_close(field.joints, model(pose).joints)
    # Without a gap, an object point corresponds to the nearest point of the noisy hand.
    rest = model.rest_canonical[model.contact_points]
    nearest = torch.cdist(points, model(pose).vertices[:, model.contact_points]).argmin(2)
    assert torch.equal(field.canonical, rest[nearest])

    turn, shift = exp_so3(torch.tensor([0.4, -0.9, 0.3])), torch.tensor([0.1, -0.2, 0.3])
    moved = pose.transformed(turn, shift, model.root(pose))
    torch.testing.assert_close(model(moved).vertices, model(pose).vertices @ turn.T + shift, atol=1e-5, rtol=0)
    again = predict(network, model, moved, points @ turn.T + shift, normals @ turn.T, thickness, hierarchy)
    # Single neighbours on the edge of a ball may change sides.
    assert (again.contact - field.contact).abs().median() < 1e-3
    torch.testing.assert_close(again.hand_contact, field.hand_contact, atol=2e-2, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_some_points_get_what_all_points_get(kind, model):
    network = some_network(kind)
    pose, points, normals, thickness = scene()
    inputs = network.prepare(model, pose, points, normals, thickness, hierarchy_of(points))
    at = (torch.tensor([5, 0, 2047, 900]), torch.tensor([3, 699, 10]))
    with torch.no_grad():
        whole, part = network(inputs), network(inputs, at)
    torch.testing.assert_close(part.object_logits, whole.object_logits[:, at[0]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(part.hand_logits, whole.hand_logits[:, at[1]], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_steps_lower_the_loss(kind, model):
    from contact_maps import map_loss

    network = some_network(kind).train()
    pose, points, normals, thickness = scene()
    inputs = network.prepare(model, pose, points, normals, thickness, hierarchy_of(points))
    contact = (points[..., 1] > 0.03).float()
    hand_contact = torch.zeros(2, len(model.contact_points))
    at = (torch.arange(256), torch.arange(64))
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    values = []
    for _ in range(6):
        optimiser.zero_grad()
        loss = map_loss(network(inputs, at), contact[:, at[0]], hand_contact[:, at[1]])
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.8 * values[0]


def test_moments_of_a_map():
    from contact_maps import Maps

    sure = torch.full((1, 1, 10), -50.0)
    sure[..., 7] = 50.0
    (mean, variance), (undecided, spread) = Maps(sure, torch.zeros(1, 1, 10)).values()
    assert float(mean) == pytest.approx(0.75)
    assert float(variance) == pytest.approx(1 / 1200, rel=1e-3)
    assert float(undecided) == pytest.approx(0.5)
    assert float(spread) == pytest.approx(1 / 12, rel=1e-3)  # uniform on [0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_files_hold_network_and_card(kind, tmp_path):
    from contact_architectures import load_architecture, save_architecture

    network = some_network(kind)
    path = save_architecture(network, {"steps": 3}, tmp_path / "new" / f"{kind}.safetensors")
    assert sorted(p.name for p in path.parent.iterdir()) == [f"{kind}.json", f"{kind}.safetensors"]
    card = json.loads(path.with_suffix(".json").read_text())
    assert (card["kind"], card["steps"], card["options"]) == (kind, 3, network.options)
    assert path.stat().st_size < 3e6
    again = load_architecture(path)
    assert not again.training
    state = again.state_dict()
    for name, value in network.state_dict().items():
        assert state[name].dtype == value.dtype
        torch.testing.assert_close(state[name], value, atol=1e-4, rtol=1e-3)


def test_files_that_are_not_there_or_not_right_are_named(tmp_path):
    from contact_architectures import build_architecture, load_architecture, save_architecture

    with pytest.raises(FileNotFoundError, match=r"weights: .*gone\.safetensors is not there"):
        load_architecture(tmp_path / "gone.safetensors")
    with pytest.raises(ValueError, match="kind: 'pointnet' is unknown"):
        build_architecture("pointnet")
    network = some_network("basis")
    with pytest.raises(ValueError, match="card: 'kind'"):
        save_architecture(network, {"kind": "x"}, tmp_path / "a.safetensors")
    path = save_architecture(network, {}, tmp_path / "a.safetensors")
    card = path.with_suffix(".json")
    card.write_text(card.read_text().replace("basis", "edgeconv"))
    with pytest.raises(ValueError, match="does not hold a edgeconv network"):
        load_architecture(path)
    with torch.no_grad():
        network.trunk[0].bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"network: trunk\.0\.bias is not finite"):
        save_architecture(network, {}, tmp_path / "b.safetensors")


def test_the_learning_rate_rises_shortly_and_falls_to_nothing():
    from train_contact_architecture import Options, learning_rate

    options = Options("basis", Path(), Path())
    rates = [learning_rate(options, p / 50) for p in range(51)]
    assert rates[0] < 0.05 * options.learning_rate
    assert max(rates) == pytest.approx(options.learning_rate, rel=0.01)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
