"""FHAB, ContactPose, ContactOpt, GRAB, ARCTIC and 48-number poses: each on a small file of its own layout."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from format_files import Hands, hands, hands_in_span, mano_fields, principal, surface, text, turn, vector
from mano_file import write_mano
from scipy.spatial.transform import Rotation

from hand_models import HandPose, load_open_hand, skeleton
from refine.files.formats import get_format, read_any, sniff, write_with
from refine.files.formats.hands import root_joints, vertices_of
from refine.files.predictions import Predictions, row_problems


@pytest.fixture(scope="module")
def mano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mano")
    write_mano(folder)
    write_mano(folder, "left")
    return folder


def error(p: Predictions, mano: Path, expected: np.ndarray) -> float:
    """Largest distance of a vertex, metres."""
    return float(np.linalg.norm(vertices_of(p, mano) - expected, axis=-1).max())


# FHAB -----------------------------------------------------------------------------------------------

EXTRINSICS = np.array(
    [[0.999988496304, -0.00468848412856, 0.000982563360594, 25.7],
     [0.00469115935266, 0.999985218048, -0.00273845880292, 1.22],
     [-0.000969709653873, 0.00274303671904, 0.99999576807, 3.902], [0, 0, 0, 1]]
)  # fmt: skip


def fhab(folder: Path, joints: np.ndarray, objects: np.ndarray) -> Path:
    """World millimetres in both trees of the dataset; the object file lacks the last frame."""
    tail = Path("Subject_1/pour_milk/3")
    lines = [" ".join([f"{k + 4:04d}", *map(repr, j.ravel().tolist())]) for k, j in enumerate(joints)]
    columns = [" ".join([str(k + 4), *map(repr, o.T.ravel().tolist())]) for k, o in enumerate(objects[:-1])]
    text(folder / "Object_6D_pose_annotation_v1" / tail / "object_pose.txt", "\n".join(columns) + "\n")
    path = folder / "Hand_pose_annotation_v1" / tail / "skeleton.txt"
    return text(path, "\n".join(lines) + "\n")


def test_fhab(tmp_path):
    """As load_example.py: extrinsics times millimetres, object vertices in metres times 1000 before the pose."""
    g = torch.Generator().manual_seed(0)
    place = torch.tensor([[0.0, 0, 0.5]]).repeat(3, 1)
    pose = HandPose("right", torch.randn(3, 3, generator=g), torch.zeros(3, 15, 3), torch.zeros(3, 10), place)
    world = load_open_hand()(pose).joints.numpy().astype(float) * 1000
    rng = np.random.default_rng(0)
    objects = np.tile(np.eye(4), (3, 1, 1))
    objects[:, :3, :3], objects[:, :3, 3] = (turn(rng.normal(size=(3, 3))), rng.normal(size=(3, 3)) * 50 + [0, 0, 500])
    path = fhab(tmp_path, skeleton.convert(world, source="openpose", target="fhab"), objects)
    assert sniff(path) == sniff(path.parent) == "fhab"
    p = read_any(path.parent)
    np.testing.assert_allclose(p.keypoints_3d * 1000, world @ EXTRINSICS[:3, :3].T + EXTRINSICS[:3, 3], atol=1e-3)
    point = np.array([0.01, 0.02, 0.03])
    expected = EXTRINSICS @ objects[1] @ np.append(point * 1000, 1)
    np.testing.assert_allclose((p.object_pose[1] @ np.append(point, 1))[:3] * 1000, expected[:3], atol=1e-3)
    assert np.isnan(p.object_pose[2]).all()
    assert list(row_problems(p)) == [2]
    assert p.frame_index.tolist() == [4, 5, 6]
    assert set(p.object_id) == {"milk"}
    assert p.frame_id[0] == "Subject_1/pour_milk/3/0004"


# ContactPose and ContactOpt -------------------------------------------------------------------------


def quaternion(matrix: np.ndarray) -> dict[str, list[float]]:
    x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat()
    return {"translation": matrix[:3, 3].tolist(), "rotation": [w, x, y, z]}


def rigid(rng: np.random.Generator) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn(rng.normal(size=3)), rng.normal(scale=0.1, size=3)
    return matrix


def contactpose(folder: Path) -> tuple[Path, np.ndarray]:
    """A grasp of two hands, the left one moving in two frames, and the vertices load_mano_meshes would give."""
    rng, fits, expected = np.random.default_rng(1), [], []
    frames = [{"hTo": [quaternion(rigid(rng)), quaternion(rigid(rng))]} for _ in range(2)]
    for index, side in enumerate(("left", "right")):
        betas = np.zeros((1, 10)) if side == "left" else None  # of the left shapes, only the mean one is mirrored
        hand = hands_in_span(1, side, 15, flat=False, seed=index, betas=betas)
        camera = rigid(rng)
        pose = [*hand.orient[0], *principal(hand, side, 15, flat=False)[0]]
        fits.append({"valid": True, "pose": pose, "betas": hand.betas[0].tolist(), "mTc": quaternion(camera)})
        local = hand.vertices[0] - hand.transl[0]
        for frame in frames if side == "left" else frames[:1]:
            motion = frame["hTo"][0]
            inner = np.eye(4)
            if side == "left":
                w, x, y, z = motion["rotation"]
                inner[:3, :3], inner[:3, 3] = (Rotation.from_quat([x, y, z, w]).as_matrix(), motion["translation"])
            place = np.linalg.inv(inner) @ np.linalg.inv(camera)
            expected.append(local @ place[:3, :3].T + place[:3, 3])
    sides = [{"valid": True, "moving": True}, {"valid": True, "moving": False}]
    folder = folder / "full28_use" / "mouse"
    text(folder / "annotations.json", json.dumps({"frames": frames, "hands": sides}))
    text(folder / "mano_fits_10.json", "[]")
    return text(folder / "mano_fits_15.json", json.dumps(fits)), np.array(expected)


def test_contactpose(tmp_path, mano):
    path, expected = contactpose(tmp_path)
    assert sniff(path) == sniff(path.parent) == "contactpose"
    p = read_any(path.parent, mano_dir=mano)
    assert p.side.tolist() == ["left", "left", "right"]
    assert error(p, mano, expected) < 2e-5
    assert p.object_pose is None
    assert set(p.object_id) == {"mouse"}
    assert row_problems(p) == {}


def test_contactpose_without_annotations_says_so(tmp_path, mano):
    path, expected = contactpose(tmp_path)
    (path.parent / "annotations.json").unlink()
    fits = json.loads(path.read_text())
    fits[0]["valid"] = False
    path.write_text(json.dumps(fits))
    with pytest.warns(UserWarning, match=r"annotations\.json"):
        p = read_any(path, mano_dir=mano)
    assert error(p, mano, expected[2:]) < 2e-5


def test_contactopt_in_and_out(tmp_path, mano):
    hand = hands_in_span(2, "right", 15, flat=False)
    pose = np.c_[hand.orient, principal(hand, "right", 15, flat=False)]
    demo = {"beta": hand.betas[0].tolist(), "pose": pose[0].tolist(), "trans": hand.transl[0].tolist()}
    path = text(tmp_path / "mug.json", json.dumps(demo))
    assert sniff(path) == "contactopt"
    p = read_any(path, mano_dir=mano)
    assert error(p, mano, hand.vertices[:1]) < 2e-5
    assert p.object_id.tolist() == ["mug"]
    assert p.object_pose is None
    out = write_with(get_format("contactopt"), tmp_path / "out.json", p, mano_dir=mano)
    for name, value in demo.items():
        np.testing.assert_allclose(json.loads(out.read_text())[name], value, atol=2e-6)
    full = np.c_[hand.orient, hand.pose.reshape(2, 45)]
    several = [demo, {"beta": hand.betas[1].tolist(), "pose": full[1].tolist(), "trans": hand.transl[1].tolist()}]
    q = read_any(text(tmp_path / "two.json", json.dumps(several)), mano_dir=mano)
    assert error(q, mano, hand.vertices) < 2e-5
    left = Predictions.from_columns(q.columns() | {"side": np.array(["right", "left"])})
    with pytest.raises(ValueError, match="row 1"):
        write_with(get_format("contactopt"), tmp_path / "bad.json", left, mano_dir=mano)


# GRAB -----------------------------------------------------------------------------------------------


def grab(root: Path) -> tuple[Path, dict[str, Hands], np.ndarray, np.ndarray]:
    """A sequence with pickled dictionaries in its .npz and templates in tools/; object vertices as ObjectModel's."""
    rng, content, drawn = np.random.default_rng(2), {}, {}
    for side, name in (("right", "rhand"), ("left", "lhand")):
        fields = mano_fields(side)
        span = mano_fields("right")["shapedirs"] * ([[-1.0], [1], [1]] if side == "left" else 1)
        template = fields["v_template"] + span @ rng.normal(size=10)
        pose = hands_in_span(3, side, 24, flat=True).pose
        hand = hands(3, side=side, pose=pose, betas=np.zeros((3, 10)), template=template, place=(0.3, 0.2, 1.1))
        relative = f"tools/subject_meshes/male/s1_{name}.ply"
        (root / relative).parent.mkdir(parents=True, exist_ok=True)
        trimesh.Trimesh(template, fields["f"], process=False).export(root / relative)
        params = {
            "global_orient": hand.orient.astype(np.float32), "transl": hand.transl.astype(np.float32),
            "hand_pose": principal(hand, side, 24, flat=True).astype(np.float32),
            "fullpose": pose.reshape(3, 45).astype(np.float32),
        }  # fmt: skip
        content[name] = {"params": params, "vtemp": relative}
        drawn[side] = hand
    turns, shifts = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    content["object"] = {"params": {"global_orient": turns, "transl": shifts}, "object_mesh": "tools/mug.ply"}
    path = root / "grab" / "s1" / "mug_drink_1.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, gender="male", sbj_id="s1", obj_name="mug", n_frames=3, n_comps=24, **content)
    points = rng.normal(size=(5, 3))
    return path, drawn, points, points @ turn(turns) + shifts[:, None]


def test_grab(tmp_path, mano):
    path, drawn, points, moved = grab(tmp_path)
    assert sniff(path) == "grab"
    p = read_any(path, mano_dir=mano)
    assert p.side.tolist() == ["right"] * 3 + ["left"] * 3
    assert error(p.take(slice(0, 3)), mano, drawn["right"].vertices) < 1e-4
    assert error(p.take(slice(3, 6)), mano, drawn["left"].vertices) < 1e-4
    ours = np.einsum("nij,pj->npi", p.object_pose[:3, :3, :3], points) + p.object_pose[:3, None, :3, 3]
    np.testing.assert_allclose(ours, moved, atol=1e-5)
    assert set(p.object_id) == {"mug"}
    assert p.frame_id[4] == "s1/mug_drink_1/1"
    assert row_problems(p) == {}
    one = read_any(path, mano_dir=mano, side="left", template=tmp_path / "tools/subject_meshes/male/s1_lhand.ply")
    np.testing.assert_allclose(one.betas, p.betas[3:], atol=1e-6)


def test_grab_without_mano_takes_the_full_pose(tmp_path, monkeypatch):
    monkeypatch.delenv("MANO_DIR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    path, drawn, _, _ = grab(tmp_path)
    with pytest.warns(UserWarning, match="mean hand"):
        p = read_any(path)
    np.testing.assert_allclose(p.hand_pose[:3], drawn["right"].pose, atol=1e-6)


def test_a_template_outside_the_dataset_is_not_opened(tmp_path, mano):
    path, _, _, _ = grab(tmp_path / "root")
    with np.load(path, allow_pickle=True) as archive:
        content = {name: archive[name] for name in archive.files}
    content["rhand"].item()["vtemp"] = "../secret.ply"
    np.savez(path, **content)
    with pytest.raises(ValueError, match="leaves"):
        read_any(path, mano_dir=mano)


# ARCTIC ---------------------------------------------------------------------------------------------


def arctic(root: Path) -> tuple[Path, dict[str, Hands], np.ndarray]:
    rng, content, drawn = np.random.default_rng(3), {}, {}
    for side in ("right", "left"):
        hand = hands(3, side=side, betas=np.tile(rng.normal(size=10), (3, 1)), place=(0.1, 0.9, 0.4))
        content[side] = {
            "rot": hand.orient,
            "pose": hand.pose.reshape(3, 45) - mano_fields(side)["hands_mean"],
            "trans": hand.transl,
            "shape": hand.betas[0],
            "fitting_err": np.zeros(3),
        }
        drawn[side] = hand
    path = root / "raw_seqs" / "s01" / "box_grab_01.mano.npy"
    path.parent.mkdir(parents=True)
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    motion = np.c_[np.full(3, 0.5), rng.normal(size=(3, 3)), rng.normal(size=(3, 3)) * 300]
    np.save(path.with_name("box_grab_01.object.npy"), motion)
    extrinsics = np.array([rigid(rng) for _ in range(8)])
    misc = {"s01": {"world2cam": extrinsics.tolist(), "intris_mat": np.tile(np.eye(3), (8, 1, 1)).tolist(),
                    "image_size": [[2800, 2000]] * 9}}  # fmt: skip
    text(root / "meta" / "misc.json", json.dumps(misc))
    return path, drawn, motion


def test_arctic(tmp_path, mano):
    path, drawn, motion = arctic(tmp_path)
    assert sniff(path) == "arctic"
    p = read_any(path, mano_dir=mano)
    assert error(p.take(slice(0, 3)), mano, drawn["right"].vertices) < 2e-5
    wrist = root_joints(p.betas[3:], p.side[3:], mano) + p.transl[3:]
    np.testing.assert_allclose(wrist, drawn["left"].joints[:, 0], atol=1e-5)
    point = np.array([100.0, 20, 30])  # millimetres, as the meshes
    ours = p.object_pose[0] @ np.append(point / 1000, 1)
    np.testing.assert_allclose(ours[:3], turn(motion[0, 1:4]) @ point / 1000 + motion[0, 4:] / 1000, atol=1e-6)
    assert set(p.object_id) == {"box"}
    assert row_problems(p) == {}


def test_arctic_through_a_camera(tmp_path, mano):
    path, drawn, _ = arctic(tmp_path)
    world = read_any(path, mano_dir=mano, side="right")
    p = read_any(path, mano_dir=mano, side="right", view=3)
    camera = np.array(json.loads((tmp_path / "meta/misc.json").read_text())["s01"]["world2cam"][2])
    assert error(p, mano, drawn["right"].vertices @ camera[:3, :3].T + camera[:3, 3]) < 2e-5
    np.testing.assert_allclose(p.object_pose, camera @ world.object_pose, atol=1e-5)
    assert p.image_size[0].tolist() == [2800, 2000]
    with pytest.raises(ValueError, match="view: got 9"):
        read_any(path, mano_dir=mano, view=9)


# 48 numbers -----------------------------------------------------------------------------------------


def centred(hand: Hands) -> np.ndarray:
    """Where manopth with center_idx=0 and a translation puts the vertices: the wrist at the translation."""
    return hand.vertices - hand.joints[:, :1] + hand.transl[:, None]


def forms48(hand: Hands) -> dict[str, Any]:
    full = np.c_[hand.orient, hand.pose.reshape(3, 45)]
    return {
        "hand_param.pkl": {"pose": full[0], "shape": hand.betas[0], "tsl": hand.transl[0]},
        "right_hand.pkl": {f"{k + 1:05d}": {"hand_pose": full[k], "hand_trans": hand.transl[k]} for k in range(3)},
        "all.npz": {"pose": full, "shape": hand.betas, "tsl": hand.transl},
        "all.json": [
            {"pose": pose.tolist(), "tsl": transl.tolist(), "shape": betas.tolist()}
            for pose, transl, betas in zip(full, hand.transl, hand.betas, strict=True)
        ],
    }


@pytest.mark.parametrize("name", ["hand_param.pkl", "right_hand.pkl", "all.npz", "all.json"])
def test_pose48(tmp_path, mano, name):
    hand = hands(3, betas=np.tile(np.random.default_rng(5).normal(size=10), (3, 1)))
    content, path = forms48(hand)[name], tmp_path / name
    if path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".json":
        path.write_text(json.dumps(content))
    else:
        path.write_bytes(pickle.dumps(content))
        (tmp_path / "right_hand_shape.pkl").write_bytes(pickle.dumps({"hand_shape": hand.betas[0]}))
    assert sniff(path) == "pose48"
    p = read_any(path, mano_dir=mano, object_id="cup")
    assert error(p, mano, centred(hand)[: len(p)]) < 2e-5
    assert (p.object_pose is None) == (name != "right_hand.pkl")
    if name == "right_hand.pkl":
        assert p.frame_id.tolist() == ["00001", "00002", "00003"]


def test_pose48_left_root_and_mean(tmp_path, mano):
    hand = hands(3, side="left")
    mean = mano_fields("left")["hands_mean"]
    path, pose = tmp_path / "left_hand.npz", np.c_[hand.orient, hand.pose.reshape(3, 45) - mean]
    np.savez(path, pose=pose, betas=hand.betas, trans=hand.transl)
    options = {"flat_hand_mean": False, "pivot": "root", "object_pose": hand.objects}
    p = read_any(path, source="pose48", mano_dir=mano, **options)
    assert set(p.side) == {"left"}
    np.testing.assert_allclose(p.hand_pose, hand.pose, atol=1e-5)
    np.testing.assert_allclose(root_joints(p.betas, p.side, mano) + p.transl, hand.joints[:, 0], atol=1e-5)
    np.testing.assert_allclose(p.object_pose, hand.objects, atol=1e-6)


def test_text_where_numbers_belong_is_no_path(tmp_path, mano):
    """What stands in a file is never opened."""
    np.save(tmp_path / "secret.npy", np.ones(10))
    content = {"pose": [0.0] * 48, "tsl": [0.0] * 3, "shape": str(tmp_path / "secret.npy")}
    with pytest.raises(ValueError, match=r"'shape'.*not an array of numbers"):
        read_any(text(tmp_path / "a.json", json.dumps(content)), source="pose48")


def test_tensors_in_pickles_are_refused_with_the_mend(tmp_path):
    content = {"00001": {"hand_pose": torch.zeros(48), "hand_trans": torch.zeros(3)}}
    (tmp_path / "right_hand.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"torch.*numpy"):
        read_any(tmp_path / "right_hand.pkl")


def test_the_second_opinion_poses_about_the_wrist():
    """`surface` with a turned root leaves the wrist where it is."""
    fields = mano_fields()
    turned = surface(fields, turn(np.eye(16, 3)), np.zeros(10))[1][0]
    np.testing.assert_allclose(turned, fields["J"][0], atol=1e-12)
    np.testing.assert_allclose(vector(turn(np.ones(3))), np.ones(3), atol=1e-12)
