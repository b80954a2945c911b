"""Measures of motions against closed forms: a plane of points over a box' upper face."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from contact.objects import ObjectMesh
from refine.measure.motion import contact_deviation, contact_over_time, jitter, motion_deviation

BOX = ObjectMesh.from_any(trimesh.creation.box((0.1, 0.1, 0.1)), resolution=32, cache=False)


def above(height: np.ndarray, shift: np.ndarray | float = 0.0) -> np.ndarray:
    """(1, T, 9, 3) points ``height (T,)`` metres over the upper face, displaced along x by ``shift (T,)``."""
    grid = np.stack(np.meshgrid(np.linspace(-0.02, 0.02, 3), np.linspace(-0.02, 0.02, 3)), -1).reshape(-1, 2)
    points = np.tile(np.c_[grid, np.zeros(9)], (len(height), 1, 1))
    points[..., 2] += 0.05 + np.asarray(height)[:, None]
    points[..., 0] += np.broadcast_to(shift, len(height))[:, None]
    return points[None]


def test_jitter_is_the_second_difference() -> None:
    at = np.arange(6.0)
    joints = np.zeros((1, 6, 4, 3))
    joints[..., 0] = 0.5 * 0.004 * at[:, None] ** 2
    assert jitter(joints)[0] == pytest.approx(0.004)
    assert jitter(joints, fps=30)[0] == pytest.approx(0.004 * 900)


def test_contact_over_time_counts_frames() -> None:
    true = above(np.array([0.02, 0.001, 0.001, 0.02]))
    found = above(np.array([0.02, 0.02, 0.001, 0.001]))
    assert contact_over_time(found, true, BOX)[0] == pytest.approx(0.5)  # one of two each
    assert contact_over_time(true, true, BOX)[0] == 1
    assert np.isnan(contact_over_time(above(np.full(2, 0.1)), above(np.full(2, 0.1)), BOX)[0])


def test_contact_deviation_is_the_distance_of_touching_pairs() -> None:
    true = above(np.array([0.001, 0.001, 0.05]))  # the last does not touch, and does not count
    found = above(np.array([0.011, 0.001, 0.5]))
    assert contact_deviation(found, true, BOX)[0] == pytest.approx((0.011 + 0.001) / 2, abs=3e-4)


def test_motion_deviation_is_how_far_touching_skin_goes() -> None:
    height = np.full(4, 0.001)
    still, sliding = above(height), above(height, np.array([0.0, 0.002, 0.004, 0.006]))
    assert motion_deviation(sliding, still, BOX)[0] == pytest.approx(0.002, rel=1e-6)
    assert motion_deviation(still, still, BOX)[0] == 0
    fast = above(height, np.array([0.0, 0.005, 0.010, 0.015]))  # what truly slides does not count
    assert np.isnan(motion_deviation(still, fast, BOX)[0])
