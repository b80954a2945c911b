"""HaMeR and WiLoR as their users save them: arrangements, the true camera, meshes, and one command to the result."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from format_files import OPENPOSE_OF_MANO, hands, mano_fields, with_tips
from test_formats_hamer import FLIP_X, RIGHT, SIZE, output, shown

from hand_models import HandPose, MissingManoError, load_open_hand
from hand_models.skeleton import TIP_VERTICES
from refine.commands import cli
from refine.files.formats import read_any, sniff
from refine.files.formats.hands import vertices_of
from refine.files.input_files import find_inputs
from refine.files.prediction_files import read_predictions, write_predictions
from refine.files.predictions import Predictions, row_problems

ASSUMED = 5000 / 256 * 640
TRUE = np.array([[610.0, 0, 331], [0, 605.0, 236], [0, 0, 1]])


@pytest.fixture(scope="module")
def sample():
    return hands(3, place=(0.1, 0.2, 12.0))


def saved(path: Path, content: Any) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(content, default=lambda a: np.asarray(a).tolist()))
    elif path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    return path


def each(content: dict[str, Any]) -> list[dict[str, Any]]:
    """One dictionary a hand, the side a plain number."""
    return [{k: v[n : n + 1] if k != "right" else v[n] for k, v in content.items()} for n in range(3)]


def same(p: Predictions, q: Predictions, names=("side", "global_orient", "hand_pose", "betas", "transl")) -> None:
    for name in names:
        a, b = p.column(name), q.column(name)
        if a.dtype.kind == "U":
            assert a.tolist() == b.tolist()
        else:
            np.testing.assert_allclose(a, b, atol=1e-6)


# Forms ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["hamer", "wilor"])
@pytest.mark.parametrize("suffix", [".npz", ".pkl", ".json", ".pt", ".pth"])
def test_every_kind_of_file_holds_the_same_hands(tmp_path, sample, mano, suffix, source):
    content = output(sample)
    if suffix in (".pt", ".pth"):  # tensors and arrays, as they come
        content = {k: torch.from_numpy(v) if k in ("betas", "hand_pose") else v for k, v in content.items()}
    p = read_any(saved(tmp_path / f"a{suffix}", content), source=source)
    np.testing.assert_allclose(vertices_of(p, mano), shown(sample), atol=1e-5)
    assert p.input_error.tolist() == ["camera"] * 3
    assert p.frame_index.tolist() == [0, 0, 1]


def arrangements(content: dict[str, Any]) -> dict[str, Any]:
    one = each(content)
    pose = ("global_orient", "hand_pose", "betas")
    deep = [{"mano": {k: h[k] for k in pose}, "camera": {k: h[k] for k in h if k not in pose}} for h in one]
    return {
        "list of hands": one,
        "hands of frames": [one[:2], one[2:]],
        "frames without a hand": [one[:2], {}, [], None, one[2:]],
        "by image": {"a.jpg": one[:2], "b.jpg": one[2:], "c.jpg": []},
        "by number": {0: one[:2], 4: one[2:]},
        "below own names": deep,
        "below pred_mano_params": [{"out": {"pred_mano_params": h["mano"]}, **h["camera"]} for h in deep],
        "wrapped": {"hands": one},
        "below a name of all frames": {"mine": [one[:2], None, one[2]]},
    }


@pytest.mark.parametrize("form", list(arrangements({k: np.zeros(3) for k in output(hands(3))})))
def test_arrangements(tmp_path, sample, form):
    wanted = read_any(saved(tmp_path / "wanted.npz", output(sample)), source="hamer")
    p = read_any(saved(tmp_path / "form.pkl", arrangements(output(sample))[form]), source="hamer")
    same(p, wanted, ("side", "global_orient", "hand_pose", "betas", "transl", "cam_K", "frame_id"))
    places = {
        "by number": [0, 0, 4],
        "frames without a hand": [0, 0, 4],
        "below a name of all frames": [0, 0, 2],
        "below own names": [0, 0, 1],
    }
    assert p.frame_index.tolist() == places.get(form, [0, 0, 1])


def test_both_hands_by_side_without_a_number(tmp_path, sample):
    one = [{k: v for k, v in hand.items() if k not in ("right", "imgname")} for hand in each(output(sample))]
    p = read_any(saved(tmp_path / "frame7.pkl", {"right": one[0], "left": one[1]}), source="hamer")
    assert p.side.tolist() == ["right", "left"]
    assert p.frame_id.tolist() == ["frame7"] * 2
    same(p, read_any(saved(tmp_path / "all.npz", output(sample)), source="hamer").take([0, 1]))


def test_images_without_a_hand_are_no_rows(tmp_path):
    for k, tree in enumerate(([], {}, [{}], {"a.jpg": []}, [{"hand_bbox": [0, 0, 1, 1], "is_right": 1.0}])):
        assert len(read_any(saved(tmp_path / f"{k}.pkl", tree), source="wilor")) == 0


@pytest.mark.parametrize(
    "tree", [[{"theta": [0.0] * 48}], {"a": {"b": {"betas2": 1}}}, [{"is_right": 1, "pose_rot6d": [0.0] * 96}]]
)
def test_what_is_no_hand_is_never_passed_over(tmp_path, tree):
    with pytest.raises(ValueError, match="global_orient"):
        read_any(saved(tmp_path / "a.pkl", tree), source="hamer")


def test_a_file_an_image(tmp_path, sample):
    """Frames keep the numbers of their files, together and alone; 7 had no hand."""
    folder, content = tmp_path / "out", each(output(sample))
    folder.mkdir()
    bare = [{k: v for k, v in hand.items() if k not in ("imgname",)} for hand in content]
    saved(folder / "frame_6.pkl", bare[:2])
    saved(folder / "frame_7.pkl", [])
    saved(folder / "frame_10.pkl", bare[2:])
    p = read_any(folder, source="hamer", object_pose=placed(12))
    assert p.frame_index.tolist() == [6, 6, 10]
    assert p.frame_id.tolist() == ["frame_6", "frame_6", "frame_10"]
    assert p.object_pose[:, 2, 3].tolist() == [6, 6, 10]
    alone = read_any(folder / "frame_10.pkl", source="hamer", object_pose=placed(12))
    assert (alone.frame_index[0], alone.object_pose[0, 2, 3]) == (10, 10)
    (folder / "frame_6.pkl").write_bytes(b"junk")
    with pytest.raises(ValueError, match="frame_6"):
        read_any(folder, source="hamer")


def placed(count: int) -> np.ndarray:
    """Poses of so many frames, which tell their number."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 2, 3] = np.arange(count)
    return poses


VIDEOS = [
    ["AB", "", "C"],
    ["AB", None, "C", ""],
    ["", "A", "BC"],
    {"0": "AB", "3": "C"},
    {"x.jpg": "A", "y.jpg": "", "z.jpg": "BC"},
]
"""Which of three hands is in which frame."""


@pytest.mark.parametrize("frames", VIDEOS)
@pytest.mark.parametrize("option", ["object_pose", "object_poses"])
def test_object_poses_may_be_one_a_frame(tmp_path, sample, frames, option):
    hand = dict(zip("ABC", each(output(sample)), strict=True))

    def content(letters: str | None) -> Any:
        return None if letters is None else [hand[letter] for letter in letters] or {}

    if isinstance(frames, dict):
        tree: Any = {name: content(letters) for name, letters in frames.items()}
        numbers = [int(name) if name.isdigit() else place for place, name in enumerate(frames)]
        wanted = [n for n, letters in zip(numbers, frames.values(), strict=True) for _ in letters]
    else:
        tree = [content(letters) for letters in frames]
        wanted = [n for n, letters in enumerate(frames) for _ in letters or ""]
    p = read_any(saved(tmp_path / "video.pkl", tree), source="hamer", **{option: placed(4)})
    assert p.frame_index.tolist() == wanted
    assert p.object_pose[:, 2, 3].tolist() == wanted


def test_object_poses_in_every_form(tmp_path, sample):
    one = each(output(sample))
    path = saved(tmp_path / "video.pkl", [one[:2], {}, one[2:]])
    poses, wanted = placed(3), [0, 0, 2]
    folder = tmp_path / "ob_in_cam"
    folder.mkdir()
    for k, pose in enumerate(poses):
        np.savetxt(folder / f"{k:04d}.txt", pose)
    forms = {
        "frames": poses, "3x4": poses[:, :3], "numbers": poses.reshape(3, 16),
        "list": [poses[0].tolist(), None, poses[2]],
        "by number": {0: poses[0], 2: poses[2]}, "by text": {"0": poses[0], "1": None, "2": poses[2].tolist()},
        "folder": folder, "npy": tmp_path / "p.npy", "npz": tmp_path / "p.npz", "json": tmp_path / "p.json",
        "pkl": saved(tmp_path / "p.pkl", {"poses": poses}), "text": tmp_path / "p.txt",
    }  # fmt: skip
    np.save(forms["npy"], poses)
    np.savez(forms["npz"], object_poses=poses)
    np.savetxt(forms["text"], poses.reshape(3, 16))
    saved(forms["json"], [poses[0].tolist(), None, poses[2].tolist()])
    for name, form in forms.items():
        assert read_any(path, source="hamer", object_poses=form).object_pose[:, 2, 3].tolist() == wanted, name
    rows = read_any(path, source="hamer", object_poses=np.stack([poses[1], poses[1], poses[2]]))
    assert rows.object_pose[:, 2, 3].tolist() == [1, 1, 2]  # one a row, as those of the first frame agree
    assert read_any(path, source="hamer", object_poses=poses[1]).object_pose[:, 2, 3].tolist() == [1, 1, 1]
    lacking = read_any(path, source="hamer", object_id="mug", object_poses={0: poses[0]})
    assert list(row_problems(lacking)) == [2]
    with pytest.raises(ValueError, match=r"\(2, 4, 4\).*for the rows, or one for each frame from 0 to 2"):
        read_any(path, source="hamer", object_poses=poses[:2])
    with pytest.raises(ValueError, match="give one of the two"):
        read_any(path, source="hamer", object_poses=poses, object_pose=poses[0])


def test_rows_that_count_no_frames_take_no_poses_of_frames(tmp_path):
    np.save(tmp_path / "joints.npy", np.random.default_rng(0).normal(size=(3, 21, 3)))
    with pytest.raises(ValueError, match=r"expected \(4, 4\), or \(3, 4, 4\) for the rows, or a mapping"):
        read_any(tmp_path / "joints.npy", object_poses=placed(4))


def test_a_damaged_record_is_an_empty_row(tmp_path, sample):
    one = each(output(sample))
    one[1] = one[1] | {"hand_pose": np.zeros((1, 14, 3, 3))}
    path = saved(tmp_path / "video.pkl", [[one[0]], [one[1]], [one[2]]])
    with pytest.warns(UserWarning, match=r"1 of 3 records .* item 1, item 0: field 'hand_pose'"):
        p = read_any(path, source="hamer", object_id="mug", object_pose=np.eye(4))
    assert p.frame_index.tolist() == [0, 1, 2]
    assert list(row_problems(p)) == [1]
    same(p.take([0, 2]), read_any(saved(tmp_path / "two.pkl", [[one[0]], [one[2]]]), source="hamer"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "HTML page.*download the file itself"),
        (b"", "is empty"),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".json", ".pkl"])
@pytest.mark.parametrize("source", [None, "hamer"])
def test_what_stands_for_a_file_is_named(tmp_path, content, message, suffix, source):
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_any(tmp_path / f"a{suffix}", source=source)


def test_torch_files_run_no_code(tmp_path):
    torch.save({"global_orient": Path("x")}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="Nothing was executed"):
        read_any(tmp_path / "evil.pt", source="hamer")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ValueError, match=r"not a readable file of torch.save"):
        read_any(tmp_path / "cut.pth", source="hamer")
    torch.save(output(hands(3)), tmp_path / "named.pkl")
    assert len(read_any(tmp_path / "named.pkl", source="hamer")) == 3


def test_a_pickle_that_only_is_called_pth_says_what_is_in_it(tmp_path):
    """As joblib's files of tensors are, HaWoR's world_space_res.pth among them."""
    path = saved(tmp_path / "numpy.pkl", output(hands(3))).rename(tmp_path / "numpy.pth")
    assert len(read_any(path, source="hamer")) == 3
    (tmp_path / "tensors.pth").write_bytes(pickle.dumps([torch.zeros(2, 3, 3)] * 5))
    with pytest.raises(ValueError, match=r"tensors with \.cpu\(\)\.numpy\(\)"):
        read_any(tmp_path / "tensors.pth", source="hawor")


# Cameras --------------------------------------------------------------------------------------------


def pixels(points: np.ndarray, camera: np.ndarray) -> np.ndarray:
    seen = points @ np.swapaxes(np.asarray(camera, float), -1, -2)
    return seen[..., :2] / seen[..., 2:]


@pytest.mark.parametrize("said", ["matrix", "text", "numbers", "file", "mapping", "column"])
def test_the_true_camera_keeps_hands_on_their_picture(tmp_path, mano, said):
    sample = hands(3, place=(0.1, 0.05, 14.0))
    content = output(sample)
    numbers = [TRUE[0, 0], TRUE[1, 1], *TRUE[:2, 2]]
    camera = {
        "matrix": TRUE, "text": ",".join(map(str, numbers)), "numbers": numbers,
        "file": saved(tmp_path / "K.json", {"camera_matrix": TRUE}),
        "mapping": saved(tmp_path / "f.json", dict(zip(("fx", "fy", "cx", "cy"), numbers, strict=True))),
    }.get(said)  # fmt: skip
    before = read_any(saved(tmp_path / "a.npz", content), source="hamer")
    if said == "column":
        content["cam_K"] = TRUE
    after = read_any(saved(tmp_path / "b.npz", content), source="hamer", camera=camera)
    np.testing.assert_allclose(after.cam_K, np.tile(TRUE, (3, 1, 1)), rtol=1e-6)
    assert after.metric_depth.all()
    assert not before.metric_depth.any()
    was = np.array([[ASSUMED, 0, 320], [0, ASSUMED, 240], [0, 0, 1]])
    np.testing.assert_allclose(pixels(after.transl[:, None], TRUE), pixels(before.transl[:, None], was), atol=1e-2)
    np.testing.assert_allclose(after.transl[:, 2], before.transl[:, 2] * np.sqrt(610 * 605) / ASSUMED, rtol=1e-5)
    # The whole hand, a decimetre deep at 70 cm: as large and at the same place, up to its perspective (1 cm).
    old, new = pixels(vertices_of(before, mano), was), pixels(vertices_of(after, mano), TRUE)
    assert np.linalg.norm(old.mean(1) - new.mean(1), axis=1).max() < 610 * 0.01 / 0.7
    np.testing.assert_allclose(np.ptp(new, axis=1), np.ptp(old, axis=1), rtol=0.15)


def test_a_table_with_an_assumed_camera_is_put_before_the_true_one(tmp_path, sample):
    p = read_any(saved(tmp_path / "a.npz", output(sample)), source="hamer", object_id="mug")
    path = write_predictions(tmp_path / "table.npz", p)
    q = read_any(path, camera=TRUE, input_error="image", holding=1.0)
    same(q, read_any(tmp_path / "a.npz", source="hamer", camera=TRUE), ("transl", "cam_K"))
    assert q.metric_depth.all()
    assert q.input_error.tolist() == ["image"] * 3
    assert q.holding.tolist() == [1] * 3
    r = read_any(write_predictions(tmp_path / "metric.npz", q), camera=np.diag([900.0, 900, 1]))
    np.testing.assert_array_equal(r.transl, q.transl)  # a metric depth stays what it is
    assert r.cam_K[0, 0, 0] == 900
    assert read_any(path, focal=700.0).cam_K[0].tolist() == [[700, 0, 320], [0, 700, 240], [0, 0, 1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"camera": "600,600,320"}, "camera.*fx,fy,cx,cy"),
        ({"camera": np.eye(3)}, "camera.*pinhole"),
        ({"camera": TRUE.T}, "camera.*transpose"),
        ({"camera": {"f": 3}}, "camera.*fx, fy"),
        ({"camera": np.full((3, 3), np.nan)}, "camera"),
        ({"focal": -1.0}, "focal.*pixels"),
        ({"focal": 600.0, "camera": TRUE}, "one of the two"),
        ({"object_poses": {"z.jpg": np.eye(4)}}, "none of the file's images"),
        ({"object_poses": np.eye(3)}, r"object_poses.*\(4, 4\)"),
    ],
)
@pytest.mark.parametrize("source", ["hamer", "grasp"])
def test_malformed_options_are_named(tmp_path, sample, options, message, source):
    path = saved(tmp_path / "a.npz", output(sample))
    if source == "grasp":
        path = write_predictions(tmp_path / "b.npz", read_any(path, source="hamer", object_id="mug"))
    with pytest.raises(ValueError, match=message):
        read_any(path, source=source, **options)


def test_object_poses_by_image(tmp_path, sample):
    poses = {"frames/a.png": np.eye(4), "b": np.diag([1.0, -1, -1, 1])}
    path = saved(tmp_path / "a.npz", output(sample))
    for given in (poses, saved(tmp_path / "p.json", poses), saved(tmp_path / "p.npz", poses)):
        p = read_any(path, source="hamer", object_poses=given, object_id="mug")
        np.testing.assert_array_equal(p.object_pose, [poses["frames/a.png"]] * 2 + [poses["b"]])
    p = read_any(path, source="hamer", object_poses={"a.jpg": np.eye(4)}, object_id="mug")
    assert list(row_problems(p)) == [2]


# Keypoints ------------------------------------------------------------------------------------------


def with_keypoints(sample, form: str) -> dict[str, Any]:
    """The output with keypoints as HaMeR has them, of the crop, or as WiLoR-mini, of the image."""
    content = output(sample)
    joints = with_tips(sample, TIP_VERTICES["smplx"].right)[:, list(OPENPOSE_OF_MANO)] - sample.transl[:, None]
    seen = np.where(RIGHT[:, None, None] > 0, joints, joints * FLIP_X)  # as demo.py shows them
    full = pixels(seen + sample.transl[:, None], np.array([[ASSUMED, 0, 320], [0, ASSUMED, 240], [0, 0, 1]]))
    if form == "image":
        return content | {"pred_keypoints_3d": seen, "pred_keypoints_2d": full}
    box = {"box_center": full.mean(1), "box_size": np.full(3, 250.0)}
    crop = (full - box["box_center"][:, None]) / 250
    crop[RIGHT == 0, :, 0] *= -1
    return content | {"pred_keypoints_3d": joints, "pred_keypoints_2d": crop} | box | {"whole": full}


@pytest.mark.parametrize("form", ["crop", "image"])
def test_keypoints_become_pixels_of_the_image(tmp_path, form):
    sample = hands(3, place=(0.1, 0.05, 14.0))
    content, wanted = with_keypoints(sample, form), with_keypoints(sample, "image")["pred_keypoints_2d"]
    p = read_any(saved(tmp_path / "a.npz", content), source="hamer")
    np.testing.assert_allclose(p.keypoints_2d, wanted, atol=0.5)
    q = read_any(tmp_path / "a.npz", source="hamer", camera=TRUE)
    np.testing.assert_array_equal(q.keypoints_2d, p.keypoints_2d)  # the picture stays the picture
    np.testing.assert_array_equal(q.keypoint_sigma, p.keypoint_sigma)
    assert (p.keypoint_sigma > 1).all()


def test_keypoints_that_nothing_confirms_are_left_out(tmp_path, sample):
    content = with_keypoints(sample, "image")
    content["pred_keypoints_2d"] = content["pred_keypoints_2d"] + np.array([40.0, 0])
    assert read_any(saved(tmp_path / "a.npz", content), source="hamer").keypoints_2d is None


def test_keypoints_tell_the_size_of_an_image(tmp_path):
    """WiLoR-mini saves no size of the image, which a true camera takes to find the pixel of a hand."""
    content = with_keypoints(hands(3, place=(0.1, 0.05, 14.0)), "image")
    wanted = read_any(saved(tmp_path / "a.npz", content), source="wilor", camera=TRUE)
    del content["img_size"]
    path = saved(tmp_path / "b.npz", content | {"scaled_focal_length": ASSUMED})
    p = read_any(path, source="wilor", camera=TRUE)
    np.testing.assert_allclose(p.transl, wanted.transl, atol=1e-4)
    np.testing.assert_array_equal(p.image_size, np.tile(SIZE, (3, 1)))
    del content["pred_keypoints_2d"]
    with pytest.raises(ValueError, match="image_size"):
        read_any(saved(tmp_path / "c.npz", content), source="wilor", camera=TRUE)
    same(read_any(tmp_path / "c.npz", source="wilor", camera=TRUE, image_size=(640, 480)), wanted, ("transl",))


# Meshes ---------------------------------------------------------------------------------------------


def demo_mesh(path: Path, vertices: np.ndarray, right: bool, order: np.ndarray | None = None) -> None:
    """As ``vertices_to_trimesh`` and ``export`` write one: 14 more faces, OpenGL's axes."""
    faces = np.asarray(mano_fields()["f"]).astype(int)
    faces = np.concatenate([faces, faces[:14]])
    order = np.arange(778) if order is None else order
    new = np.argsort(order)
    mesh = trimesh.Trimesh(vertices[order], new[faces if right else faces[:, [0, 2, 1]]], process=False)
    mesh.apply_transform(trimesh.transformations.rotation_matrix(np.pi, [1, 0, 0]))
    mesh.export(path)


def test_meshes_of_the_demo(tmp_path, mano):
    sample = hands(3, place=(0.1, 0.05, 14.0))
    surfaces, folder = shown(sample), tmp_path / "out_demo"
    folder.mkdir()
    for k, name in enumerate(("a_0", "a_1", "b_0")):
        order = np.random.default_rng(k).permutation(778) if k else None  # a writer may sort its vertices
        demo_mesh(folder / f"{name}.obj", surfaces[k], RIGHT[k] > 0, order)
    trimesh.creation.box().export(folder / "table.obj")
    assert sniff(folder) == "hamer"
    for source in ("hamer", "wilor"):
        p = read_any(folder, source=source, mano_dir=mano)
        assert p.side.tolist() == ["right", "left", "right"]
        assert p.frame_id.tolist() == ["a", "a", "b"]
        np.testing.assert_allclose(vertices_of(p, mano), surfaces, atol=2e-3)
    one = read_any(folder / "a_1.obj", mano_dir=mano, image_size=(640, 480), camera=TRUE)
    assert one.side.tolist() == ["left"]
    assert one.metric_depth.all()
    assert 0.5 < one.transl[0, 2] < 1


def test_the_lines_in_the_docs_save_what_is_read(tmp_path):
    """The documentation's lines for demo.py, run on the variables it has there; the folder of its results is read."""
    content = with_keypoints(hands(3, place=(0.1, 0.05, 14.0)), "crop")
    page = (Path(__file__).parents[1] / "docs/formats.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "pred_mano_params" in block)
    known = {name: torch.from_numpy(np.asarray(value)) for name, value in content.items() if name != "imgname"}
    out = {name: known[name] for name in ("pred_keypoints_2d", "pred_keypoints_3d")}
    out["pred_mano_params"] = {name: known[name] for name in ("global_orient", "hand_pose", "betas")}
    variables = {
        "np": np, "os": os, "Path": Path, "out": out, "batch": known, "img_path": Path("images/cup.jpg"),
        "args": SimpleNamespace(out_folder=str(tmp_path)), "scaled_focal_length": torch.tensor(ASSUMED),
        "pred_cam_t_full": content["pred_cam_t_full"],
    }  # fmt: skip
    exec(code, variables)
    demo_mesh(tmp_path / "cup_0.obj", hands(1).vertices[0], True)
    (item,) = find_inputs([tmp_path], "hamer")
    p = read_any(item.path, source="hamer", camera=TRUE, object_poses={"cup": np.eye(4)})
    same(p, read_any(saved(tmp_path / "b.npz", content), source="hamer", camera=TRUE))
    np.testing.assert_allclose(p.keypoints_2d, content["whole"], atol=0.5)
    assert np.isfinite(p.object_pose).all()


def test_vertices_serve_where_the_parameters_were_not_saved(tmp_path, mano, sample):
    local = sample.vertices - sample.transl[:, None]
    as_shown = np.where(RIGHT[:, None, None] > 0, local, local * FLIP_X)
    rest = {name: output(sample)[name] for name in ("right", "pred_cam_t_full", "img_size")}
    for name, surface in (("verts", as_shown), ("pred_vertices", local)):
        p = read_any(saved(tmp_path / "a.npz", rest | {name: surface}), source="hamer", mano_dir=mano)
        np.testing.assert_allclose(vertices_of(p, mano), shown(sample), atol=2e-3)


def test_meshes_without_mano_say_what_is_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("MANO_DIR", str(tmp_path))
    demo_mesh(tmp_path / "a_0.obj", hands(1).vertices[0], True)
    with pytest.raises(MissingManoError, match="pred_mano_params"):
        read_any(tmp_path / "a_0.obj", source="hamer", mano_dir=tmp_path)


# The command ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Predictions]:
    """Two hands at a box, seen by `TRUE`, as HaMeR sees them: where they are is true but for the focal length."""
    folder = tmp_path_factory.mktemp("scene")
    (folder / "meshes").mkdir()
    trimesh.creation.box((0.06, 0.06, 0.06)).export(folder / "meshes" / "mug.ply")
    place = np.eye(4)
    place[:3, 3] = 0.05, -0.04, 0.7
    (folder / "poses.json").write_text(json.dumps({"a.jpg": place.tolist()}))
    model = load_open_hand()
    wrist = place[:3, 3] - model.joints(HandPose.zeros(1)).mean(1)[0].numpy() + [0.0, -0.045, 0.03]
    pixel = TRUE @ wrist
    depth = wrist[2] * ASSUMED / np.sqrt(610 * 605)
    cam = np.append((pixel[:2] / pixel[2] - SIZE / 2) * depth / ASSUMED, depth)
    content = {
        "global_orient": np.tile(np.eye(3), (2, 1, 1, 1)),
        "hand_pose": np.tile(np.eye(3), (2, 15, 1, 1)),
        "betas": np.zeros((2, 10)),
        "pred_cam_t_full": np.stack([cam, cam]),
        "right": np.array([1.0, 0.0]),
        "img_size": np.tile(SIZE, (2, 1)),
        "imgname": np.array(["a.jpg"] * 2),
    }
    np.savez(folder / "hamer.npz", **content)
    return folder, read_any(folder / "hamer.npz", camera=TRUE, source="hamer")


def arguments(folder: Path, out: Path) -> list[str]:
    objects = ["--objects", str(folder / "meshes"), "--object-id", "mug", "--object-poses", str(folder / "poses.json")]
    return ["refine", str(folder / "hamer.npz"), "--from", "hamer", *objects, "--out", str(out)]


def test_two_hands_of_hamer_go_through_in_one_command(scene, tmp_path):
    folder, wanted = scene
    camera = ",".join(map(str, (610.0, 605.0, 331, 236)))
    assert cli.main([*arguments(folder, tmp_path), "--camera", camera]) == 0
    p = read_predictions(tmp_path / "hamer.refined.npz")
    assert p.side.tolist() == ["right", "left"]
    assert "failed" not in p.status.tolist(), p.reason
    np.testing.assert_allclose(p.cam_K[0], TRUE, rtol=1e-6)
    assert np.linalg.norm(p.transl - wanted.transl, axis=1).max() < 0.1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--camera", "1,2"], "--camera"),
        (["--camera", "nowhere.json"], "--camera.*nowhere"),
        (["--focal", "-3"], "--focal"),
        (["--focal", "600", "--camera", "600,600,320,240"], "--focal"),
        (["--input-error", "large"], "--input-error.*tracker"),
        (["--object-poses", "nowhere.json"], "--object-poses"),
    ],
)
def test_the_command_names_the_option(scene, tmp_path, capsys, more, message):
    folder, _ = scene
    assert cli.main([*arguments(folder, tmp_path), *more]) == 2
    assert re.search(message, capsys.readouterr().err)
