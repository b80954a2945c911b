"""Data sets of MANO's parameters: each on a small file as its makers write it, against a second model of the hand."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_files import Hands, hands, hands_in_span, mano_fields, principal, text
from mano_file import write_mano
from scipy.spatial.transform import Rotation
from test_formats_datasets import EXTRINSICS, arctic, centred, error
from test_formats_dexycb import dataset as dexycb

from refine.files.formats import get_format, read_any, sniff
from refine.files.formats.datasets import DATASETS
from refine.files.formats.hands import root_joints
from refine.files.predictions import row_problems

MIRROR = np.array([-1.0, 1, 1])


@pytest.fixture(scope="module")
def mano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mano")
    write_mano(folder)
    write_mano(folder, "left")
    return folder


def mirrored(hand: Hands) -> Hands:
    """The left hand that a mirror makes of a right one."""
    return Hands(
        hand.orient * -MIRROR, hand.pose * -MIRROR, hand.betas, hand.transl * MIRROR, hand.vertices * MIRROR,
        hand.joints * MIRROR, hand.objects,
    )  # fmt: skip


def full(hand: Hands, side: str | None = None) -> np.ndarray:
    """(N, 48) angles; less the mean pose of a side's file where the writer's model adds it."""
    mean = 0 if side is None else mano_fields(side)["hands_mean"]
    return np.c_[hand.orient, hand.pose.reshape(-1, 45) - mean]


def quaternions(rotation: np.ndarray) -> np.ndarray:
    return Rotation.from_rotvec(rotation.reshape(-1, 3)).as_quat()[:, [3, 0, 1, 2]].reshape(*rotation.shape[:-1], 4)


def saved(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".pkl", ".pickle"):
        path.write_bytes(pickle.dumps(content))
    elif path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".npy":
        np.save(path, np.array(content, object), allow_pickle=True)
    else:
        path.write_text(json.dumps(content, default=lambda a: np.asarray(a).tolist()))
    return path


RIGHT = hands(3, seed=1)
LEFT = mirrored(hands(3, seed=2))


def interhand(root: Path) -> Path:
    def hand(of: Hands, side: str, k: int) -> dict[str, Any]:
        return {"pose": full(of, side)[k], "shape": of.betas[k], "trans": of.transl[k]}

    frames = {
        str(10 * k): {"right": hand(RIGHT, "right", k), "left": None if k == 1 else hand(LEFT, "left", k)}
        for k in range(3)
    }
    return saved(root / "InterHand2.6M_test_MANO_NeuralAnnot.json", {"0": frames})


def test_interhand(tmp_path, mano):
    path = interhand(tmp_path)
    assert sniff(path) == "interhand"
    p = read_any(path, mano_dir=mano, object_id="cup", object_poses={"10": np.eye(4)})
    assert p.frame_index.tolist() == [0, 0, 10, 20, 20]
    assert p.side.tolist() == ["right", "left", "right", "right", "left"]
    assert error(p.take(p.side == "right"), mano, RIGHT.vertices) < 2e-5
    assert error(p.take(p.side == "left"), mano, LEFT.vertices[[0, 2]]) < 2e-5
    assert list(row_problems(p)) == [0, 1, 3, 4]
    assert set(p.sequence_id) == {"0"}


def hoi4d(root: Path) -> Path:
    folder = root / "ZY2021/handpose/refinehandpose_right/C1"
    for k in range(3):
        content = {"poseCoeff": full(RIGHT)[k], "beta": RIGHT.betas[k], "trans": RIGHT.transl[k]}
        saved(folder / f"{4 * k}.pickle", content | {"kps2D": np.full((21, 2), 7.0 * k)})
    return folder


def test_hoi4d(tmp_path, mano):
    folder = hoi4d(tmp_path)
    assert sniff(folder) == sniff(folder / "4.pickle") == "hoi4d"
    poses = np.tile(np.eye(4), (10, 1, 1))
    poses[:, 2, 3] = np.arange(10)
    p = read_any(folder, mano_dir=mano, object_pose=poses)
    assert error(p, mano, RIGHT.vertices) < 2e-5
    assert p.frame_index.tolist() == [0, 4, 8]
    assert p.object_pose[:, 2, 3].tolist() == [0, 4, 8]
    assert p.keypoints_2d[2, 0].tolist() == [14, 14]
    assert error(read_any(folder / "8.pickle", mano_dir=mano), mano, RIGHT.vertices[2:]) < 2e-5
    saved(folder / "4.pickle", {"poseCoeff": full(RIGHT)[1], "beta": RIGHT.betas[1], "trans": RIGHT.transl[1]})
    (folder / "8.pickle").write_bytes(b"cut")
    with pytest.warns(UserWarning, match="1 of 3"):
        p = read_any(folder, mano_dir=mano)  # a frame without keypoints and a damaged one
    assert np.isfinite(p.keypoints_2d).all((1, 2)).tolist() == [True, False, False]
    assert np.isfinite(p.transl).all(1).tolist() == [True, True, False]


def oakink2(root: Path) -> Path:
    def frame(k: int) -> dict[str, Any]:
        sides = {"rh__": RIGHT} | ({"lh__": hands(3, seed=3, side="left")} if k else {})
        values: dict[str, Any] = {}
        for prefix, of in sides.items():
            angles = full(of)[k].reshape(16, 3)
            values |= {f"{prefix}pose_coeffs": quaternions(angles)[None] * (-1 if k else 1)}
            values |= {f"{prefix}tsl": of.transl[k : k + 1], f"{prefix}betas": of.betas[k : k + 1]}
        return values

    objects = {"O02@01": {5 * k: RIGHT.objects[k] for k in range(2)}, "O13": {}}
    content = {"obj_list": [*objects], "obj_transf": objects, "raw_mano": {5 * k: frame(k) for k in range(3)}}
    return saved(root / "scene_01__A001.pkl", content)


def test_oakink2(tmp_path, mano):
    path = oakink2(tmp_path)
    assert sniff(path) == "oakink2"
    with pytest.raises(ValueError, match="O02@01, O13"):
        read_any(path, mano_dir=mano)
    p = read_any(path, mano_dir=mano, object_id="O02@01")
    assert p.frame_index.tolist() == [0, 5, 5, 10, 10]
    assert error(p.take(p.side == "right"), mano, centred(RIGHT)) < 2e-5
    left = p.take(p.side == "left")
    wrist = root_joints(left.betas, left.side, mano) + left.transl
    np.testing.assert_allclose(wrist, hands(3, seed=3, side="left").transl[1:], atol=1e-5)
    np.testing.assert_allclose(p.object_pose[1], RIGHT.objects[1], atol=1e-6)
    assert list(row_problems(p)) == [3, 4]


def hot3d(root: Path) -> tuple[Path, Hands]:
    of = hands_in_span(3, "right", 15, flat=False, betas=np.tile(RIGHT.betas[:1], (3, 1)))
    lines = []
    for k in range(3):
        wrist = {"q_wxyz": quaternions(of.orient)[k], "t_xyz": of.transl[k]}
        hand = {"wrist_xform": wrist, "pose": principal(of, "right", 15, flat=False)[k], "betas": of.betas[k]}
        poses = {} if k == 1 else {"1": hand}
        line = {"timestamp_ns": 1000 + k, "hand_poses": poses}
        lines.append(json.dumps(line, default=lambda a: a.tolist()))
    return text(root / "mano_hand_pose_trajectory.jsonl", "\n".join(lines) + "\n"), of


def test_hot3d(tmp_path, mano):
    path, of = hot3d(tmp_path)
    assert sniff(path) == "hot3d"
    p = read_any(path, mano_dir=mano)
    assert error(p, mano, of.vertices[[0, 2]]) < 2e-5
    assert p.frame_index.tolist() == [0, 2]
    assert p.frame_id.tolist() == ["1000", "1002"]


def test_hot3d_left_hands_are_mirrored_right_ones(tmp_path, mano):
    path, of = hot3d(tmp_path)
    path.write_text(path.read_text().replace('{"1": ', '{"0": '))
    p = read_any(path, mano_dir=mano)
    assert p.side.tolist() == ["left", "left"]
    np.testing.assert_allclose(p.betas, of.betas[[0, 2]], atol=1e-6)
    np.testing.assert_allclose(p.transl, of.transl[[0, 2]], atol=1e-6)


def graspxl(root: Path) -> Path:
    flat = hands(3, seed=4, betas=np.zeros((3, 10)))
    objects = {"trans": flat.objects[:, :3, 3], "rot": Rotation.from_matrix(flat.objects[:, :3, :3]).as_rotvec()}
    content = {
        "right_hand": {"trans": flat.transl, "rot": flat.orient, "pose": full(flat, "right")[:, 3:]},
        "0a1b": objects | {"angle": np.zeros(3)},
    }
    return saved(root / "mano_1.npy", content)


def test_graspxl(tmp_path, mano):
    path = graspxl(tmp_path)
    assert sniff(path) == "graspxl"
    p = read_any(path, mano_dir=mano)
    flat = hands(3, seed=4, betas=np.zeros((3, 10)))
    assert error(p, mano, flat.vertices) < 2e-5
    np.testing.assert_allclose(p.object_pose, flat.objects, atol=1e-6)
    assert set(p.object_id) == {"0a1b"}
    assert row_problems(p) == {}


def hawor_arrays() -> dict[str, np.ndarray]:
    pair = (LEFT, RIGHT)
    return {
        "pred_trans": np.stack([of.transl for of in pair]),
        "pred_rot": np.stack([of.orient for of in pair]),
        "pred_hand_pose": np.stack([of.pose.reshape(3, 45) for of in pair]),
        "pred_betas": np.stack([of.betas for of in pair]),
        "pred_valid": np.array([[1, 0, 1], [1, 1, 1.0]]),
    }


@pytest.mark.parametrize("form", ["world.npz", "world.pkl", "list.pkl", "world.json"])
def test_hawor(tmp_path, mano, form):
    arrays = hawor_arrays()
    path = saved(tmp_path / form, list(arrays.values()) if form == "list.pkl" else arrays)
    p = read_any(path, source="hawor", mano_dir=mano)
    assert p.frame_index.tolist() == [0, 2, 0, 1, 2]
    assert error(p.take([0, 1]), mano, LEFT.vertices[[0, 2]]) < 2e-5
    assert error(p.take([2, 3, 4]), mano, RIGHT.vertices) < 2e-5
    if path.suffix in (".npz", ".json"):
        assert sniff(path) == "hawor"


def fhab_fits(root: Path) -> Path:
    folder = root / "fhbhands_fits/Subject_2/pour_milk/3"
    values = [{"fullpose": full(RIGHT)[k], "trans": RIGHT.transl[k], "shape": RIGHT.betas[k]} for k in range(3)]
    return saved(folder / "pkls.pkl", {f"{2 * k:06d}.pkl": value for k, value in enumerate(values)})


def test_fhab_fits(tmp_path, mano):
    path = fhab_fits(tmp_path)
    objects = np.tile(np.eye(4), (5, 1, 1))
    objects[:, 2, 3] = np.arange(5) * 100
    lines = [" ".join([str(k), *map(repr, o.T.ravel().tolist())]) for k, o in enumerate(objects)]
    given = text(tmp_path / "object_pose.txt", "\n".join(lines))
    assert sniff(path) == "fhab"
    p = read_any(path, mano_dir=mano, object_pose=given)
    assert error(p, mano, RIGHT.vertices) < 2e-5
    assert p.frame_index.tolist() == [0, 2, 4]
    assert set(p.object_id) == {"milk"}
    metres = EXTRINSICS @ objects[4]
    np.testing.assert_allclose(p.object_pose[2, :3, 3], metres[:3, 3] / 1000, atol=1e-5)


def test_dexycb_recording(tmp_path, mano):
    of = hands_in_span(3, "right", 45, flat=False, betas=np.tile(RIGHT.betas[:1], (3, 1)))
    labels = dexycb(tmp_path, of)
    folder = labels.parent
    pose = np.zeros((4, 1, 51), np.float32)
    pose[1:, 0] = np.c_[of.orient, principal(of, "right", 45, flat=False), of.transl]
    objects = np.tile(np.array([0, 0, 0, 1, 0, 0, 0], np.float32), (4, 2, 1))
    objects[2:, 1, :4] = Rotation.from_matrix(of.objects[1:, :3, :3]).as_quat()
    objects[2:, 1, 4:] = of.objects[1:, :3, 3]
    np.savez(folder / "pose.npz", pose_m=pose, pose_y=objects)
    assert sniff(folder / "pose.npz") == "dexycb"
    wanted = read_any(labels, mano_dir=mano)
    p = read_any(folder / "pose.npz", mano_dir=mano)
    np.testing.assert_allclose(p.transl, wanted.transl, atol=1e-6)
    np.testing.assert_allclose(p.hand_pose, wanted.hand_pose, atol=1e-5)
    assert p.object_id.tolist() == wanted.object_id.tolist()
    assert p.frame_index.tolist() == [1, 2, 3]
    assert np.isnan(p.object_pose[0]).all()
    np.testing.assert_allclose(p.object_pose[1:], of.objects[1:], atol=1e-5)


def test_arctic_processed_is_as_raw(tmp_path, mano):
    path, _, motion = arctic(tmp_path)
    raw = np.load(path, allow_pickle=True).item()
    params = {f"{name}_{side[0]}": raw[side][name] for side in raw for name in ("rot", "pose", "trans")}
    params |= {f"shape_{side[0]}": np.tile(raw[side]["shape"], (3, 1)) for side in raw}
    params |= {"obj_arti": motion[:, 0], "obj_rot": motion[:, 1:4], "obj_trans": motion[:, 4:]}
    content = {"params": params, "world_coord": {"joints.right": np.zeros((3, 21, 3))}}
    processed = saved(tmp_path / "processed_seqs/s01/box_grab_01.npy", content)
    assert sniff(processed) == "arctic"
    p, wanted = read_any(processed, mano_dir=mano), read_any(path, mano_dir=mano)
    for name, value in wanted.columns().items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(p.column(name), value, atol=1e-6, err_msg=name)
        else:
            assert p.column(name).tolist() == value.tolist(), name


# Arrays of 51 and 61 numbers ------------------------------------------------------------------------

LAYOUTS = {
    "pose,transl": lambda of: np.c_[full(of), of.transl],
    "pose,betas,transl": lambda of: np.c_[full(of), of.betas, of.transl],
    "betas,orient,fingers,transl": lambda of: np.c_[of.betas, full(of), of.transl],
    "transl,pose,betas": lambda of: np.c_[of.transl, full(of), of.betas],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["a.npy", "a.json", "b.pkl"])
def test_arrays_of_parameters_in_a_stated_order(tmp_path, mano, layout, form):
    of = hands(3, betas=np.zeros((3, 10)) if layout == "pose,transl" else None)
    array, path = LAYOUTS[layout](of), tmp_path / form
    if form == "a.npy":
        np.save(path, array)
    else:
        saved(path, {"right": {"params": array}} if form == "b.pkl" else array)
    p = read_any(path, source="pose48", layout=layout, pivot="root", mano_dir=mano)
    assert error(p, mano, of.vertices) < 2e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "61 numbers a frame: pass layout"),
        ({"layout": "pose,transl"}, "has 51 numbers, the file 61"),
        ({"layout": "pose,shape"}, "use words among"),
        ({"layout": "pose,pose"}, "use words among"),
    ],
)
def test_an_order_that_nobody_says_is_not_guessed(tmp_path, options, message):
    np.save(tmp_path / "a.npy", np.zeros((2, 61)))
    with pytest.raises(ValueError, match=message):
        read_any(tmp_path / "a.npy", source="pose48", **options)


# What is damaged ------------------------------------------------------------------------------------


def test_a_damaged_frame_fails_alone(tmp_path, mano):
    path = interhand(tmp_path)
    content = json.loads(path.read_text())
    content["0"]["10"]["right"]["pose"] = content["0"]["10"]["right"]["pose"][:40]
    with pytest.warns(UserWarning, match=r"1 of 5 hands .* capture 0, frame 10.*'pose'.*48"):
        p = read_any(saved(path, content), mano_dir=mano, object_id="cup", object_pose=np.eye(4))
    assert len(p) == 5
    assert list(row_problems(p)) == [2]
    for hands_ in content["0"].values():
        hands_["right"] = hands_["left"] = {"pose": [0.0] * 48}
    with pytest.raises(ValueError, match="no translation under any of trans; it has pose"):
        read_any(saved(path, content), mano_dir=mano)


@pytest.mark.parametrize("name", DATASETS)
def test_what_is_of_another_make_is_named(tmp_path, name):
    with pytest.raises(ValueError, match=r"other\.json: ."):
        read_any(text(tmp_path / "other.json", '{"a": [1, 2]}'), source=name)


def test_left_hands_alone(tmp_path, mano):
    p = read_any(interhand(tmp_path), mano_dir=mano, side="left")
    assert p.side.tolist() == ["left", "left"]
    assert get_format("interhand").write is None
