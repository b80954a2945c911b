"""Plain keypoints and MediaPipe landmarks: 21 points of each hand, from which poses are fitted."""

from __future__ import annotations

import json
import pickle
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from format_files import text

from hand_models import Hand, HandPose, load_open_hand, skeleton
from hand_models.anatomy import default_anatomy
from refine.files.formats import get_format, read_any, sniff, write_with
from refine.files.prediction_poses import hand_poses
from refine.files.predictions import Predictions, row_problems

PLACE = torch.tensor([0.03, -0.02, 0.6])


@pytest.fixture(scope="module")
def poses() -> HandPose:
    """Three right hands of mean shape and anatomically possible pose before the camera."""
    g = torch.Generator().manual_seed(3)
    mean = default_anatomy().mean.float().reshape(1, 15, 3)
    orient = torch.randn(3, 3, generator=g)
    bend = mean + torch.randn(3, 15, 3, generator=g) * torch.tensor([0.03, 0.03, 0.15])
    return HandPose("right", orient, bend, torch.zeros(3, 10), PLACE + 0.05 * torch.randn(3, 3, generator=g))


@pytest.fixture(scope="module")
def joints(poses) -> np.ndarray:
    return load_open_hand()(poses).joints.numpy()


def near(fitted: Hand, given: Hand) -> None:
    """Joints are met; the surface as well as joints alone determine it, girth being open."""
    assert (fitted.joints - given.joints).norm(dim=-1).mean() < 1.5e-3
    assert (fitted.vertices - given.vertices).norm(dim=-1).mean() < 8e-3


# Keypoints ------------------------------------------------------------------------------------------


def header(names: list[str]) -> str:
    return ",".join(names)


def line(points: np.ndarray, *labels: str) -> str:
    return ",".join([*labels, *(repr(float(v)) for v in points.ravel())])


def test_csv_with_a_header_in_millimetres_and_another_order(tmp_path, joints):
    given = skeleton.convert(joints, source="openpose", target="fhab") * 1000
    names = ["frame_id", "object_id", "side", *(f"{axis}{k}" for k in range(21) for axis in "xyz")]
    rows = [line(given[k], f"f{k}", "mug", "right") for k in range(3)]
    path = text(tmp_path / "joints.csv", "\ufeff" + header(names) + "\r\n" + "\r\n".join(rows) + "\r\n\r\n")
    assert sniff(path) == "keypoints"
    p = read_any(path, order="fhab", unit="mm", object_pose=np.eye(4))
    np.testing.assert_allclose(p.keypoints_3d, joints, atol=1e-6)
    assert p.frame_id.tolist() == ["f0", "f1", "f2"]
    assert row_problems(p) == {}


def test_named_columns_may_be_in_any_order(tmp_path, joints):
    names = [f"{joint}_{axis}" for joint in skeleton.JOINT_NAMES for axis in "xyz"]
    order = np.random.default_rng(0).permutation(63)
    rows = [line(joints[k].ravel()[order]) for k in range(3)]
    path = text(tmp_path / "a.csv", "\n".join([header([names[k] for k in order]), *rows]))
    np.testing.assert_allclose(read_any(path).keypoints_3d, joints, atol=1e-6)


def test_confidence_of_a_csv_may_have_gaps(tmp_path, joints):
    names = ["frame_index", "confidence", *(f"x{k}" for k in range(63))]
    rows = [line(joints[k], str(k + 7), score) for k, score in enumerate(("0.5", "", "1e-2"))]
    p = read_any(text(tmp_path / "a.csv", "\n".join([header(names), *rows])))
    np.testing.assert_allclose(p.confidence, [0.5, np.nan, 0.01], rtol=1e-6)
    assert p.frame_index.tolist() == [7, 8, 9]


def test_csv_without_a_header_needs_its_format_named(tmp_path, joints):
    path = text(tmp_path / "a.csv", "\n".join(line(j) for j in joints))
    np.testing.assert_allclose(read_any(path, source="keypoints").keypoints_3d, joints, atol=1e-6)
    path = text(tmp_path / "b.csv", "\n".join(line(j, f"n{k}") for k, j in enumerate(joints)))
    assert read_any(path, source="keypoints").frame_id.tolist() == ["n0", "n1", "n2"]


def json_forms(joints: np.ndarray) -> list[Any]:
    array = joints.tolist()
    return [
        array,
        [{"keypoints": points, "frame_id": f"{k}"} for k, points in enumerate(array)],
        {"joints": array, "side": "right", "unit": "m"},
        {"xyz": (joints * 1000).tolist(), "unit": "mm", "object_id": ["a", "b", "c"]},
        {"keypoints_3d": skeleton.convert(joints, source="openpose", target="smplx").tolist(), "order": "smplx"},
    ]


@pytest.mark.parametrize("form", range(5))
def test_json(tmp_path, joints, form):
    path = text(tmp_path / "a.json", json.dumps(json_forms(joints)[form]))
    assert sniff(path) == "keypoints"
    np.testing.assert_allclose(read_any(path).keypoints_3d, joints, atol=1e-6)


def test_npy_and_opengl(tmp_path, joints):
    np.save(tmp_path / "a.npy", joints * [1, -1, -1])
    assert sniff(tmp_path / "a.npy") == "keypoints"
    p = read_any(tmp_path / "a.npy", axes="opengl", side="left")
    np.testing.assert_allclose(p.keypoints_3d, joints, atol=1e-7)
    assert p.side.tolist() == ["left"] * 3
    np.save(tmp_path / "one.npy", joints[0])
    assert len(read_any(tmp_path / "one.npy")) == 1


def pickled_joints(joints: np.ndarray) -> dict[str, Any]:
    return {
        "a list with frames without a hand": [joints[0], None, joints[1]],
        "a list of lists": [joints[0].tolist(), [], joints[1].tolist()],
        "by frame": {0: joints[0], 2: joints[1]},
        "records": [{"joint_pos": joints[0], "frame_index": 0}, {"joint_pos": joints[1], "frame_index": 2}],
        "beside a description": {"meta_data": {"fps": 30}, "data": [joints[0], None, joints[1]]},
        "under a name": {"joints": [joints[0], None, joints[1]]},
        "by side": {"right": [joints[0], None, joints[1]]},
        "an array": {"keypoints_3d": joints[:2], "frame_index": np.array([0, 2])},
    }


@pytest.mark.parametrize("name", list(pickled_joints(np.zeros((2, 21, 3)))))
def test_joints_as_people_pickle_them(tmp_path, joints, name):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(pickled_joints(joints)[name]))
    p = read_any(tmp_path / "a.pkl", source="keypoints")
    np.testing.assert_allclose(p.keypoints_3d, joints[:2], atol=1e-7)
    assert p.frame_index.tolist() == [0, 2]
    assert set(p.side) == {"right"}
    if name == "an array":
        np.savez(tmp_path / "a.npz", **pickled_joints(joints)[name])
        assert sniff(tmp_path / "a.npz") == "keypoints"
        np.testing.assert_allclose(read_any(tmp_path / "a.npz").keypoints_3d, joints[:2], atol=1e-7)


def test_a_damaged_hand_among_joints_fails_alone(tmp_path, joints):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([joints[0], joints[1][:20], joints[2]]))
    with pytest.warns(UserWarning, match=r"1 of 3 hands .* item 1: points has shape \(20, 3\)"):
        p = read_any(tmp_path / "a.pkl", source="keypoints", object_id="cup", object_pose=np.eye(4))
    assert list(row_problems(p)) == [1]
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"qpos": [1.0] * 22}))
    with pytest.raises(ValueError, match="21 joints, such as 'keypoints'; it has qpos"):
        read_any(tmp_path / "b.pkl", source="keypoints")


def test_a_folder_of_joints(tmp_path, joints):
    folder, poses = tmp_path / "hand_pose", tmp_path / "object_pose"
    folder.mkdir()
    poses.mkdir()
    for k, points in zip((2, 9, 10), joints, strict=True):
        np.save(folder / f"joints_{k}.npy", points)
        np.save(folder / f"global_{k}.npy", np.zeros((16, 4, 4)))
        np.save(poses / f"{k}.npy", np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3) * k)
    assert sniff(folder) == "keypoints"
    p = read_any(folder, object_poses=poses)
    assert p.frame_index.tolist() == [2, 9, 10]
    assert p.object_pose[:, 0, 3].tolist() == [2, 9, 10]
    np.testing.assert_allclose(p.keypoints_3d, joints, atol=1e-7)


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_out_and_in_again_through_the_surface(tmp_path, poses, joints, suffix):
    model = load_open_hand()
    p = Predictions.from_columns(
        poses.as_arrays() | {"side": ["right"] * 3, "object_id": ['a,"b"', "b", ""], "hand_model": "open"}
    )
    out = write_with(get_format("keypoints"), tmp_path / f"a{suffix}", p, unit="mm")
    back = read_any(out, unit="mm")
    np.testing.assert_allclose(back.keypoints_3d, joints, atol=2e-6)
    assert back.object_id.tolist() == p.object_id.tolist()
    near(model(hand_poses(back, slice(None), model)), model(poses))


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a,b\n1,2\n", {}, "line 1: 2 columns"),
        (",".join(f"x{k}" for k in range(63)) + "\n" + "1," * 61 + "1\n", {}, "line 2 has 62 cells"),
        (",".join(f"x{k}" for k in range(63)) + "\n" + "1," * 62 + "one\n", {}, "line 2: 'one' is not a number"),
        ("1," * 62 + "1\n", {"order": "mano16"}, "no fingertips"),
        ("1," * 62 + "1\n", {"unit": "inch"}, "unit"),
        ("1," * 62 + "1\n", {"axes": "maya"}, "axes"),
    ],
)
def test_faults_are_named(tmp_path, content, options, message):
    with pytest.raises(ValueError, match=message):
        read_any(text(tmp_path / "a.csv", content), source="keypoints", **options)


# MediaPipe ------------------------------------------------------------------------------------------

SIZE, FOCAL = (640, 480), 600.0


def results(joints: np.ndarray, scale: float = 0.85) -> list[dict[str, Any]]:
    """What the landmarker says: metres about the hand's centre for a hand of another size; fractions of the image."""
    out = []
    for points in joints:
        pixels = points[:, :2] / points[:, 2:] * FOCAL + np.array(SIZE) / 2
        image = np.c_[pixels / SIZE, np.zeros(21)]
        world = (points - points.mean(0)) * scale
        out.append({"image": image, "world": world})
    return out


def landmarks(points: np.ndarray) -> list[dict[str, float]]:
    return [dict(zip("xyz", map(float, p), strict=True)) for p in points]


def mediapipe_forms(joints: np.ndarray) -> dict[str, Any]:
    r = results(joints)
    return {
        "javascript": [
            {"landmarks": [landmarks(f["image"])], "worldLandmarks": [landmarks(f["world"])],
             "handedness": [[{"categoryName": "Right", "score": 0.9, "index": 0, "displayName": "Right"}]]}
            for f in r
        ],
        "python": [
            {"hand_landmarks": [f["image"].tolist()], "hand_world_landmarks": [f["world"].tolist()],
             "handedness": [[{"category_name": "Right", "score": 0.9}]], "frame_id": f"n{k}"}
            for k, f in enumerate(r)
        ],
        "legacy": {"width": 640, "height": 480, "frames": [
            {"multi_hand_landmarks": [{"landmark": landmarks(f["image"])}],
             "multi_hand_world_landmarks": [{"landmark": landmarks(f["world"])}],
             "multi_handedness": [{"classification": [{"label": "Left", "score": 0.9, "index": 0}]}]}
            for f in r
        ]},
    }  # fmt: skip


@pytest.mark.parametrize("form", ["javascript", "python", "legacy"])
def test_scale_place_and_pose_come_back(tmp_path, poses, joints, form):
    path = text(tmp_path / "hands.json", json.dumps(mediapipe_forms(joints)[form]))
    assert sniff(path) == "mediapipe"
    p = read_any(path, image_size=SIZE, focal=FOCAL, object_id="mug", object_pose=np.eye(4))
    np.testing.assert_allclose(p.keypoints_3d, joints, atol=1e-4)
    assert p.side.tolist() == ["right"] * 3
    assert p.hand_model.tolist() == ["open"] * 3
    np.testing.assert_allclose(p.confidence, 0.9)
    assert p.metric_depth.all()
    assert p.input_error.tolist() == ["camera"] * 3
    assert not read_any(path, image_size=SIZE).metric_depth.any()
    assert row_problems(p) == {}
    model = load_open_hand()
    near(model(hand_poses(p, slice(None), model)), model(poses))


def test_hands_as_records_or_alone(tmp_path, joints):
    wanted = read_any(
        text(tmp_path / "a.json", json.dumps(mediapipe_forms(joints)["javascript"])), image_size=SIZE, focal=FOCAL
    )
    alone = [
        {"landmarks": landmarks(f["image"]), "worldLandmarks": landmarks(f["world"]), "handedness": "Right"}
        for f in results(joints)
    ]
    records = [{"hands": [hand | {"score": 0.5}]} for hand in alone]
    for form in (alone, records):
        p = read_any(text(tmp_path / "b.json", json.dumps(form)), source="mediapipe", image_size=SIZE, focal=FOCAL)
        assert p.side.tolist() == wanted.side.tolist()
        np.testing.assert_allclose(p.transl, wanted.transl, atol=1e-6)
    np.testing.assert_allclose(p.confidence, 0.5)
    del records[0]["hands"][0]["handedness"]
    with pytest.warns(UserWarning, match="1 of 3 frames .* frame 0: handedness"):
        p = read_any(text(tmp_path / "c.json", json.dumps(records)), source="mediapipe", image_size=SIZE)
    assert p.frame_index.tolist() == [0, 1, 2]
    assert 0 in row_problems(p)


def test_the_true_camera_places_hands(tmp_path, joints):
    path = text(tmp_path / "a.json", json.dumps(mediapipe_forms(joints)["javascript"]))
    camera = np.array([[FOCAL, 0, SIZE[0] / 2], [0, FOCAL, SIZE[1] / 2], [0, 0, 1]])
    p = read_any(path, image_size=SIZE, camera=camera)
    np.testing.assert_allclose(p.keypoints_3d, joints, atol=1e-4)
    shifted = read_any(path, image_size=SIZE, camera=camera + np.outer([30, 0, 0], [0, 0, 1]))
    seen = (shifted.keypoints_3d @ shifted.cam_K.transpose(0, 2, 1)).mean(1)
    # Moved aside, a hand is seen from another side: the middle of the picture stays within a few pixels.
    np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], p.keypoints_2d.mean(1), atol=3)


def test_left_hands_and_empty_frames(tmp_path, joints):
    mirror = joints * [-1, 1, 1]
    frames = mediapipe_forms(mirror)["javascript"]
    for frame in frames:
        frame["handedness"][0][0]["categoryName"] = "Left"
    frames.insert(1, {"landmarks": [], "worldLandmarks": [], "handedness": []})
    path = text(tmp_path / "hands.json", json.dumps(frames))
    p = read_any(path, image_size=SIZE, focal=FOCAL)
    assert p.side.tolist() == ["left"] * 3
    assert p.frame_index.tolist() == [0, 2, 3]
    np.testing.assert_allclose(p.keypoints_3d, mirror, atol=1e-4)
    assert read_any(path, image_size=SIZE, mirrored=True).side.tolist() == ["right"] * 3


def more_forms(joints: np.ndarray) -> dict[str, Any]:
    """Two frames, each with the first hand, as right hands; the middle one of three without a hand."""
    r = results(joints[[0, 0]])
    hand = [
        {"landmarks": landmarks(f["image"]), "worldLandmarks": landmarks(f["world"]), "handedness": "Right"} for f in r
    ]
    image, world = (np.stack([f[k] for f in r]) for k in ("image", "world"))
    nothing = np.full((1, 21, 3), np.nan)
    legacy = {"rightHandLandmarks": landmarks(image[0]), "leftHandLandmarks": None, "faceLandmarks": [{"x": 0.0}]}
    tasks = {
        "right_hand_landmarks": [landmarks(image[0])], "right_hand_world_landmarks": [landmarks(world[0])],
        "left_hand_landmarks": [], "left_hand_world_landmarks": [], "pose_landmarks": [],
    }  # fmt: skip
    return {
        "lists of lists": [[hand[0]], [], [hand[1]]],
        "None": [hand[0], None, hand[1]],
        "by frame": {"0": [hand[0]], "1": [], "2": [hand[1]]},
        "by side": [{"Right": hand[0]}, {}, {"right": hand[1], "left": None}],
        "holistic tasks": [tasks, {}, tasks],
        "holistic legacy": [legacy, {}, legacy],
        "label": [{"label" if k == "handedness" else k: v for k, v in h.items()} for h in (hand[0], {}, hand[1])],
        "image alone": [{k: v for k, v in h.items() if k != "worldLandmarks"} for h in (hand[0], {}, hand[1])],
        "arrays": {
            "hand_landmarks": np.stack([image[0], nothing[0], image[1]]), "handedness": "Right",
            "hand_world_landmarks": np.stack([world[0], nothing[0], world[1]]),
        },
        "arrays of two hands": {
            "landmarks": np.stack([np.stack([i, nothing[0]]) for i in (image[0], nothing[0], image[1])]),
            "world_landmarks": np.stack([np.stack([i, nothing[0]]) for i in (world[0], nothing[0], world[1])]),
            "handedness": np.array([["Right", "Left"]] * 3),
        },
    }  # fmt: skip


@pytest.mark.parametrize("name", list(more_forms(np.ones((1, 21, 3)))))
def test_more_forms_of_mediapipe(tmp_path, joints, name):
    form = more_forms(joints)[name]
    if "arrays" in name:
        np.savez(path := tmp_path / "hands.npz", **form)
    elif name == "lists of lists":
        (path := tmp_path / "hands.pkl").write_bytes(pickle.dumps(form))
    else:
        path = text(tmp_path / "hands.json", json.dumps(form))
    coarse = name in ("holistic legacy", "image alone")
    with pytest.warns(UserWarning, match="no world landmarks") if coarse else nullcontext():
        p = read_any(path, source="mediapipe", image_size=SIZE, focal=FOCAL, object_poses={0: np.eye(4), 2: np.eye(4)})
    assert p.side.tolist() == ["right"] * 2
    assert p.frame_index.tolist() == [0, 2]
    assert p.frame_id.tolist() == ["0", "2"]
    assert np.isfinite(p.object_pose).all()
    if coarse:  # flat, as the landmarks are here, and so at the place of the hand but not in its pose
        assert np.linalg.norm(p.keypoints_3d.mean(1) - joints[0].mean(0), axis=-1).max() < 0.15
    else:
        np.testing.assert_allclose(p.keypoints_3d, joints[[0, 0]], atol=1e-4)


def change(frames: list[dict[str, Any]], **fields: Any) -> list[dict[str, Any]]:
    return [frames[0] | fields]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"worldLandmarks": []}, "1 hands in the image, 0 in the world"),
        ({"worldLandmarks": [[{"x": 1}]]}, "expected 21 landmarks"),
        ({"worldLandmarks": [[1] * 21]}, "landmark"),
        ({"handedness": [[{"categoryName": "Both"}]]}, "neither Left nor Right"),
        ({"handedness": None}, "handedness"),
    ],
)
def test_faults_name_the_frame(tmp_path, joints, fields, message):
    content = change(mediapipe_forms(joints)["javascript"], **fields)
    path = text(tmp_path / "hands.json", json.dumps(content))
    with pytest.raises(ValueError, match=f"frame 0.*{message}"):
        read_any(path, source="mediapipe", image_size=SIZE)
    with pytest.raises(ValueError, match="image_size"):
        read_any(text(tmp_path / "b.json", json.dumps(mediapipe_forms(joints)["javascript"])))


def test_a_hand_that_cannot_be_placed_is_a_row_without_a_pose(tmp_path, joints: np.ndarray):
    frames = mediapipe_forms(joints)["javascript"]
    frames[1]["worldLandmarks"][0] = landmarks(np.zeros((21, 3)))
    path: Path = text(tmp_path / "hands.json", json.dumps(frames))
    p = read_any(path, image_size=SIZE, focal=FOCAL, object_id="mug", object_pose=np.eye(4))
    assert list(row_problems(p)) == [1]
