"""Motions that come in frame by frame, or are too long to be solved for at once: near what is solved for as a whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from motion_scene import HELD, LENGTH, error, motion_scene

import refine.solve.windows as windows
from contact.perturb import perturb
from hand_models import HandPose
from refine import SequenceResult, SequenceStream, refine_sequence
from refine.evidence.motion_inputs import smooth_parts

SCENE = motion_scene()


def apart(first: SequenceResult, joints: torch.Tensor) -> torch.Tensor:
    """(T,) millimetres"""
    return 1e3 * (first.joints_after - joints).norm(dim=-1).mean(1)


@pytest.fixture(scope="module")
def noisy() -> HandPose:
    return perturb(SCENE.pose, "image", seed=1)


@pytest.fixture(scope="module")
def whole(noisy: HandPose) -> SequenceResult:
    result = refine_sequence(noisy, SCENE.mesh, SCENE.object_poses, input_error="image")
    assert isinstance(result, SequenceResult)
    return result


def streamed(pose: HandPose, mesh: object, poses: torch.Tensor, **options: object) -> list[SequenceResult]:
    stream = SequenceStream(mesh, input_error="image", **options)  # type: ignore[arg-type]
    parts = [stream.push(pose[k], poses[k]) for k in range(len(pose))]
    return [part for part in [*parts, stream.finish()] if part is not None]


def test_a_stream_is_near_the_whole(noisy: HandPose, whole: SequenceResult) -> None:
    parts = streamed(noisy, SCENE.mesh, SCENE.object_poses, look_ahead=15)
    assert [len(part) for part in parts[:-1]] == [5] * (len(parts) - 1)
    assert sum(map(len, parts)) == LENGTH
    joints = torch.cat([part.joints_after for part in parts])
    assert apart(whole, joints).mean() < 5
    found = HandPose.cat([part.pose for part in parts])
    assert error(SCENE, found).mean() < 0.6 * error(SCENE, noisy).mean()
    # No jump where a part ends: haste there is what it is elsewhere.
    haste = np.linalg.norm(np.diff(joints.numpy(), n=2, axis=0), axis=-1).mean(1)
    given = SCENE.model.joints(noisy).numpy()
    seams = np.cumsum([len(part) for part in parts])[:-1]
    at = np.concatenate([seams - 2, seams - 1])
    assert haste[at].mean() < 0.3 * np.linalg.norm(np.diff(given, n=2, axis=0), axis=-1).mean()


def test_frames_come_out_as_soon_as_enough_have_followed(noisy: HandPose) -> None:
    stream = SequenceStream(SCENE.mesh, input_error="image", look_ahead=6, stride=3, context=4)
    lengths = [stream.push(noisy[k], SCENE.object_poses[k]) for k in range(11)]
    assert [0 if part is None else len(part) for part in lengths] == [0] * 6 + [3, 0, 0, 3, 0]
    rest = stream.finish()
    assert rest is not None
    assert len(rest) == 5
    assert stream.finish() is None


def test_the_future_does_not_change_what_was_given_out(noisy: HandPose) -> None:
    some = slice(HELD.start - 4, HELD.start + 12)
    first = streamed(noisy[some], SCENE.mesh, SCENE.object_poses[some], look_ahead=6, stride=6)[0]
    longer = slice(some.start, some.stop + 1)
    again = streamed(noisy[longer], SCENE.mesh, SCENE.object_poses[longer], look_ahead=6, stride=6)[0]
    assert torch.equal(first.joints_after, again.joints_after)


def test_long_motions_are_solved_for_in_pieces(
    noisy: HandPose, whole: SequenceResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "_AROUND", 15)
    monkeypatch.setattr(windows.solve_in_windows, "__defaults__", (None, 25))
    pieces = refine_sequence(noisy, SCENE.mesh, SCENE.object_poses, input_error="image")
    assert isinstance(pieces, SequenceResult)
    assert len(pieces) == LENGTH
    assert pieces.contact.shape == whole.contact.shape
    assert apart(whole, pieces.joints_after).mean() < 5
    assert ((pieces.holding > 0.5) == (whole.holding > 0.5)).float().mean() > 0.9


def test_jitter_of_the_object_goes_where_it_is_stated(noisy: HandPose) -> None:
    generator = torch.Generator().manual_seed(0)
    jitter = SCENE.object_poses.clone()
    jitter[:, :3, 3] += 0.008 * torch.randn(LENGTH, 3, generator=generator)
    smooth = smooth_parts(jitter[:, None], (0.008, 0.01), 1.0)[:, 0]
    off = [(p[:, :3, 3] - SCENE.object_poses[:, :3, 3]).norm(dim=1).mean() for p in (jitter, smooth)]
    assert off[1] < 0.7 * off[0]
    eye = torch.eye(3).expand(LENGTH, 3, 3)
    torch.testing.assert_close(smooth[:, :3, :3] @ smooth[:, :3, :3].mT, eye, atol=1e-5, rtol=0)
    exact = smooth_parts(SCENE.object_poses[:, None], (1e-5, 1e-4), 1.0)[:, 0]
    torch.testing.assert_close(exact, SCENE.object_poses, atol=1e-4, rtol=0)
    result = refine_sequence(
        noisy[:20], SCENE.mesh, jitter[:20], input_error="image", object_error=(0.008, 0.01), holding=False
    )
    assert isinstance(result, SequenceResult)
    assert not np.allclose(result.object_poses[:, 0], jitter[:20])


def test_a_motion_is_of_one_hand_shape() -> None:
    some = SCENE.pose[:12]
    sizes = 0.3 * torch.randn(12, 10, generator=torch.Generator().manual_seed(1))
    wobbling = HandPose("right", some.global_orient, some.hand_pose, sizes, some.transl)
    result = refine_sequence(wobbling, SCENE.mesh, SCENE.object_poses[:12], input_error="image")
    assert isinstance(result, SequenceResult)
    torch.testing.assert_close(result.pose.betas, sizes.median(0).values.expand(12, -1))
    exact = refine_sequence(wobbling, SCENE.mesh, SCENE.object_poses[:12], input_error="exact")
    assert isinstance(exact, SequenceResult)
    assert torch.equal(exact.pose.betas, sizes)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"stride": 20}, "stride: got 20"), ({"context": 1}, "context=1"), ({"object_error": 3.0}, "object_error: got")],
)
def test_bad_options_are_named(options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        SequenceStream(SCENE.mesh, **options)


def test_frames_are_one_hand_with_an_object_pose_in_all_or_none(noisy: HandPose) -> None:
    stream = SequenceStream(SCENE.mesh)
    with pytest.raises(ValueError, match="got 2 hands"):
        stream.push(noisy[:2], SCENE.object_poses[0])
    stream.push(noisy[0], SCENE.object_poses[0])
    with pytest.raises(ValueError, match="object_pose: given in some"):
        stream.push(noisy[1])
    with pytest.raises(ValueError, match="1 frames"):
        stream.finish()
