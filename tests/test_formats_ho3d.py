"""HO-3D: the OpenGL camera, annotations, and the challenge's pred.json in and out."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_files import FLIP, OPENPOSE_OF_MANO, Hands, hands, text, vector, with_tips

from refine.files.formats import get_format as named
from refine.files.formats import read_any, sniff, write_with
from refine.files.formats.hands import vertices_of
from refine.files.predictions import Predictions, row_problems

TIPS = (744, 333, 444, 555, 672)


@pytest.fixture(scope="module")
def sample() -> Hands:
    """Hands in OpenGL's camera: along −z."""
    return hands(3, place=(0.02, -0.03, -0.7))


def annotation(hand: Hands, row: int) -> dict[str, Any]:
    """The fields of HO-3D's meta files, in its types."""
    return {
        "handPose": np.concatenate([hand.orient[row], hand.pose[row].ravel()]),
        "handBeta": hand.betas[row],
        "handTrans": hand.transl[row],
        "handJoints3D": with_tips(hand, TIPS)[row],
        "objRot": vector(hand.objects[row, :3, :3])[:, None],
        "objTrans": hand.objects[row, :3, 3],
        "objName": "021_bleach_cleanser",
        "objLabel": 12,
        "objCorners3D": np.zeros((8, 3)),
        "camMat": np.array([[614.0, 0, 320], [0, 614, 240], [0, 0, 1]]),
    }


def dataset(folder: Path, hand: Hands) -> Path:
    meta = folder / "train" / "ABF10" / "meta"
    meta.mkdir(parents=True)
    for row in range(len(hand)):
        (meta / f"{row * 7:04d}.pkl").write_bytes(pickle.dumps(annotation(hand, row), protocol=2))
    blank = dict.fromkeys(annotation(hand, 0))
    (meta / "0003.pkl").write_bytes(pickle.dumps(blank, protocol=2))
    return folder


def test_annotations_need_no_mano_and_keep_the_surface(tmp_path, mano, sample, monkeypatch):
    monkeypatch.delenv("MANO_DIR", raising=False)
    folder = dataset(tmp_path, sample)
    assert sniff(folder) == sniff(folder / "train") == sniff(folder / "train/ABF10/meta") == "ho3d"
    p = read_any(folder)
    assert len(p) == 3  # the frame that nobody annotated is passed over
    np.testing.assert_allclose(vertices_of(p, mano), sample.vertices @ FLIP, atol=2e-5)
    np.testing.assert_allclose(p.object_pose[:, :3, :3], FLIP @ sample.objects[:, :3, :3], atol=1e-6)
    np.testing.assert_allclose(p.object_pose[:, :3, 3], sample.objects[:, :3, 3] @ FLIP, atol=1e-6)
    assert p.frame_id.tolist() == ["ABF10/0000", "ABF10/0007", "ABF10/0014"]
    assert p.frame_index.tolist() == [0, 7, 14]
    assert set(p.object_id) == {"021_bleach_cleanser"}
    assert row_problems(p) == {}
    one = read_any(folder / "train/ABF10/meta/0007.pkl")
    np.testing.assert_array_equal(one.transl, p.transl[1:2])


def test_a_damaged_annotation_fails_alone_and_by_name(tmp_path, sample):
    folder = dataset(tmp_path, sample)
    broken = folder / "train/ABF10/meta/0007.pkl"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.warns(UserWarning, match=r"1 of 4 files.*0007\.pkl"):
        p = read_any(folder)
    assert p.frame_id.tolist() == ["ABF10/0000", "ABF10/0007", "ABF10/0014"]
    assert list(row_problems(p)) == [1]
    with pytest.raises(ValueError, match="not a readable pickle"):
        read_any(broken)


def test_without_joints_the_wrist_comes_from_mano_or_the_mean_hand(tmp_path, mano, sample):
    content = annotation(sample, 0) | {"handJoints3D": None}
    path = tmp_path / "meta" / "0000.pkl"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(content))
    with pytest.warns(UserWarning, match="mean shape"):
        p = read_any(path)
    np.testing.assert_allclose(p.transl[0] + root(0 * sample.betas[0]), root_after_flip(sample), atol=1e-6)


def root(betas: np.ndarray) -> np.ndarray:
    """The open hand's wrist, which is the mean hand's of MANO."""
    from hand_models import HandPose, load_open_hand

    return load_open_hand().root(HandPose.zeros(1))[0].numpy() + 0 * betas[:3]


def root_after_flip(hand: Hands) -> np.ndarray:
    return FLIP @ (root(hand.betas[0]) + hand.transl[0])


def test_the_evaluation_split_has_objects_only(tmp_path, sample):
    content = annotation(sample, 0)
    content |= {"handJoints3D": content["handJoints3D"][0], "handBoundingBox": [0, 0, 9, 9]}
    for name in ("handPose", "handBeta", "handTrans"):
        del content[name]
    path = tmp_path / "meta" / "0000.pkl"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(content))
    p = read_any(path)
    assert "NaN" in row_problems(p)[0]
    assert np.isfinite(p.object_pose).all()


def pred(path: Path, hand: Hands) -> Path:
    """As pred.py dumps it."""
    path.write_text(json.dumps([with_tips(hand, TIPS).tolist(), hand.vertices.tolist()]))
    return path


def test_pred_json_in(tmp_path, mano, sample):
    path = pred(tmp_path / "pred.json", sample)
    assert sniff(path) == "ho3d"
    names = text(tmp_path / "evaluation.txt", "SM1/0000\nSM1/0001\nMPM10/0120\n")
    p = read_any(path, frames=names, object_id="mug", object_pose=np.eye(4))
    expected = with_tips(sample, TIPS)[:, OPENPOSE_OF_MANO] @ FLIP
    np.testing.assert_allclose(p.keypoints_3d, expected, atol=1e-6)
    assert p.sequence_id.tolist() == ["SM1", "SM1", "MPM10"]
    assert p.frame_index.tolist() == [0, 1, 120]
    assert row_problems(p) == {}


def test_pred_json_with_mano_fits_the_surface(tmp_path, mano, sample):
    p = read_any(pred(tmp_path / "pred.json", sample), mano_dir=mano)
    error = np.linalg.norm(vertices_of(p, mano) - sample.vertices @ FLIP, axis=-1)
    assert error.mean() < 2e-3


def test_pred_json_out_and_in_again(tmp_path, mano, sample):
    p = read_any(dataset(tmp_path, sample))
    out = write_with(named("ho3d"), tmp_path / "pred.json", p, mano_dir=mano)
    xyz, vertices = (np.array(part) for part in json.loads(out.read_text()))
    np.testing.assert_allclose(xyz, with_tips(sample, TIPS), atol=2e-5)
    np.testing.assert_allclose(vertices, sample.vertices, atol=2e-5)
    assert (xyz[..., 2] < 0).all()  # what pred.py checks
    order = text(tmp_path / "order.txt", "ABF10/0014\nABF10/0000\n")
    write_with(named("ho3d"), out, p, mano_dir=mano, frames=order)
    np.testing.assert_allclose(read_any(out).keypoints_3d, 0 + xyz[[2, 0]][:, OPENPOSE_OF_MANO] @ FLIP, atol=1e-6)


def test_what_the_challenge_cannot_hold_is_refused(tmp_path, mano, sample):
    p = read_any(dataset(tmp_path, sample))
    ho3d = named("ho3d")
    for change, message in (
        ({"side": np.array(["right", "left", "right"])}, "row 1: is a left hand"),
        ({"hand_model": np.full(3, "open")}, "row 0"),
        ({"transl": p.transl * [[np.nan], [1], [1]]}, "row 0: has no finite"),
    ):
        q = Predictions.from_columns(p.columns() | change)
        with pytest.raises(ValueError, match=message):
            write_with(ho3d, tmp_path / "pred.json", q, mano_dir=mano)
    assert not (tmp_path / "pred.json").exists()
    with pytest.raises(ValueError, match="'ABF10/9999'"):
        write_with(ho3d, tmp_path / "pred.json", p, mano_dir=mano, frames=text(tmp_path / "f.txt", "ABF10/9999\n"))


@pytest.mark.parametrize("content", ["[[", "[[[1,2,3]],[]]", "{}", "[1,2]", "[" * 3000, "[[],[]", '[["a"],[]]'])
def test_damaged_pred_json(tmp_path, content):
    path = text(tmp_path / "pred.json", content)
    with pytest.raises(ValueError, match=r"pred\.json"):
        read_any(path, source="ho3d")


def test_the_reference_model_agrees_with_the_package(mano, sample):
    """`surface`, which these tests lean on, against the package's own MANO."""
    fields = {"global_orient": sample.orient, "hand_pose": sample.pose, "betas": sample.betas}
    fields |= {"transl": sample.transl, "object_id": np.full(3, "x"), "side": np.full(3, "right")}
    np.testing.assert_allclose(vertices_of(Predictions.from_columns(fields), mano), sample.vertices, atol=1e-5)
