"""HaMeR and WiLoR outputs: right-hand space, matrices, the assumed focal length."""

from __future__ import annotations

import json
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from format_files import Hands, hands, turn

from refine.files.formats import read_any, sniff
from refine.files.formats.hands import vertices_of
from refine.files.predictions import row_problems

RIGHT = np.array([1.0, 0.0, 1.0])
FLIP_X = np.array([-1.0, 1.0, 1.0])
SIZE = np.array([640.0, 480.0])


def output(hand: Hands) -> dict[str, Any]:
    """As demo.py has it after a batch: the network's hands are right ones about the wrist's rest place."""
    rotations = turn(np.concatenate([hand.orient[:, None], hand.pose], 1)).astype(np.float32)
    return {
        "global_orient": rotations[:, :1],
        "hand_pose": rotations[:, 1:],
        "betas": hand.betas.astype(np.float32),
        "pred_cam_t_full": hand.transl.astype(np.float32),
        "right": RIGHT,
        "img_size": np.tile(SIZE, (3, 1)),
        "imgname": np.array(["a.jpg", "a.jpg", "b.jpg"]),
    }


@pytest.fixture(scope="module")
def sample() -> Hands:
    return hands(3, place=(0.1, 0.2, 12.0))


def shown(hand: Hands) -> np.ndarray:
    """The vertices demo.py shows: x of the right hand flipped for left ones, then the camera's translation."""
    local = hand.vertices - hand.transl[:, None]
    return np.where(RIGHT[:, None, None] > 0, local, local * FLIP_X) + hand.transl[:, None]


def test_vertices_are_those_of_the_demo(tmp_path, mano, sample):
    np.savez(tmp_path / "hamer.npz", **output(sample))
    assert sniff(tmp_path / "hamer.npz") == "hamer"
    p = read_any(tmp_path / "hamer.npz", object_id="mug", object_pose=sample.objects)
    np.testing.assert_allclose(vertices_of(p, mano), shown(sample), atol=1e-5)
    assert p.side.tolist() == ["right", "left", "right"]
    assert p.frame_id.tolist() == ["a.jpg", "a.jpg", "b.jpg"]
    assert row_problems(p) == {}


def test_the_focal_length_is_assumed_and_can_be_corrected(tmp_path, sample):
    np.savez(tmp_path / "hamer.npz", **output(sample))
    p = read_any(tmp_path / "hamer.npz")
    assumed = 5000 / 256 * 640
    np.testing.assert_allclose(p.cam_K[0], [[assumed, 0, 320], [0, assumed, 240], [0, 0, 1]])
    assert p.metric_depth.tolist() == [False] * 3
    q = read_any(tmp_path / "hamer.npz", focal=600.0)
    np.testing.assert_allclose(q.transl[:, 2], p.transl[:, 2] * 600 / assumed, rtol=1e-6)
    np.testing.assert_array_equal(q.transl[:, :2], p.transl[:, :2])
    assert q.metric_depth.all()
    assert q.cam_K[0, 0, 0] == 600


def test_the_camera_of_the_crop_becomes_that_of_the_image(tmp_path, sample):
    """A point at the hand's origin must land where the weak-perspective camera of the crop puts it."""
    content = {k: v for k, v in output(sample).items() if k not in ("right", "pred_cam_t_full")}
    content |= {
        "pred_cam": np.array([[0.9, 0.02, -0.03]] * 3),
        "box_size": np.full(3, 200.0),
        "box_center": np.array([[400.0, 300]] * 3),
    }
    np.savez(tmp_path / "hamer.npz", **content)
    p = read_any(tmp_path / "hamer.npz", source="hamer", side="right")
    point = p.cam_K[0] @ p.transl[0]
    in_crop = np.array([400.0, 300]) + 200 / 2 * 0.9 * np.array([0.02, -0.03])
    np.testing.assert_allclose(point[:2] / point[2], in_crop, atol=1e-3)


def test_wilor_mini_lists_have_left_hands_already(tmp_path, mano, sample):
    left = np.array([1.0, -1.0, -1.0])
    items: list[dict[str, Any]] = [{"hand_bbox": [0, 0, 1, 1], "is_right": 1.0}]  # a detection without a hand
    for k in range(3):
        flip = left if RIGHT[k] == 0 else 1
        preds = {
            "global_orient": sample.orient[k].reshape(1, 1, 3) * flip,
            "hand_pose": sample.pose[k][None] * flip,
            "betas": sample.betas[k][None],
            "pred_cam_t_full": sample.transl[k][None],
            "scaled_focal_length": 12500.0,
        }
        items.append({"hand_bbox": [0, 0, 9, 9], "is_right": RIGHT[k], "wilor_preds": preds})
    (tmp_path / "out.pkl").write_bytes(pickle.dumps(items))
    p = read_any(tmp_path / "out.pkl", source="hamer")
    np.testing.assert_allclose(vertices_of(p, mano), shown(sample), atol=1e-5)
    plain = [
        {k: np.asarray(v).tolist() for k, v in item["wilor_preds"].items()} | {"is_right": item["is_right"]}
        for item in items[1:]
    ]
    (tmp_path / "out.json").write_text(json.dumps(plain))
    assert sniff(tmp_path / "out.json") == "hamer"
    with pytest.raises(ValueError, match="right_hand_space"):
        read_any(tmp_path / "out.json")
    q = read_any(tmp_path / "out.json", right_hand_space=False)
    np.testing.assert_allclose(q.hand_pose, p.hand_pose, atol=1e-6)


def test_a_matrix_that_is_no_rotation_fails_its_row_alone(tmp_path, sample):
    content = output(sample)
    content["hand_pose"][1, 4] *= 1.5
    np.savez(tmp_path / "hamer.npz", **content)
    p = read_any(tmp_path / "hamer.npz", object_id="mug", object_pose=np.eye(4))
    assert list(row_problems(p)) == [1]


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        ("right", "is_right"),
        ("hand_pose", "pred_mano_params"),
        ("betas", "'betas' is missing"),
        ("pred_cam_t_full", "pred_cam_t_full"),
    ],
)
def test_what_is_missing_is_named(tmp_path, sample, drop, message):
    np.savez(tmp_path / "hamer.npz", **{k: v for k, v in output(sample).items() if k != drop})
    with pytest.raises(ValueError, match=message) as error:
        read_any(tmp_path / "hamer.npz", source="hamer")
    assert str(error.value).startswith(str(tmp_path / "hamer.npz"))


def test_pickles_that_name_code_are_refused(tmp_path):
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"global_orient": warnings.warn}))
    with pytest.raises(ValueError, match="Nothing was executed"):
        read_any(tmp_path / "evil.pkl", source="hamer")
