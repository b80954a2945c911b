"""`refine_sequence`: less error than the input, exact inputs as they are, mirrors, frames, gaps, parts, two hands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from motion_scene import HELD, LENGTH, error, motion_scene
from test_html import data_of
from test_result import difference

from contact.objects import ObjectMesh
from contact.perturb import PROTOCOLS, WALK, perturb
from hand_models import HandPose
from hand_models.rotations import exp_so3
from refine import SequenceResult, Status, refine_sequence

SCENE = motion_scene()
IMAGE = PROTOCOLS["image"]


def refined(
    pose: HandPose, mesh: object = SCENE.mesh, poses: object = SCENE.object_poses, **options: object
) -> SequenceResult:
    result = refine_sequence(pose, mesh, poses, **options)  # type: ignore[arg-type]
    assert isinstance(result, SequenceResult)
    return result


@pytest.fixture(scope="module")
def noisy() -> HandPose:
    return perturb(SCENE.pose, "image", seed=1)


@pytest.fixture(scope="module")
def result(noisy: HandPose) -> SequenceResult:
    """One hand with gaps: frames that are missing, and one that is garbage."""
    pose = noisy.map(torch.clone)
    pose.transl[[5, 6, 30]] = torch.nan
    pose.transl[40] += 1.0
    return refined(pose, input_error=IMAGE)


def test_noise_goes_and_gaps_are_filled(noisy: HandPose, result: SequenceResult) -> None:
    before, after = error(SCENE, noisy), error(SCENE, result.pose)
    assert after.mean() < 0.6 * before.mean()
    assert after[[5, 6, 30, 40]].max() < before.mean()
    filled = [k for k, status in enumerate(result.status) if status is Status.FILLED]
    assert filled == [5, 6, 30, 40]
    haste = [
        np.abs(np.diff(SCENE.model.joints(p).numpy(), n=2, axis=0)).mean() for p in (noisy, result.pose, SCENE.pose)
    ]
    assert haste[1] - haste[2] < 0.2 * (haste[0] - haste[2])
    assert result.joints_before[[5, 6, 30]].isnan().all()


def test_it_knows_when_the_hand_holds(result: SequenceResult) -> None:
    held = torch.zeros(LENGTH, dtype=torch.bool)
    held[HELD] = True
    found = result.holding > 0.5
    overlap = 2 * (found & held).sum() / (found.sum() + held.sum())
    assert overlap > 0.85
    away = torch.ones(LENGTH, dtype=torch.bool)
    away[HELD.start - 5 : HELD.stop + 5] = False  # a little before and after the skin is less than 3 mm away
    assert result.contact[away].float().sum(1).max() < 0.2 * result.contact[HELD].float().sum(1).mean()


def test_what_is_known_of_holding_is_believed() -> None:
    some, poses = SCENE.pose[:24], SCENE.object_poses[:24]
    apart = refined(some, poses=poses, input_error="tracker", holding=False)
    assert (apart.holding == 0).all()
    assert set(apart.status) == {Status.APART}
    known = [None] * 10 + [True] * 14
    told = refined(some, poses=poses, input_error="tracker", holding=known)
    assert (told.holding[10:] == 1).all()
    assert told.holding[0] < 0.5
    assert told.status[0] is Status.APART
    assert Status.APART not in told.status[20:]


def test_a_motion_is_shown(result: SequenceResult, tmp_path: Path) -> None:
    """Frame by frame as it is before the camera, the object too; gaps are shown as filled."""
    view = result.view(HELD.start + 4, truth=SCENE.pose)
    np.testing.assert_allclose(view.after, result.vertices_after[HELD.start + 4], atol=1e-5)
    np.testing.assert_allclose(view.object_pose, SCENE.object_poses[HELD.start + 4])
    true = SCENE.model(SCENE.pose).vertices[HELD.start + 4]
    np.testing.assert_allclose(view.hands["truth"], true, atol=1e-5)
    middle = view.object_item().vertices.mean(0)  # the hand lies on the box, wherever that is
    assert np.linalg.norm(true.numpy() - middle, axis=1).min() < 0.06
    inside = SCENE.model(SCENE.inside).vertices[HELD.start + 4]
    distance = SCENE.mesh.grid.query(inside[None])[0][0]
    np.testing.assert_allclose(view.skin_distance["truth"], distance, atol=1e-4)
    gap = result.view(5)
    assert np.array_equal(gap.before, gap.after)
    assert gap.status == "filled"
    text = result.to_html(tmp_path / "motion.html", title="a box is carried").read_text()
    assert "a box is carried" in text
    assert len(text) < 6e6
    data = data_of(text)
    assert data["status"][5] == "filled"
    assert data["status"][HELD.start + 10] != "apart"
    np.testing.assert_allclose(view.joints, result.joints_after[HELD.start + 4])
    np.testing.assert_allclose(view.joint_sd, result.uncertainty[HELD.start + 4])
    held, away = (result.view(k).hand_contact for k in (HELD.start + 10, 0))
    assert held.max() > 0.3 > away.max()
    maps = result[HELD.start : HELD.start + 2].contact_uv(16)
    assert maps.mean.shape == (2, 16, 32)
    with pytest.raises(IndexError, match="index"):
        result.view(LENGTH)
    with pytest.raises(ValueError, match="truth"):
        result.view(0, truth=SCENE.pose[:3])


def test_results_are_read_back_to_the_bit(result: SequenceResult, tmp_path: Path) -> None:
    back = SequenceResult.load(result.save(tmp_path / "motion"))
    assert difference(back, result) is None
    assert "4 filled" in repr(back)
    with pytest.raises(FileNotFoundError, match="no motion"):
        SequenceResult.load(tmp_path)


def test_a_motion_is_a_row_of_frames(result: SequenceResult, tmp_path: Path) -> None:
    assert len(result) == len(list(result)) == LENGTH
    some = result[3:9]
    assert len(some) == 6
    assert torch.equal(some.vertices_after, result.vertices_after[3:9])
    assert some.status == result.status[3:9]
    np.testing.assert_allclose(some.view(2).after, result.view(5).after)
    assert torch.equal(result[-1].joints_after, result.joints_after[-1:])
    assert torch.equal(result[::-1].holding, result.holding.flip(0))
    back = SequenceResult.load(some.save(tmp_path / "some"))
    assert torch.equal(back.contact, some.contact)
    assert repr(back) == repr(some)
    with pytest.raises(IndexError):
        result[LENGTH]
    hostile = replace(result, objects=(replace(result.object, name="\x1b[31m" + "n" * 5000),))
    assert len(repr(hostile)) <= 600
    assert "\x1b" not in repr(hostile)
    assert result._repr_html_().count("<tr>") == 2 + 8 + 1  # head and means, the first eight, how many more
    table = result.to_dataframe()
    assert len(table) == LENGTH
    moved = (result.joints_after - result.joints_before).norm(dim=2).mean(1)
    np.testing.assert_allclose(table["moved_mm"], 1e3 * moved)
    assert table["time"][30] == pytest.approx(30 / result.fps)
    assert result.to_glb(tmp_path / "a.glb", 5).stat().st_size > 1000


def test_exact_hands_stay() -> None:
    stated = refined(SCENE.pose, input_error="exact")
    assert error(SCENE, stated.pose).mean() < 1.0
    unstated = refined(SCENE.pose)
    assert error(SCENE, unstated.pose).mean() < 0.1
    free = [k for k in range(LENGTH) if not HELD.start - 3 <= k < HELD.stop + 3]
    assert error(SCENE, stated.pose)[free].max() < 1.0


def test_a_drift_of_which_nothing_is_known_is_left_alone() -> None:
    """It looks like a motion; better nothing than a guess."""
    drifting = perturb(SCENE.pose, "image", seed=2, correlation=WALK)
    moved = (SCENE.model.joints(refined(drifting).pose) - SCENE.model.joints(drifting)).norm(dim=2).mean()
    assert moved < 0.003


def test_a_left_hand_is_a_right_one_in_the_mirror(noisy: HandPose) -> None:
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
    right = refined(noisy[:24], poses=SCENE.object_poses[:24], input_error=IMAGE)
    left = refined(
        noisy[:24].mirrored(), SCENE.mesh.mirrored(), flip @ SCENE.object_poses[:24] @ flip, input_error=IMAGE
    )
    torch.testing.assert_close(left.pose.mirrored().transl, right.pose.transl, atol=2e-4, rtol=0)
    torch.testing.assert_close(left.holding, right.holding, atol=1e-3, rtol=0)


def test_the_result_moves_with_the_world(noisy: HandPose) -> None:
    rotation, shift = exp_so3(torch.tensor([0.3, -0.4, 0.2])), torch.tensor([0.2, 0.1, -0.1])
    world = torch.eye(4)
    world[:3, :3], world[:3, 3] = rotation, shift
    some, poses = noisy[:24], SCENE.object_poses[:24]
    moved = some.transformed(rotation, shift, SCENE.model.root(some))
    here, there = refined(some, poses=poses, input_error=IMAGE), refined(moved, poses=world @ poses, input_error=IMAGE)
    torch.testing.assert_close(here.joints_after @ rotation.T + shift, there.joints_after, atol=1e-3, rtol=0)


def test_time_may_run_backwards(noisy: HandPose) -> None:
    """Exactly, where the frames that the network looks at are the same: every third, as many before as after."""
    some, poses = noisy[:25], SCENE.object_poses[:25]
    backwards = torch.arange(24, -1, -1)
    there = refined(some, poses=poses, input_error=IMAGE)
    back = refined(some[backwards], poses=poses[backwards], input_error=IMAGE)
    assert there.holding.amax() - there.holding.amin() > 0.5
    torch.testing.assert_close(back.joints_after[backwards], there.joints_after, atol=1e-4, rtol=0)
    torch.testing.assert_close(back.holding[backwards], there.holding, atol=1e-3, rtol=0)


def test_parts_and_two_hands() -> None:
    """A lid beside the box, far from the hand: the hand is at the box; a left hand at rest is left alone."""
    lid = ObjectMesh.from_any(trimesh.creation.box((0.1, 0.01, 0.08)), name="lid", resolution=24, cache=False)
    count = 24
    poses = SCENE.object_poses[:count, None].repeat(1, 2, 1, 1)
    poses[:, 0, :3, 3] += torch.tensor([0.0, 0.0, 0.4])
    right = perturb(SCENE.pose[:count], "toch-t1", seed=0)
    left = SCENE.pose[:1].mirrored().repeat_interleave(count)
    both = refine_sequence([right, left], [lid, SCENE.mesh], poses, input_error=[PROTOCOLS["toch-t1"], "exact"])
    assert isinstance(both, tuple)
    first, second = both
    assert int(first.part) == 1
    assert first.pose.side, second.pose.side == ("right", "left")
    truth = SCENE.model.joints(SCENE.pose[:count])
    assert (first.joints_after - truth).norm(dim=2).mean() < 0.8 * (SCENE.model.joints(right) - truth).norm(
        dim=2
    ).mean()
    assert (second.joints_after - second.joints_before).norm(dim=2).max() < 0.001
    assert first.object_poses.shape == (count, 2, 4, 4)


def test_a_hand_does_not_enter_a_part_that_it_does_not_hold() -> None:
    from contact.objects.object_set import ObjectSet
    from hand_models.solver.least_squares import minimize
    from hand_models.solver.states import HandState
    from refine.solve.motion import Around

    model = SCENE.model
    skin = model.contact_points[:200]
    pose = SCENE.inside[HELD.start + 5 : HELD.start + 6]
    deep = HandPose(
        pose.side, pose.global_orient, pose.hand_pose, pose.betas, pose.transl - torch.tensor([0.0, 0.01, 0.0])
    )
    turn = exp_so3(torch.tensor([[0.0, 0.7, 0.0]]))
    # The box, as seen from a body that is turned about it: the same place by another way.
    term = Around(
        turn,
        torch.zeros(1, 3),
        ObjectSet.of(
            [
                ObjectMesh.from_any(
                    SCENE.mesh.trimesh.copy().apply_transform(
                        np.block([[turn[0].numpy(), np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]])
                    ),
                    resolution=32,
                    cache=False,
                )
            ]
        ),
    )
    state = HandState.of(deep, model, skin)
    found = minimize(state, [term]).state
    depth = [
        float(SCENE.mesh.grid.query(s.skin.points, torch.zeros(1, dtype=torch.long))[0].amin()) for s in (state, found)
    ]
    assert depth[0] < -0.009
    assert depth[1] > -0.0075


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"fps": 0}, "fps"),
        ({"object_poses": torch.eye(4).expand(7, 4, 4)}, "object_poses: got shape"),
        ({"input_error": np.eye(3)}, "covariance"),
        ({"holding": [True, False]}, "holding: got"),
        ({"input_error": "camera", "object_poses": None}, "object_poses"),
        ({"hand_poses": SCENE.pose[:2]}, "2 frames"),
        ({"hand_poses": SCENE.pose.map(lambda t: t * torch.nan)}, "every frame"),
        ({"object_poses": torch.zeros(LENGTH, 4, 4)}, "object_poses: "),
    ],
)
def test_bad_input_is_named(change: dict, text: str) -> None:
    arguments = {"hand_poses": SCENE.pose, "object_mesh": SCENE.mesh, "object_poses": SCENE.object_poses} | change
    poses, mesh = arguments.pop("hand_poses"), arguments.pop("object_mesh")
    with pytest.raises(ValueError, match=text):
        refine_sequence(poses, mesh, **arguments)
