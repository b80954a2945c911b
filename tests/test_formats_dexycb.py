"""DexYCB: labels with their YAML, HPE results in and out, BOP results out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from format_files import OPENPOSE_OF_MANO, Hands, hands_in_span, principal, text, with_tips
from mano_file import write_mano

from hand_models import MissingManoError
from refine.files.formats import get_format, read_any, sniff, write_with
from refine.files.formats.hands import joints_of, root_joints, vertices_of
from refine.files.predictions import Predictions, row_problems

TIPS = (745, 317, 444, 556, 673)
SERIAL = "836212060125"


@pytest.fixture(scope="module")
def mano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mano")
    write_mano(folder)
    write_mano(folder, "left")
    return folder


def dataset(root: Path, hand: Hands, side: str = "right") -> Path:
    """A recording in DexYCB's folders: two objects, the second is grasped; the first frame has no hand."""
    sequence = root / "20200709-subject-01" / "20200709_141754"
    folder = sequence / SERIAL
    folder.mkdir(parents=True)
    coefficients = principal(hand, side, 45, flat=False)
    joints = with_tips(hand, TIPS)[:, OPENPOSE_OF_MANO]
    for k in range(len(hand)):
        pose = np.concatenate([hand.orient[k], coefficients[k], hand.transl[k]])[None].astype(np.float32)
        np.savez(
            folder / f"labels_{k + 1:06d}.npz", seg=np.zeros((4, 4), np.uint8), pose_m=pose,
            pose_y=np.stack([np.eye(4)[:3], hand.objects[k, :3]]).astype(np.float32),
            joint_3d=joints[k][None].astype(np.float32), joint_2d=np.ones((1, 21, 2), np.float32),
        )  # fmt: skip
    np.savez(
        folder / "labels_000000.npz", seg=np.zeros((4, 4), np.uint8), pose_m=np.zeros((1, 51), np.float32),
        pose_y=np.zeros((2, 3, 4), np.float32), joint_3d=-np.ones((1, 21, 3), np.float32),
        joint_2d=-np.ones((1, 21, 2), np.float32),
    )  # fmt: skip
    name = f"20200709-subject-01_{side}"
    text(
        sequence / "meta.yml",
        f"serials:\n- '{SERIAL}'\n- '839512060362'\nnum_frames: 4\nextrinsics: 20200702_151821\nycb_ids:\n- 2\n- 14\n"
        f"ycb_grasp_ind: 1\nmano_sides:\n- {side}\nmano_calib:\n- {name}\n",
    )
    text(root / f"calibration/mano_{name}/mano.yml", "betas:\n" + "".join(f"- {b!r}\n" for b in hand.betas[0].tolist()))
    text(
        root / f"calibration/intrinsics/{SERIAL}_640x480.yml",
        "color:\n  fx: 610.5\n  fy: 611.5\n  ppx: 320.25\n  ppy: 240.75\ndepth:\n  coeffs: [0.0, 0.0]\n  fx: 500.0\n",
    )
    return folder


def one_shape(count: int, side: str) -> Hands:
    """Hands of one person: all of the first one's betas."""
    from format_files import hands

    drawn = hands_in_span(count, side, 45, flat=False)
    return hands(count, side=side, pose=drawn.pose, betas=np.tile(drawn.betas[:1], (count, 1)))


def test_calibration_with_numbers_that_yaml_takes_for_text(tmp_path, mano):
    hand = one_shape(1, "right")
    folder = dataset(tmp_path, hand)
    (file,) = tmp_path.glob("calibration/mano_*/mano.yml")
    text(file, "betas:\n" + "- 1e-05\n" * 10)
    np.testing.assert_allclose(read_any(folder, mano_dir=mano).betas, np.full((1, 10), 1e-5), rtol=1e-6)
    text(file, "betas:\n- 1\n")
    with pytest.raises(ValueError, match=r"mano\.yml: betas: expected 10 numbers"):
        read_any(folder, mano_dir=mano)


def test_labels(tmp_path, mano):
    hand = one_shape(3, "right")
    folder = dataset(tmp_path, hand)
    assert sniff(folder) == sniff(folder / "labels_000001.npz") == sniff(folder.parent) == "dexycb"
    p = read_any(folder, mano_dir=mano)
    assert len(p) == 3
    np.testing.assert_allclose(vertices_of(p, mano), hand.vertices, atol=2e-5)
    np.testing.assert_allclose(joints_of(p, mano, "manopth"), p.keypoints_3d, atol=2e-5)
    np.testing.assert_allclose(p.object_pose, hand.objects, atol=1e-6)
    np.testing.assert_allclose(p.cam_K[0], [[610.5, 0, 320.25], [0, 611.5, 240.75], [0, 0, 1]])
    assert set(p.object_id) == {"025_mug"}
    assert p.frame_id[0] == f"20200709-subject-01/20200709_141754/{SERIAL}/000001"
    assert p.frame_index.tolist() == [1, 2, 3]
    assert row_problems(p) == {}


def test_a_damaged_label_fails_alone_and_by_name(tmp_path, mano):
    folder = dataset(tmp_path, one_shape(3, "right"))
    broken = folder / "labels_000002.npz"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.warns(UserWarning, match=r"1 of 4 files.*labels_000002\.npz"):
        p = read_any(folder, mano_dir=mano)
    assert p.frame_index.tolist() == [1, 2, 3]
    assert list(row_problems(p)) == [1]


def test_left_hands_keep_their_wrist_and_come_as_near_as_a_mirrored_right_hand_can(tmp_path, mano):
    hand = one_shape(2, "left")
    p = read_any(dataset(tmp_path, hand, "left"), mano_dir=mano)
    assert p.side.tolist() == ["left", "left"]
    wrist = root_joints(p.betas, p.side, mano) + p.transl
    np.testing.assert_allclose(wrist, hand.joints[:, 0], atol=1e-5)
    untreated = Predictions.from_columns(p.columns() | {"betas": hand.betas, "transl": hand.transl})
    error, naive = (np.linalg.norm(vertices_of(q, mano) - hand.vertices, axis=-1).mean() for q in (p, untreated))
    assert error < naive


def test_without_mano_the_way_to_it_is_shown(tmp_path, monkeypatch):
    monkeypatch.delenv("MANO_DIR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(MissingManoError, match="register"):
        read_any(dataset(tmp_path, one_shape(1, "right")))


def test_options_take_the_place_of_the_yaml(tmp_path, mano):
    hand = one_shape(1, "right")
    label = dataset(tmp_path, hand) / "labels_000001.npz"
    alone = tmp_path / "alone" / "labels_000001.npz"
    alone.parent.mkdir()
    alone.write_bytes(label.read_bytes())
    with pytest.raises(ValueError, match=r"meta\.yml.*object_id"):
        read_any(alone, mano_dir=mano)
    p = read_any(alone, mano_dir=mano, object_id="box", side="right", betas=hand.betas[0])
    np.testing.assert_allclose(vertices_of(p, mano), hand.vertices, atol=2e-5)
    np.testing.assert_allclose(p.object_pose[0], np.eye(4), atol=1e-6)


@pytest.mark.parametrize("name", ["../../../../etc/passwd", "..", "/etc"])
def test_a_calibration_outside_the_dataset_is_not_opened(tmp_path, mano, name):
    folder = dataset(tmp_path / "root", one_shape(1, "right"))
    text(tmp_path / "mano.yml", "betas:\n- 1\n")
    meta = folder.parent / "meta.yml"
    meta.write_text(meta.read_text().replace("20200709-subject-01_right", name))
    try:
        p = read_any(folder, mano_dir=mano)
    except ValueError as error:
        assert "leaves" in str(error)  # noqa: PT017
    else:
        assert not p.betas.any()


def results(p: Predictions, **change: object) -> Predictions:
    count = len(p)
    return Predictions.from_columns(p.columns() | {"frame_id": np.array([str(5 + k) for k in range(count)])} | change)


def test_hpe_results_are_millimetres_in_openpose_order(tmp_path, mano):
    hand = one_shape(3, "right")
    p = results(read_any(dataset(tmp_path, hand), mano_dir=mano))
    out = write_with(get_format("dexycb"), tmp_path / "hpe.txt", p, mano_dir=mano)
    rows = [line.split(",") for line in out.read_text().splitlines()]
    assert [len(row) for row in rows] == [64] * 3
    assert [int(row[0]) for row in rows] == [5, 6, 7]
    expected = with_tips(hand, TIPS)[:, OPENPOSE_OF_MANO] * 1000
    np.testing.assert_allclose(np.array(rows, float)[:, 1:].reshape(3, 21, 3), expected, atol=0.02)
    assert sniff(out) == "dexycb"
    back = read_any(out)
    np.testing.assert_allclose(back.keypoints_3d * 1000, expected, atol=0.02)
    assert back.frame_id.tolist() == ["5", "6", "7"]


def test_bop_results_are_the_evaluators_columns(tmp_path, mano):
    hand = one_shape(2, "right")
    p = results(read_any(dataset(tmp_path, hand), mano_dir=mano), sequence_id=np.array(["17", "17"]))
    out = write_with(get_format("dexycb"), tmp_path / "bop.csv", p, kind="bop")
    head, *lines = out.read_text().splitlines()
    assert head == "scene_id,im_id,obj_id,score,R,t,time"
    for k, line in enumerate(lines):
        scene, image, number, score, rotation, shift, time = line.split(",")
        assert (scene, image, number, float(score), time) == ("17", str(k + 1), "14", 1.0, "-1")
        np.testing.assert_allclose(np.array(rotation.split(), float).reshape(3, 3), hand.objects[k, :3, :3], atol=1e-6)
        np.testing.assert_allclose(np.array(shift.split(), float), hand.objects[k, :3, 3] * 1000, atol=1e-3)


def test_results_that_a_benchmark_cannot_take_are_refused(tmp_path, mano):
    p = results(read_any(dataset(tmp_path, one_shape(1, "right")), mano_dir=mano))
    for change, kind, message in (
        ({"frame_id": np.array(["a"])}, "hpe", "row 0, column 'frame_id'"),
        ({"sequence_id": np.array(["a/b"])}, "bop", "row 0, column 'sequence_id'"),
        ({"sequence_id": np.array(["1"]), "object_id": np.array(["cup"])}, "bop", "not an object of DexYCB"),
        ({"transl": np.full((1, 3), np.nan), "keypoints_3d": np.full((1, 21, 3), np.nan)}, "hpe", "no finite joints"),
        ({}, "grasp", "kind"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            write_with(get_format("dexycb"), tmp_path / "out.csv", results(p, **change), kind=kind, mano_dir=mano)
    assert not (tmp_path / "out.csv").exists()
