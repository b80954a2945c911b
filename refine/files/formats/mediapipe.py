"""MediaPipe hand landmarks: scale from the bones, place from the image, pose by inverse kinematics.

Sources of truth: MediaPipe's documentation of the Hand Landmarker, ``HandLandmarkerResult`` (tasks, Python and
JavaScript) and ``mp.solutions.hands`` (legacy): 21 landmarks; image landmarks x and y are fractions of width and
height; world landmarks are metres about the hand's geometric centre, with x to the right, y down and z away from the
camera. Handedness: the tasks name the subject's hand when the image is not mirrored; the legacy solution assumes a
mirrored (selfie) image, so that its label of a plain image is the other hand.

Reads .json, .pkl, .npz and .npy in any of the forms of `mediapipe_forms`. ``frame_id`` or ``frame`` may stand beside
the landmarks, and ``image_size``, or ``width`` and ``height``, in frames or beside all of them.

World landmarks are a guess of an average hand: they are scaled so that the palm's and fingers' bones are as long as
those of the hand model in the median, and moved to where they project onto the image landmarks (least squares,
pinhole camera). Where they were not saved, the image landmarks take their place, whose depth is coarser, with a
warning. The distance is as good as the guess of the hand's size, and of the focal length where nobody gives it:
`metric_depth` is false then. Rows are off as image estimators are, ``input_error="camera"``.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from hand_models import HandPose, fit_joints, load_hand_model, skeleton

from ..predictions import Predictions
from .cameras import true_camera
from .columns import UNKNOWN_POSE, by_side, each, pose_columns, stacked
from .files import json_names, npz_names, read_tree
from .format import Format, Numbers, Side
from .hands import hand_sized
from .mediapipe_forms import HOLISTIC, IMAGE, WORLD, Frame, frames_in

_FOCAL = 1.0  # of the longer side of the image, where none is given: a field of view of 53°
_MOST_FAR = 10.0  # metres; a fitted place further off is no place
_PALM = 0.09  # metres from the wrist to the middle knuckle, where landmarks of the image stand for those of the world
_EMPTY = {"confidence": (), "keypoints_2d": (21, 2), "world": (21, 3), "cam_K": (3, 3)}


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
    frames = frames_in(read_tree(path), path.stem)
    found = each(
        frames, lambda frame: _hands(frame, image_size, focal, known, side, mirrored),
        lambda frame: [_labels(frame) | {"side": side or "right", "image_size": np.zeros(2, np.int64)}], "frames",
        lambda frame: f"frame {frame.number}",
    )  # fmt: skip
    rows = [hand for of_frame in found for hand in of_frame]
    model = load_hand_model("open" if mano_dir is None else "mano", mano_dir=mano_dir)
    if not rows:
        return Predictions.from_columns({"object_id": [], "side": [], "keypoints_3d": np.zeros((0, 21, 3))})
    if any(row.pop("from_image", False) for row in rows):
        warnings.warn(
            "there are no world landmarks: those of the image take their place, whose depth is coarser. Save "
            "hand_world_landmarks (worldLandmarks) as well.",
            stacklevel=3,
        )
    columns = stacked(rows, _EMPTY)
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


def _hands(
    frame: Frame, given_size: Any, focal: float | None, camera: np.ndarray | None, side: str | None,
    mirrored: bool | None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The hands of a frame: columns, and the landmarks ``world (21, 3)``."""
    hands = frame.hands(side, mirrored)
    if not hands:
        return []
    size = frame.image_size(given_size)
    length = focal or _FOCAL * size.max()
    guess = np.array([[length, 0, size[0] / 2], [0, length, size[1] / 2], [0, 0, 1]])
    shared = {"cam_K": guess if camera is None else camera, "image_size": size, **_labels(frame)}
    return [
        {
            "side": hand.side,
            "confidence": hand.score,
            "keypoints_2d": hand.image[:, :2] * size,
            "world": _as_world(hand.image, size) if hand.world is None else hand.world,
            "from_image": hand.world is None,
            **shared,
        }
        for hand in hands
    ]


def _labels(frame: Frame) -> dict[str, Any]:
    return {"frame_id": frame.name, "frame_index": frame.number}


def _as_world(image: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Landmarks of the image ``(21, 3)``, whose depth is in fractions of its width, as large as a hand."""
    points = (image - image[:1]) * [size[0], size[1], size[0]]
    with np.errstate(all="ignore"):
        return points * _PALM / np.linalg.norm(points[9])


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
    """A .json that names world landmarks, MediaPipe's lists of hands or a holistic result's; an .npz of such arrays."""
    names = (*WORLD, *IMAGE[1:], *HOLISTIC)
    return json_names(path, names) or bool(npz_names(path) & {*names})


FORMAT = Format("mediapipe", read, None, sniff, "MediaPipe hand landmarks (.json, .pkl, .npz), also holistic results")
