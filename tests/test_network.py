"""`ContactNet` untrained: invariances that hold by construction, whatever the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import pytest
import torch
import trimesh
from torch import Tensor

from contact.field import ContactField
from contact.network.contact_net import _BONE_TOKENS, ContactNet, NetworkConfig, Prediction
from contact.network.features import OBJECT_FEATURES, observe
from contact.network.latent import Gaussian
from contact.objects import ObjectMesh
from contact.objects.hierarchy import PointHierarchy, build_hierarchy
from hand_models import HandModel, HandPose, load_open_hand
from hand_models.anatomy import default_anatomy
from hand_models.rotations import exp_so3

PER_POINT = ("contact", "contact_var", "part", "canonical", "canonical_var", "gap", "gap_var", "near")
IN_SCENE = ("joints",)
VARIANCES = ("contact_var", "canonical_var", "gap_var", "hand_contact_var", "joints_var")


@dataclass(frozen=True)
class Scene:
    """Noisy hands and the object of each."""

    pose: HandPose
    points: Tensor
    normals: Tensor
    thickness: Tensor
    hierarchy: PointHierarchy

    def __getitem__(self, index: Tensor) -> Scene:
        return Scene(*(getattr(self, f.name)[index] for f in fields(self)))


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture(scope="module")
def scene(model: HandModel) -> Scene:
    """Four hands in prior poses around two objects."""
    generator = torch.Generator().manual_seed(0)
    solids = (trimesh.creation.box([0.05, 0.07, 0.12]), trimesh.creation.capsule(height=0.1, radius=0.03))
    objects = [ObjectMesh.from_any(s, resolution=16, cache=False) for s in solids]
    which = torch.tensor([0, 1, 1, 0])
    pose = HandPose(
        "right", torch.randn(4, 3, generator=generator), default_anatomy().sample(4, generator),
        torch.randn(4, 10, generator=generator), torch.zeros(4, 3),
    )  # fmt: skip
    palm = model.joints(pose)[:, 9] + 0.03 * torch.randn(4, 3, generator=generator)
    return Scene(
        replace(pose, transl=-palm),
        torch.stack([o.points for o in objects])[which],
        torch.stack([o.normals for o in objects])[which],
        torch.stack([o.thickness for o in objects])[which],
        PointHierarchy.cat([build_hierarchy(o.points) for o in objects])[which],
    )


@pytest.fixture(scope="module")
def network() -> ContactNet:
    """Random weights, every parameter away from its initial zero or one."""
    torch.manual_seed(0)
    network = ContactNet().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network


@pytest.fixture(scope="module")
def predict(network: ContactNet, model: HandModel) -> Callable[[Scene], ContactField]:
    def run(scene: Scene) -> ContactField:
        observation = observe(model, scene.pose, scene.points, scene.normals, scene.thickness)
        return network.predict(model, observation, scene.hierarchy)

    return run


@pytest.fixture(scope="module")
def field(predict: Callable[[Scene], ContactField], scene: Scene) -> ContactField:
    return predict(scene)


def values(field: ContactField) -> dict[str, Tensor]:
    return {f.name: getattr(field, f.name) for f in fields(field)}


def assert_same(actual: ContactField, expected: ContactField, atol: float = 1e-4, but: tuple[str, ...] = ()) -> None:
    for name, value in values(expected).items():
        if name not in but:
            torch.testing.assert_close(
                values(actual)[name], value, atol=atol, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_shapes_and_ranges(field: ContactField, model: HandModel) -> None:
    shapes = {name: tuple(value.shape) for name, value in values(field).items()}
    skin = len(model.contact_points)
    assert shapes == {
        "contact": (4, 2048), "contact_var": (4, 2048), "part": (4, 2048, 16), "canonical": (4, 2048, 3),
        "canonical_var": (4, 2048), "gap": (4, 2048), "gap_var": (4, 2048), "near": (4, 2048),
        "hand_contact": (4, skin), "hand_contact_var": (4, skin), "joints": (4, 21, 3), "joints_var": (4, 21),
        "joints_cov": (4, 21, 3, 3), "holding": (4,),
    }  # fmt: skip
    for name, value in values(field).items():
        assert value.isfinite().all(), name
        assert not value.requires_grad
    for name in ("contact", "near", "hand_contact", "holding"):
        assert (values(field)[name] > 0).all()
        assert (values(field)[name] < 1).all()
    torch.testing.assert_close(field.part.sum(-1), torch.ones(4, 2048))


def test_outputs_depend_on_inputs(field: ContactField) -> None:
    """Otherwise every invariance below would hold for nothing."""
    for name, value in values(field).items():
        if value.ndim > 1:
            assert value[0].std(0).max() > 1e-5 * value.abs().max(), name  # over points
        assert (value[1] - value[2]).abs().max() > 1e-5 * value.abs().max(), name  # two hands on one object


def test_variances_are_positive(field: ContactField) -> None:
    for name in VARIANCES:
        assert (values(field)[name] > 0).all(), name
    assert (field.joints_var >= 0.999e-6).all()  # a millimetre
    assert (field.canonical_var >= 0.999e-6).all()
    assert (field.gap_var >= 0.999e-8).all()
    assert (field.contact_var >= 0.999e-4).all()


@pytest.mark.parametrize("level", [-200.0, 200.0])
def test_variances_stay_finite_at_the_extremes(scene: Scene, model: HandModel, level: float) -> None:
    """Whatever the heads answer: neither zero nor NaN."""
    network = ContactNet(NetworkConfig(fine=16, middle=16, token=16, layers=1, heads=2)).eval()
    with torch.no_grad():
        for head in (network.point_head, network.joint_head[-1], network.skin_head[-1]):
            head.bias.fill_(level)
    observation = observe(model, scene.pose, scene.points, scene.normals, scene.thickness)
    extreme = network.predict(model, observation, scene.hierarchy)
    for name in VARIANCES:
        value = values(extreme)[name]
        assert value.isfinite().all()
        assert (value > 1e-9).all()


def test_rigid_motion(
    predict: Callable[[Scene], ContactField], scene: Scene, field: ContactField, model: HandModel
) -> None:
    """Move hand and object together: the field stays, the joints go with the scene."""
    rotation = exp_so3(torch.tensor([[0.4, -2.0, 1.0], [3.0, 0.2, 0.0], [-0.5, 0.5, -1.5], [0.0, 0.0, 3.1]]))
    shift = torch.tensor([[0.3, -0.2, 0.6], [0.0, 0.4, 0.0], [-0.5, 0.0, 0.1], [0.1, 0.1, 0.1]])
    moved = replace(
        scene,
        pose=scene.pose.transformed(rotation, shift, model.root(scene.pose)),
        points=scene.points @ rotation.transpose(1, 2) + shift[:, None],
        normals=scene.normals @ rotation.transpose(1, 2),
    )
    again = predict(moved)
    joints = field.joints @ rotation.transpose(1, 2) + shift[:, None]
    assert (joints - field.joints).norm(dim=-1).min() > 0.05
    torch.testing.assert_close(again.joints, joints, atol=1e-4, rtol=0)
    # Rounding lets a few points, equally near to two places of the skin, choose the other one: their own
    # outputs then differ, and only theirs.
    for name in PER_POINT:
        off = (values(again)[name] - values(field)[name]).abs().reshape(4, 2048, -1).amax(-1)
        assert (off < 1e-4).float().mean() > 0.99, name
    for name in ("hand_contact", "hand_contact_var", "joints_var", "holding"):
        torch.testing.assert_close(values(again)[name], values(field)[name], atol=1e-4, rtol=0)
    turned = rotation[:, None] @ field.joints_cov @ rotation[:, None].transpose(2, 3)
    size = field.joints_cov.abs().max()
    assert (turned - field.joints_cov).abs().max() > 0.05 * size
    torch.testing.assert_close(again.joints_cov, turned, atol=float(0.01 * size), rtol=0)


def test_covariances_of_joints(field: ContactField) -> None:
    cov = field.joints_cov
    torch.testing.assert_close(cov, cov.transpose(2, 3), atol=1e-9, rtol=1e-5)
    assert (torch.linalg.eigvalsh(cov.double()) > 0.99e-6).all()  # a millimetre along every axis
    torch.testing.assert_close(field.joints_var, torch.diagonal(cov, dim1=2, dim2=3).mean(2))
    off = cov - torch.diag_embed(torch.diagonal(cov, dim1=2, dim2=3))
    assert off.abs().max() > 1e-6  # axes do go together


def test_a_mirrored_field_is_that_of_the_mirrored_scene(field: ContactField) -> None:
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    mirrored = field.mirrored()
    torch.testing.assert_close(mirrored.joints_cov, flip @ field.joints_cov @ flip)
    assert_same(mirrored.mirrored(), field, atol=0)


# What the network is told ---------------------------------------------------------------------------


def told(network: ContactNet, model: HandModel, scene: Scene, covariance: Tensor) -> ContactField:
    observation = observe(model, scene.pose, scene.points, scene.normals, scene.thickness, covariance)
    return network.predict(model, observation, scene.hierarchy)


def test_an_exact_hand_stays_where_it_is(network: ContactNet, model: HandModel, scene: Scene) -> None:
    """And is as sure as anything: whatever the weights."""
    exact = told(network, model, scene, torch.zeros(4, 51, 51))
    torch.testing.assert_close(exact.joints, model.joints(scene.pose), atol=1e-6, rtol=0)
    torch.testing.assert_close(exact.joints_cov, 1e-6 * torch.eye(3).expand(4, 21, 3, 3), atol=1e-12, rtol=1e-4)


def test_joints_move_along_what_is_not_known(
    network: ContactNet, model: HandModel, scene: Scene, field: ContactField
) -> None:
    """Hands whose depth alone is not known: they are corrected along it, and stay unsure along it."""
    along = torch.nn.functional.normalize(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    ray = along[:, :, None] * along[:, None]
    covariance = torch.zeros(4, 51, 51)
    covariance[:, :3, :3] = 0.05**2 * ray
    seen = told(network, model, scene, covariance)
    moved = seen.joints - model.joints(scene.pose)
    across = moved - moved @ ray
    assert across.abs().max() < 1e-5
    assert moved.abs().max() > 1e-3
    rest = seen.joints_cov - 1e-6 * torch.eye(3)
    torch.testing.assert_close(ray[:, None] @ rest @ ray[:, None], rest, atol=2e-9, rtol=1e-3)
    # Of a hand of which nothing is known, as much is open in every direction.
    unknown = field.joints - model.joints(scene.pose)
    assert (unknown - unknown @ ray).abs().max() > 1e-3


def test_what_is_said_of_one_hand_changes_no_other(
    network: ContactNet, model: HandModel, scene: Scene, field: ContactField
) -> None:
    covariance = torch.full((4, 51, 51), torch.nan)
    covariance[2] = 0.01**2 * torch.eye(51)
    mixed = told(network, model, scene, covariance)
    rows = torch.tensor([0, 1, 3])
    assert_same(mixed[rows], field[rows])
    assert (mixed.joints[2] - field.joints[2]).abs().max() > 1e-3


def test_each_hand_is_predicted_alone(
    predict: Callable[[Scene], ContactField], scene: Scene, field: ContactField
) -> None:
    for k in range(4):
        assert_same(predict(scene[torch.tensor([k])]), field[k])


def test_order_of_hands(predict: Callable[[Scene], ContactField], scene: Scene, field: ContactField) -> None:
    order = torch.tensor([2, 0, 3, 1])
    assert_same(predict(scene[order]), field[order])


def test_deterministic(predict: Callable[[Scene], ContactField], scene: Scene, field: ContactField) -> None:
    assert_same(predict(scene), field, atol=0)
    torch.manual_seed(7)
    first = ContactNet().state_dict()
    torch.manual_seed(7)
    second = ContactNet().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_fields_in_the_wrist_frame_become_fields_in_the_scene(
    model: HandModel, scene: Scene, network: ContactNet
) -> None:
    """A network that changes nothing returns the noisy joints themselves."""
    observation = observe(model, scene.pose, scene.points, scene.normals, scene.thickness)
    ids = model.contact_points
    with torch.no_grad():
        raw = network(observation, scene.hierarchy, model.rest_canonical[ids], model.part_of_vertex[ids])
    assert isinstance(raw, Prediction)
    kept = replace(raw, joints=observation.joint_positions).to_field(observation)
    torch.testing.assert_close(kept.joints, model.joints(scene.pose), atol=1e-6, rtol=0)
    torch.testing.assert_close(kept.contact.logit(), raw.contact_logit, atol=1e-4, rtol=1e-4)


def test_every_parameter_learns(model: HandModel, scene: Scene) -> None:
    """No weight is left out of the outputs."""
    torch.manual_seed(0)
    network = ContactNet(NetworkConfig(fine=16, middle=16, token=32, layers=2, heads=2))
    observation = observe(model, scene.pose, scene.points, scene.normals, scene.thickness)
    ids = model.contact_points
    skin, part = model.rest_canonical[ids], model.part_of_vertex[ids]
    encoding = network.encode(observation, scene.hierarchy)
    posterior, prior = network.posterior(encoding, torch.randn(4, 21, 3)), network.prior(encoding)
    outputs = [posterior.divergence(prior)]
    for latent in (None, posterior.draw(torch.randn(4, 8))):
        raw = network.decode(encoding, observation, scene.hierarchy, skin, part, latent=latent)
        outputs += [getattr(raw, f.name) for f in fields(raw)]
    sum((o * torch.randn_like(o)).sum() for o in outputs).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_draws_are_rows_of_their_own(network: ContactNet, model: HandModel, scene: Scene) -> None:
    """K draws of B grasps come draw by draw, each as if it were alone, and differ; without noise, no difference."""
    observation = observe(model, scene.pose, scene.points, scene.normals, scene.thickness)
    noise = torch.randn(3, 4, network.config.latent, generator=torch.Generator().manual_seed(0))
    drawn = network.predict(model, observation, scene.hierarchy, noise)
    assert len(drawn) == 12
    alone = network.predict(model, observation[1:2], scene.hierarchy[torch.tensor([1])], noise[2:, 1:2])
    torch.testing.assert_close(drawn.joints[9:10], alone.joints, atol=1e-5, rtol=0)
    torch.testing.assert_close(drawn.contact[9:10], alone.contact, atol=1e-4, rtol=0)
    assert (drawn.joints[:4] - drawn.joints[4:8]).abs().amax() > 1e-5
    same = network.predict(model, observation, scene.hierarchy, torch.zeros_like(noise))
    torch.testing.assert_close(same.joints[:4], same.joints[8:], atol=1e-6, rtol=0)


def test_the_latent_works_alike_however_large_tokens_have_grown(
    network: ContactNet, model: HandModel, scene: Scene
) -> None:
    """Muon leaves tokens five times larger than AdamW; a latent that does not heed it is lost on them."""
    observation = observe(model, scene.pose, scene.points, scene.normals, scene.thickness)
    encoding = network.encode(observation, scene.hierarchy)
    larger = replace(encoding, tokens=5 * encoding.tokens)
    shift = 0.01 * torch.randn(len(scene.pose), 21, 3, generator=torch.Generator().manual_seed(0))
    for one, other in (
        (network.prior(encoding), network.prior(larger)),
        (network.posterior(encoding, shift), network.posterior(larger, shift)),
    ):
        torch.testing.assert_close(one.mean, other.mean, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(one.log_std, other.log_std, atol=1e-3, rtol=1e-3)
    latent = torch.randn(len(scene.pose), network.config.latent, generator=torch.Generator().manual_seed(1))
    moved = [network.latent.enter(e.tokens, latent, 0) - e.tokens for e in (encoding, larger)]
    torch.testing.assert_close(5 * moved[0], moved[1], atol=1e-3, rtol=1e-3)
    assert moved[0].abs().amax() > 1e-4


def test_divergence_against_its_definition() -> None:
    """The mean log ratio of densities under draws from the first."""
    generator = torch.Generator().manual_seed(0)
    first = Gaussian(torch.tensor([[0.3, -0.2]]), torch.tensor([[-0.4, 0.2]]))
    second = Gaussian(torch.tensor([[-0.1, 0.4]]), torch.tensor([[0.1, 0.5]]))
    x = first.draw(torch.randn(400_000, 2, generator=generator))

    def log_density(g: Gaussian) -> Tensor:
        return torch.distributions.Normal(g.mean, g.log_std.exp()).log_prob(x).sum(-1)

    expected = (log_density(first) - log_density(second)).mean()
    torch.testing.assert_close(first.divergence(second)[0], expected, atol=5e-3, rtol=0)
    assert first.divergence(first).abs().max() < 1e-6


def test_size(network: ContactNet) -> None:
    assert sum(p.numel() for p in network.parameters()) < 2_000_000
    assert network.point[0].in_features == OBJECT_FEATURES


def test_bone_tokens_name_the_bones(model: HandModel) -> None:
    """The tokens of a bone are the joint it starts from and the next one along the finger."""
    pose = HandPose.zeros()
    centres, joints = model.rest_joints(pose.betas)[0], model.joints(pose)[0]
    for bone, (start, end) in enumerate(_BONE_TOKENS):
        torch.testing.assert_close(joints[start], centres[bone])
        skin = model.template[model.part_of_vertex == bone].mean(0)
        along = joints[end] - joints[start]
        share = (skin - joints[start]) @ along / (along @ along)
        assert 0 < share < 1.2  # the bone's skin lies between the two
