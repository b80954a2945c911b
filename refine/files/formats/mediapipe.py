"""MediaPipe hand landmarks: scale from the bones, place from the image, pose by inverse kinematics.

Sources of truth: MediaPipe's documentation of the Hand Landmarker, ``HandLandmarkerResult`` (tasks, Python and
JavaScript) and ``mp.solutions.hands`` (legacy): 21 landmarks; image landmarks x and y are fractions of width and
height; world landmarks are metres about the hand's geometric centre, with x to the right, y down and z away from the
camera. Handedness: the tasks name the subject's hand when the image is not mirrored; the legacy solution assumes a
mirrored (selfie) image, so that its label of a plain image is the other hand.

Reads .json in any of the forms these results take when they are saved: one result or a list of them (one for each
frame), with ``landmarks / worldLandmarks / handedness`` (JavaScript), ``hand_landmarks / hand_world_landmarks /
handedness`` (Python) or ``multi_hand_landmarks / multi_hand_world_landmarks / multi_handedness`` (legacy, also in
camel case); or with ``hands``, a record of landmarks, world landmarks and handedness for each; or with those of one
hand, not in lists. A landmark is ``{"x":, "y":, "z":}`` or three numbers; a hand may be wrapped in
``{"landmark": [...]}``. ``frame_id`` may stand beside them.

World landmarks are a guess of an average hand: they are scaled so that the palm's and fingers' bones are as long as
those of the hand model in the median, and moved to where they project onto the image landmarks (least squares,
pinhole camera). The distance is therefore as good as the guess of the hand's size, and of the focal length where
nobody gives it: `metric_depth` is false then. Rows are off as image estimators are, ``input_error="camera"``.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from hand_models import HandPose, fit_joints, load_hand_model, skeleton

from ..predictions import Predictions
from .cameras import true_camera
from .columns import UNKNOWN_POSE, by_side, pose_columns, stacked
from .files import filled, json_names, named, numbers, read_tree, table_of
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
    camera: Numbers = None,
    side: Side | None = None,
    mirrored: bool | None = None,
    object_id: str = "",
    mano_dir: str | Path | None = None,
) -> Predictions:
    """Read landmarks and give each hand a pose.

    Args:
        image_size: width and height, pixels; where the file does not say, as ``image_size`` or ``width`` and
            ``height``.
        focal: focal length, pixels; 1.0 times the longer side when None.
        camera: true intrinsics, see `cameras.intrinsics`, instead of ``focal``.
        side: of all hands, instead of the file's handedness.
        mirrored: whether handedness assumes a mirrored image and is to be swapped; None: by the form of the file.
        object_id: name of the object.
        mano_dir: fit the user's MANO; None: the open hand.
    """
    known, focal = true_camera(camera, focal)
    tree, shared, rows = read_tree(path), {}, []
    if isinstance(tree, dict) and isinstance(tree.get("frames"), list):
        shared = {name: tree[name] for name in ("image_size", "width", "height") if name in tree}
        tree = tree["frames"]
    for index, frame in enumerate(table_of(tree, "a result of the hand landmarker")):
        try:
            rows += _hands(index, shared | frame, image_size, focal, known, side, mirrored)
        except ValueError as error:
            raise ValueError(f"{path}: frame {index}: {error}") from None
    model = load_hand_model("open" if mano_dir is None else "mano", mano_dir=mano_dir)
    if not rows:
        return Predictions.from_columns({"object_id": [], "side": [], "keypoints_3d": np.zeros((0, 21, 3))})
    columns = stacked(rows)
    world, image = columns.pop("world"), columns["keypoints_2d"]
    points = world * _scale(world, model)[:, None, None]
    points = points + _place(points, image, columns["cam_K"])[:, None]
    parts = []
    for hand, of in by_side(columns["side"], hand_sized(points)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # rows that cannot be fitted stay NaN and say so
            parts.append((of, fit_joints(points[of], model, side=hand).as_arrays()))
    columns |= pose_columns(len(rows), parts) | {"keypoints_3d": points, "object_pose": UNKNOWN_POSE}
    labels = {"object_id": object_id, "hand_model": model.name, "input_error": "camera"}
    true = focal is not None or camera is not None
    return Predictions.from_columns(columns | labels | {"metric_depth": true})


# The file -------------------------------------------------------------------------------------------


def _hands(
    index: int,
    frame: dict[str, Any],
    given_size: Any,
    focal: float | None,
    camera: np.ndarray | None,
    side: str | None,
    mirrored: bool | None,
) -> list[dict[str, Any]]:
    """The hands of a frame: columns, and the landmarks ``world (21, 3)``."""
    frame = _with_lists(frame)
    image, world = _points("landmarks", frame, _IMAGE), _points("world landmarks", frame, _WORLD)
    if len(image) != len(world):
        raise ValueError(f"{len(image)} hands in the image, {len(world)} in the world.")
    if not len(image):
        return []
    size = _image_size(frame, given_size)
    length = focal or _FOCAL * size.max()
    guess = np.array([[length, 0, size[0] / 2], [0, length, size[1] / 2], [0, 0, 1]])
    shared = {
        "cam_K": guess if camera is None else camera,
        "image_size": size,
        "frame_id": str(frame.get("frame_id", index))[:1000],
        "frame_index": index,
    }
    return [
        {"side": label, "confidence": score, "keypoints_2d": image[k, :, :2] * size, "world": world[k], **shared}
        for k, (label, score) in enumerate(_labels(frame, len(image), side, mirrored))
    ]


def _with_lists(frame: dict[str, Any]) -> dict[str, Any]:
    """A frame with its hands as lists, where it has them as ``hands``, one record each, or one hand without a list."""
    if isinstance(frame.get("hands"), list):
        records = table_of(frame["hands"], "the hands of a frame")
        listed: dict[str, Any] = {name: value for name, value in frame.items() if name != "hands"}
        for names in (_IMAGE, _WORLD, _SIDES):
            found = [record.get(named(record, names) or "") for record in records]
            if all(value is not None for value in found):  # what is missing, others say
                listed[names[0]] = found
        if all("score" in record for record in records) and _SIDES[0] in listed:
            listed[_SIDES[0]] = [
                {"label": side, "score": record["score"]} if isinstance(side, str) else side
                for side, record in zip(listed[_SIDES[0]], records, strict=True)
            ]
        return listed
    listed = dict(frame)
    for names in (_IMAGE, _WORLD):
        name = named(frame, names)
        if name and isinstance(frame[name], list) and len(frame[name]) == 21 and _is_landmark(frame[name][0]):
            listed[name] = [frame[name]]
    name = named(frame, _SIDES)
    if name and isinstance(frame[name], str | dict):
        listed[name] = [frame[name]]
    return listed


def _is_landmark(item: Any) -> bool:
    return {"x", "y"} <= set(item) if isinstance(item, dict) else isinstance(item, list) and len(item) == 3


def _points(what: str, frame: dict[str, Any], names: tuple[str, ...]) -> np.ndarray:
    """``(H, 21, 3)`` landmarks of the hands of a frame."""
    name = named(frame, names)
    if name is None:
        raise ValueError(f"{what}: missing; expected one of {', '.join(names)}.")
    hands = frame[name] or []
    if not isinstance(hands, list):
        raise ValueError(f"{what}: expected a list of hands.")
    points = []
    for hand in hands:
        marks = hand.get("landmark", hand.get("landmarks")) if isinstance(hand, dict) else hand
        if not isinstance(marks, list) or len(marks) != 21:
            raise ValueError(f"{what}: expected 21 landmarks.")
        cells = [[p.get(axis) for axis in "xyz"] if isinstance(p, dict) else p for p in marks]
        points.append(numbers(what, filled(cells), 21, 3))
    return np.array(points).reshape(-1, 21, 3)


def _image_size(frame: dict[str, Any], given: Any) -> np.ndarray:
    value = frame.get("image_size", [frame.get("width"), frame.get("height")]) if given is None else given
    if value == [None, None]:
        raise ValueError("the size of the image is unknown; give image_size (width, height).")
    size = numbers("image_size", value, 2)
    if not ((size >= 1).all() and (size < 1e6).all()):
        raise ValueError(f"image_size {size.tolist()} is not a width and a height in pixels.")
    return size.astype(np.int64)


def _labels(frame: dict[str, Any], count: int, side: str | None, mirrored: bool | None) -> list[tuple[str, float]]:
    """Side and score of each hand."""
    name = named(frame, _SIDES)
    if name is None and side is not None:
        return [(side, np.nan)] * count
    found = frame[name] if name else None
    if not isinstance(found, list) or len(found) != count:
        raise ValueError(f"handedness is missing or not of {count} hands; give side.")
    swap = named(frame, _LEGACY) is not None if mirrored is None else mirrored
    labels = []
    for item in found:
        label, score = _handedness(item)
        if side is None and label not in ("left", "right"):
            raise ValueError(f"handedness {label[:20]!r} is neither Left nor Right; give side.")
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
    label, score = next((item[name] for name in names if item.get(name)), None), item.get("score")
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
    focal = np.stack([cameras[:, 0, 0], cameras[:, 1, 1]], 1)
    ray = (image - cameras[:, None, :2, 2]) / focal[:, None]
    known = ray * points[..., 2:] - points[..., :2]
    system = np.concatenate([np.broadcast_to(np.eye(2), (*ray.shape, 2)), -ray[..., None]], -1)
    places = np.full((len(points), 3), np.nan)
    fine = np.isfinite(known).all((1, 2))
    inverse = np.linalg.pinv(system[fine].reshape(-1, 42, 3))
    places[fine] = (inverse @ known[fine].reshape(-1, 42, 1))[..., 0]
    before = (places[:, 2] > 0) & (places[:, 2] < _MOST_FAR)
    return np.where(before[:, None], places, np.nan)


def sniff(path: Path) -> bool:
    """A .json that names world landmarks or MediaPipe's lists of hands."""
    return json_names(path, (*_WORLD, *_IMAGE[1:]))


FORMAT = Format("mediapipe", read, None, sniff, "MediaPipe hand landmarks (.json), with world landmarks")
