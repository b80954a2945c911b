"""The optimiser with the truth as its prediction: noisy hands come back, and symmetries of the scene hold."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import trimesh

from contact.corpus.grasp_types import preshapes
from contact.corpus.holding import find_contacts, holds
from contact.corpus.placement import SynthesisConfig, place
from contact.corpus.synthesis import close_hands
from contact.field import ContactField, field_from_pose
from contact.objects import ObjectMesh
from contact.objects.object_set import ObjectSet
from contact.perturb import perturb
from hand_models import HandModel, HandPose, load_open_hand
from hand_models.rotations import exp_so3
from hand_models.solver.least_squares import Solution, Termination
from hand_models.solver.states import HandState
from refine.config import RefineConfig
from refine.measure.contact import penetration_depth
from refine.measure.joints import mpjpe
from refine.solve.optimize import field_terms, optimise, soft_tissue

CONFIG = RefineConfig()
SHAPES = {
    "sphere": trimesh.creation.icosphere(3, 0.035),
    "box": trimesh.creation.box((0.05, 0.07, 0.12)),
    "cylinder": trimesh.creation.cylinder(0.03, 0.12, sections=48),
}
UP = torch.tensor([0.0, 0.0, 1.0])
GRASPS = 4


@dataclass(frozen=True)
class Scene:
    """True grasps on one object and what an oracle predicts for them."""

    obj: ObjectMesh
    truth: HandPose
    field: ContactField

    @property
    def objects(self) -> ObjectSet:
        return ObjectSet.of([self.obj])


def oracle(model: HandModel, truth: HandPose, obj: ObjectMesh, std: float) -> ContactField:
    """The true field, with the true joints stated to be known to ``std`` metres."""
    joints = model.joints(truth)
    field = field_from_pose(model, truth, obj)
    return replace(field, joints=joints, joints_var=torch.full(joints.shape[:2], std**2))


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture(scope="module")
def scenes(model) -> dict[str, Scene]:
    kinds, config, found = preshapes(model), SynthesisConfig(candidates=24, squeeze=0.001), {}
    for name, mesh in SHAPES.items():
        obj = ObjectMesh.from_any(mesh, name=name, resolution=64)
        placement = place(model, obj, kinds, UP, np.random.default_rng(0), config)
        assert placement is not None
        pose = close_hands(model, obj, placement, kinds, UP, config)
        pose = pose[holds(find_contacts(model, obj, pose), placement.squeeze, config)][:GRASPS]
        assert len(pose) == GRASPS
        found[name] = Scene(obj, pose, oracle(model, pose, obj, 0.005))
    return found


@pytest.fixture(scope="module")
def box(scenes) -> Scene:
    return scenes["box"]


def run(model: HandModel, scene: Scene, noisy: HandPose, field: ContactField | None = None) -> Solution[HandState]:
    which = torch.zeros(len(noisy), dtype=torch.long)
    return optimise(model, scene.objects, which, noisy, scene.field if field is None else field, CONFIG)


def distance_mm(model: HandModel, a: HandPose, b: HandPose) -> np.ndarray:
    return 1e3 * mpjpe(model.joints(a), model.joints(b))


def depth_mm(model: HandModel, pose: HandPose, obj: ObjectMesh) -> np.ndarray:
    return 1e3 * penetration_depth(model(pose).vertices, obj)


# Where it ends --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("noise", ["contactopt", "image"])
def test_noisy_hands_come_back(model, scenes, name, noise):
    scene = scenes[name]
    noisy = perturb(scene.truth, noise, seed=1)
    solution = run(model, scene, noisy)
    before, after = (distance_mm(model, pose, scene.truth) for pose in (noisy, solution.state.pose))
    assert before.mean() > 25
    assert (after < 6).all()
    assert after.mean() < 4
    depth = depth_mm(model, solution.state.pose, scene.obj)
    assert (depth < depth_mm(model, scene.truth, scene.obj) + 3.5).all()
    assert (depth < 8).all()


@pytest.mark.parametrize("name", SHAPES)
def test_penetration_falls(model, scenes, name):
    scene = scenes[name]
    noisy = perturb(scene.truth, "toch-t2", seed=0)
    before, after = (depth_mm(model, p, scene.obj) for p in (noisy, run(model, scene, noisy).state.pose))
    deep = before > 5
    assert deep.any()
    assert (after[deep] < 0.6 * before[deep]).all()


@pytest.mark.parametrize("name", SHAPES)
def test_a_good_hand_stays(model, scenes, name):
    scene = scenes[name]
    solution = run(model, scene, scene.truth)
    assert (distance_mm(model, solution.state.pose, scene.truth) < 3).all()


def test_correspondence_alone_brings_the_hand_back(model, box):
    """Joints said to be anywhere within a metre: where on the hand each point touches has to do."""
    field = replace(box.field, joints_var=torch.ones_like(box.field.joints_var))
    noisy = perturb(box.truth, "image", seed=2)
    solution = run(model, box, noisy, field)
    assert (distance_mm(model, solution.state.pose, box.truth) < 8).all()


def test_joints_alone_bring_the_hand_back(model, box):
    nothing = torch.zeros_like
    field = replace(
        box.field, near=nothing(box.field.near), hand_contact=nothing(box.field.hand_contact),
        joints_var=torch.full_like(box.field.joints_var, 0.002**2),
    )  # fmt: skip
    solution = run(model, box, perturb(box.truth, "image", seed=2), field)
    assert (distance_mm(model, solution.state.pose, box.truth) < 8).all()


def test_a_far_hand_is_brought_near(model, box):
    """17 cm off, with joints known as well as networks know them."""
    away = replace(box.truth, transl=box.truth.transl + torch.tensor([0.1, 0.1, 0.1]))
    field = replace(box.field, joints_var=torch.full_like(box.field.joints_var, 0.015**2))
    assert (distance_mm(model, run(model, box, away, field).state.pose, box.truth) < 6).all()


# How it gets there ----------------------------------------------------------------------------------


def test_it_is_deterministic_and_leaves_its_input_alone(model, box):
    noisy = perturb(box.truth, "contactopt", seed=3)
    kept = {name: value.copy() for name, value in noisy.as_arrays().items()}
    first, second = run(model, box, noisy), run(model, box, noisy)
    for name, value in first.state.pose.as_arrays().items():
        np.testing.assert_array_equal(value, second.state.pose.as_arrays()[name])
    for name, value in noisy.as_arrays().items():
        np.testing.assert_array_equal(value, kept[name])
    most = CONFIG.align.iterations + CONFIG.contact.iterations
    assert ((first.iterations >= 2) & (first.iterations <= most)).all()
    assert first.state.pose.finite().all()
    torch.testing.assert_close(first.state.pose.betas, noisy.betas)  # shape is not refined


def test_a_batch_is_its_rows_in_any_order(model, box):
    noisy = perturb(box.truth, "image", seed=4)
    together = run(model, box, noisy).state.pose
    order = torch.tensor([2, 0, 3, 1])
    shuffled = run(model, box, noisy[order], box.field[order]).state.pose
    assert (distance_mm(model, shuffled, together[order]) < 0.5).all()
    for row in range(GRASPS):
        alone = run(model, box, noisy[row], box.field[row]).state.pose
        assert (distance_mm(model, alone, together[row]) < 0.5).all()


def test_a_batch_may_mix_objects(model, scenes):
    first, second = scenes["sphere"], scenes["cylinder"]
    objects = ObjectSet.of([first.obj, second.obj])
    noisy = HandPose.cat([perturb(s.truth, "image", seed=5) for s in (second, first)])
    field = ContactField.cat([second.field, first.field])
    which = torch.tensor([1] * GRASPS + [0] * GRASPS)
    mixed = optimise(model, objects, which, noisy, field, CONFIG).state.pose
    apart = HandPose.cat([run(model, s, perturb(s.truth, "image", seed=5)).state.pose for s in (second, first)])
    assert (distance_mm(model, mixed, apart) < 0.5).all()


def test_the_result_moves_with_the_scene(model, box):
    rotation = exp_so3(torch.tensor([0.4, -0.9, 0.7]))
    shift = torch.tensor([0.11, -0.05, 0.2])

    def moved(pose: HandPose) -> HandPose:
        return pose.transformed(rotation, shift, model.root(pose))

    vertices = box.obj.vertices @ rotation.T + shift
    again = ObjectMesh.from_any((vertices, box.obj.faces), resolution=64)
    obj = replace(
        again, points=box.obj.points @ rotation.T + shift, normals=box.obj.normals @ rotation.T,
        thickness=box.obj.thickness,
    )  # fmt: skip
    scene = Scene(obj, moved(box.truth), replace(box.field, joints=box.field.joints @ rotation.T + shift))
    noisy = perturb(box.truth, "image", seed=7)
    there = run(model, scene, moved(noisy)).state.pose
    here = moved(run(model, box, noisy).state.pose)
    assert (distance_mm(model, there, here) < 1.5).all()  # the grid's axes do not turn with the object


def test_single_precision_is_enough(model, box):
    """The same problems in double precision end within a tenth of a millimetre."""
    noisy = perturb(box.truth, "image", seed=8)
    which = torch.zeros(GRASPS, dtype=torch.long)
    double, config = model.to(torch.float64), CONFIG
    for name in ("align", "contact"):  # to the minimum: near it both stop anywhere within their tolerance
        config = replace(config, **{name: Termination(iterations=60, relative_decrease=1e-6)})
    single = optimise(model, box.objects, which, noisy, box.field, config).state.pose
    exact = optimise(
        double, box.objects, which, noisy.to(torch.float64), box.field.to(torch.float64), config
    ).state.pose
    assert exact.transl.dtype == torch.float64
    assert (distance_mm(double, single.to(torch.float64), exact) < 0.1).all()


# What it aims at ------------------------------------------------------------------------------------


def test_targets_are_where_the_true_skin_is(model, box):
    skin = model.contact_points[: CONFIG.skin_points]
    which = torch.zeros(GRASPS, dtype=torch.long)
    targets = field_terms(model, box.objects, which, box.truth, box.field, CONFIG)
    seen = targets.correspondences
    reached = model(box.truth).vertices[:, skin]
    places = reached.gather(1, seen.index[..., None].expand(-1, -1, 3))
    used = seen.weight > 0
    error = (places - seen.target).norm(dim=-1)[used]
    assert error.median() < 0.004  # the nearest of the skin points stands for the true one
    assert (seen.weight >= 0).all()
    assert (seen.weight.sum(1) <= CONFIG.costs.correspondence + 1e-3).all()
    assert (targets.touch.sum(1) <= CONFIG.costs.contact + 1e-3).all()


def test_without_trust_all_are_as_sure_as_on_average(model, box):
    which = torch.zeros(GRASPS, dtype=torch.long)
    uneven = torch.linspace(0.004**2, 0.02**2, 21).expand(GRASPS, 21)
    field = replace(box.field, joints_var=uneven)
    trusting, even = (
        field_terms(
            model, box.objects, which, box.truth, field, replace(CONFIG, costs=replace(CONFIG.costs, trust=trust))
        )
        for trust in (True, False)
    )
    upright = torch.eye(3).expand(GRASPS, 21, 3, 3)
    torch.testing.assert_close(trusting.joints.covariance, uneven[..., None, None] * upright)
    mean = 1 / (1 / uneven).mean(1)
    torch.testing.assert_close(even.joints.covariance, mean[:, None, None, None] * upright)
    spread = even.correspondences.std
    torch.testing.assert_close(spread, spread[:, :1].expand_as(spread))


def test_soft_tissue_yields_less_where_the_object_is_thin():
    plate = ObjectMesh.from_any(trimesh.creation.box((0.1, 0.1, 0.002)), resolution=64)
    block = ObjectMesh.from_any(trimesh.creation.box((0.1, 0.1, 0.1)), resolution=32)
    objects = ObjectSet.of([plate, block])
    above = torch.tensor([[[0.0, 0.0, 0.002]], [[0.0, 0.0, 0.052]]])
    allowed = soft_tissue(objects, torch.tensor([0, 1]), above, CONFIG.costs)[:, 0]
    assert float(allowed[0]) == pytest.approx(CONFIG.costs.soft_share * 0.002, rel=0.05)
    assert float(allowed[1]) == pytest.approx(CONFIG.costs.soft_tissue)
