"""MediaPipe hand landmarks: scale from the bones, place from the image, pose by inverse kinematics.

Sources of truth: MediaPipe's documentation of the Hand Landmarker, ``HandLandmarkerResult`` (tasks, Python and
JavaScript) and ``mp.solutions.hands`` (legacy): 21 landmarks; image landmarks x and y are fractions of width and
height; world landmarks are metres about the hand's geometric centre, with x to the right, y down and z away from the
camera. Handedness: the tasks name the subject's hand when the image is not mirrored; the legacy solution assumes a
mirrored (selfie) image, so that its label of a plain image is the other hand.

Reads .json in any of the forms these results take when they are saved: one result or a list of them (one for each
frame), with ``landmarks / worldLandmarks / handedness`` (JavaScript), ``hand_landmarks / hand_world_landmarks /
handedness`` (Python) or ``multi_hand_landmarks / multi_hand_world_landmarks / multi_handedness`` (legacy, also in
camel case). A landmark is ``{"x":, "y":, "z":}`` or three numbers; a hand may be wrapped in ``{"landmark": [...]}``.
``frame_id`` may stand beside them.

World landmarks are a guess of an average hand: they are scaled so that the palm's and fingers' bones are as long as
those of the hand model in the median, and moved to where they project onto the image landmarks (least squares,
pinhole camera). The distance is therefore as good as the guess of the hand's size and of ``focal``: `metric_depth` is
false.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from hand_models import HandPose, fit_joints, load_hand_model, skeleton

from ..predictions import Predictions
from .columns import Columns, pose_columns, stacked
from .files import json_names, numbers, read_tree, rigid
from .format import Format, Numbers, Side
from .hands import hand_sized

_IMAGE = ("landmarks", "hand_landmarks", "multi_hand_landmarks", "multiHandLandmarks", "handLandmarks")
_WORLD = (
    "worldLandmarks", "hand_world_landmarks", "multi_hand_world_landmarks", "multiHandWorldLandmarks",
    "world_landmarks",
)  # fmt: skip
_SIDES = ("handedness", "handednesses", "multi_handedness", "multiHandedness")
_LEGACY = ("multi_hand_landmarks", "multiHandLandmarks", "multi_handedness", "multiHandedness")
_FOCAL = 1.0  # of the longer side of the image, where none is given: a field of view of 53°
_MOST_FAR = 10.0  # metres; a fitted place further off is no place


def read(
    path: Path,
    *,
    image_size: tuple[int, int] | None = None,
    focal: float | None = None,
    side: Side | None = None,
    mirrored: bool | None = None,
    object_id: str = "",
    object_pose: Numbers = None,
    mano_dir: str | Path | None = None,
) -> Predictions:
    """Read landmarks and give each hand a pose.

    Args:
        path: .json, see above.
        image_size: width and height, pixels; where the file does not say, as ``image_size`` or ``width`` and
            ``height``.
        focal: focal length, pixels; 1.0 times the longer side when None.
        side: of all hands, instead of the file's handedness.
        mirrored: whether handedness assumes a mirrored image and is to be swapped; None: by the form of the file.
        object_id: name of the object.
        object_pose: object to camera, see `files.rigid`.
        mano_dir: fit the user's MANO; None: the open hand.

    Raises:
        MissingManoError: ``mano_dir`` holds no MANO.
        ValueError: no landmarks, or of another shape; names the frame.
    """
    frames = _frames(path, read_tree(path))
    if focal is not None and not 0 < focal < np.inf:
        raise ValueError(f"focal: got {focal}; give the focal length in pixels.")
    rows: list[dict[str, Any]] = []
    for index, frame in enumerate(frames):
        rows += _hands(path, index, frame, image_size, focal, side, mirrored)
    model = load_hand_model("open" if mano_dir is None else "mano", mano_dir=mano_dir)
    if not rows:
        return Predictions.from_columns({"object_id": [], "side": [], "keypoints_3d": np.zeros((0, 21, 3))})
    columns = stacked(rows)
    world, image = columns.pop("world"), columns["keypoints_2d"]
    points = world * _scale(world, model)[:, None, None]
    points = points + _place(points, image, columns["cam_K"])[:, None]
    columns |= {"keypoints_3d": points, **_poses(points, columns["side"], model)}
    columns |= {
        "object_id": np.full(len(rows), object_id),
        "object_pose": rigid(object_pose, len(rows)),
        "metric_depth": np.zeros(len(rows), bool),
        "hand_model": np.full(len(rows), model.name),
    }
    return Predictions.from_columns(columns)


# The file -------------------------------------------------------------------------------------------


def _frames(path: Path, tree: Any) -> list[dict[str, Any]]:
    if isinstance(tree, dict) and isinstance(tree.get("frames"), list):
        shared = {name: tree[name] for name in ("image_size", "width", "height") if name in tree}
        tree = [shared | frame if isinstance(frame, dict) else frame for frame in tree["frames"]]
    frames = tree if isinstance(tree, list) else [tree]
    if any(not isinstance(frame, dict) for frame in frames):
        raise ValueError(f"{path}: expected a result of the hand landmarker, or a list of them.")
    return frames


def _hands(
    path: Path, index: int, frame: dict[str, Any], image_size: Any, focal: float | None, side: str | None,
    mirrored: bool | None,
) -> list[dict[str, Any]]:  # fmt: skip
    where = f"frame {index}"
    image = _points(path, f"{where}, landmarks", frame, _IMAGE)
    world = _points(path, f"{where}, world landmarks", frame, _WORLD)
    if len(image) != len(world):
        raise ValueError(f"{path}: {where}: {len(image)} hands in the image, {len(world)} in the world.")
    if not len(image):
        return []
    size = _image_size(path, where, frame, image_size)
    labels = _labels(path, where, frame, len(image), side, mirrored)
    length = focal or _FOCAL * size.max()
    camera = np.array([[length, 0, size[0] / 2], [0, length, size[1] / 2], [0, 0, 1]])
    name = frame.get("frame_id", index)
    return [
        {
            "side": labels[k][0],
            "confidence": labels[k][1],
            "keypoints_2d": image[k, :, :2] * size,
            "world": world[k],
            "cam_K": camera,
            "image_size": size,
            "frame_id": str(name)[:1000],
            "frame_index": index,
        }
        for k in range(len(image))
    ]


def _points(path: Path, what: str, frame: dict[str, Any], names: tuple[str, ...]) -> np.ndarray:
    """``(H, 21, 3)`` landmarks of the hands of a frame."""
    found = [name for name in names if name in frame]
    if not found:
        raise ValueError(f"{path}: {what}: missing; expected one of {', '.join(names)}.")
    hands = frame[found[0]] or []
    if not isinstance(hands, list):
        raise ValueError(f"{path}: {what}: expected a list of hands.")
    arrays = [_hand(path, what, hand) for hand in hands]
    return np.array(arrays).reshape(-1, 21, 3)


def _hand(path: Path, what: str, hand: Any) -> np.ndarray:
    points = hand.get("landmark", hand.get("landmarks")) if isinstance(hand, dict) else hand
    if not isinstance(points, list) or len(points) != 21:
        raise ValueError(f"{path}: {what}: expected 21 landmarks.")
    cells = [[p.get(axis, np.nan) for axis in "xyz"] if isinstance(p, dict) else p for p in points]
    try:
        return numbers(path, what, [[np.nan if x is None else x for x in cell] for cell in cells], 21, 3)
    except TypeError:
        raise ValueError(f"{path}: {what}: a landmark is neither x, y, z nor three numbers.") from None


def _image_size(path: Path, where: str, frame: dict[str, Any], given: Any) -> np.ndarray:
    value = given
    if value is None:
        value = frame.get("image_size", [frame.get("width"), frame.get("height")])
    if value == [None, None]:
        raise ValueError(f"{path}: {where}: the size of the image is unknown; give image_size (width, height).")
    size = numbers(path, f"{where}, image_size", value, 2)
    if not (np.isfinite(size).all() and (size >= 1).all() and (size < 1e6).all()):
        raise ValueError(f"{path}: {where}: image_size {size.tolist()} is not a width and a height in pixels.")
    return size.astype(np.int64)


def _labels(
    path: Path, where: str, frame: dict[str, Any], count: int, side: str | None, mirrored: bool | None
) -> list[tuple[str, float]]:
    """Side and score of each hand."""
    found = next((frame[name] for name in _SIDES if name in frame), None)
    if found is None and side is not None:
        return [(side, np.nan)] * count
    if not isinstance(found, list) or len(found) != count:
        raise ValueError(f"{path}: {where}: handedness is missing or not of {count} hands; give side.")
    swap = any(name in frame for name in _LEGACY) if mirrored is None else mirrored
    labels = []
    for item in found:
        label, score = _handedness(item)
        if side is None and label not in ("left", "right"):
            raise ValueError(f"{path}: {where}: handedness {label[:20]!r} is neither Left nor Right; give side.")
        labels.append((side or ("right" if (label == "right") != swap else "left"), score))
    return labels


def _handedness(item: Any) -> tuple[str, float]:
    """Name, in lower case, and score of the likelier side, in whatever it is wrapped."""
    if isinstance(item, dict) and isinstance(item.get("classification"), list):
        item = item["classification"]
    if isinstance(item, list):
        item = item[0] if item else None
    if not isinstance(item, dict):
        return str(item).lower(), np.nan
    names = ("categoryName", "category_name", "label", "displayName", "display_name")
    label = next((item[name] for name in names if item.get(name)), None)
    score = item.get("score")
    return str(label).lower(), score if isinstance(score, float) else np.nan


# The hands ------------------------------------------------------------------------------------------


def _scale(world: np.ndarray, model: Any) -> np.ndarray:
    """``(N,)`` factor that makes the bones as long as the model's in the median."""
    pairs = np.array([pair for k, pair in enumerate(skeleton.bones()) if k % 4 < 3])  # tips lie differently
    rest = model(HandPose.zeros(1)).joints[0].double().numpy()
    wanted = np.linalg.norm(rest[pairs[:, 1]] - rest[pairs[:, 0]], axis=-1)
    got = np.linalg.norm(world[:, pairs[:, 1]] - world[:, pairs[:, 0]], axis=-1)
    with np.errstate(all="ignore"):
        factor = np.median(wanted / got, axis=1)
    return np.where(np.isfinite(factor) & (factor > 0.2) & (factor < 5), factor, np.nan)


def _place(points: np.ndarray, image: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """``(N, 3)`` translation that projects ``points (N, 21, 3)`` onto ``image (N, 21, 2)``: linear least squares.

    ``f (X + t) = (u - c) (Z + t_z)`` is linear in t. NaN where the hand would not stand before the camera.
    """
    places = np.full((len(points), 3), np.nan)
    for row, (x, uv, camera) in enumerate(zip(points, image, cameras, strict=True)):
        ray = (uv - camera[:2, 2]) / camera[0, 0]
        if not (np.isfinite(x).all() and np.isfinite(ray).all()):
            continue
        system = np.zeros((42, 3))
        system[:21, 0] = system[21:, 1] = 1
        system[:, 2] = -ray.T.ravel()
        known = (ray * x[:, 2:] - x[:, :2]).T.ravel()
        place = np.linalg.lstsq(system, known, rcond=None)[0]
        if 0 < place[2] < _MOST_FAR:
            places[row] = place
    return places


def _poses(points: np.ndarray, sides: np.ndarray, model: Any) -> Columns:
    """Pose columns fitted to ``points (N, 21, 3)``; NaN rows where there is nothing to fit."""
    usable, parts = hand_sized(points), []
    for side in ("right", "left"):
        rows = np.flatnonzero((sides == side) & usable)
        if len(rows):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # rows that cannot be fitted stay NaN and say so
                parts.append((rows, fit_joints(points[rows], model, side=side).as_arrays()))
    return pose_columns(len(points), parts)


def sniff(path: Path) -> bool:
    """A .json that names world landmarks or MediaPipe's lists of hands."""
    return json_names(path, (*_WORLD, *_IMAGE[1:]))


FORMAT = Format("mediapipe", read, None, sniff, "MediaPipe hand landmarks (.json), with world landmarks")
