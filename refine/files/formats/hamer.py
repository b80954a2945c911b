"""HaMeR: rotation matrices in the space of a right hand, an assumed focal length.

Sources of truth: geopavlakos/hamer, ``demo.py`` (left hands are shown by flipping x of a right hand; focal length
5000 / 256 times the longer side of the image) and ``hamer/utils/renderer.py`` ``cam_crop_to_full``; MANO there is
smplx' ``MANOLayer``, which adds no mean pose: angles are absolute. Format `wilor` is for WiLoR and WiLoR-mini.

The program writes pictures and meshes (``--save_mesh``), not its parameters. This reads what its users save, as .npz,
.pkl, .json or .pt (``torch.save``), in any arrangement of `image_records`, under the output's own names; or the
meshes, one .obj or a folder of them, to which MANO is fitted.

============================================  =========================================================
``global_orient``, ``hand_pose``, ``betas``    at the top or in a dictionary such as ``pred_mano_params``
or ``verts`` (``pred_vertices``)               instead: MANO's 778 vertices about the hand's origin; needs MANO
``pred_cam_t_full`` (or ``cam_t``)             metres; translation in the camera of the whole image
``pred_cam, box_center, box_size, img_size``   instead of it, right hands only
``is_right`` (or ``right``)                    1 or 0
``img_size``, ``scaled_focal_length``          optional: ``cam_K`` and ``image_size``
``cam_K``                                      optional: the true intrinsics, which replace the assumed ones
``imgname`` (``img_path``, ``img_name``)       optional: ``frame_id``
``pred_keypoints_2d``                          optional: ``keypoints_2d``, with ``box_center`` and ``box_size``, or
                                               where it is the projection of ``pred_keypoints_3d``
``object_id``, ``frame_index``                 optional
============================================  =========================================================

The hand stands where it fits the image under the assumed focal length, some 16 m away in a usual picture:
`metric_depth` is false unless ``camera``, ``focal`` or ``cam_K`` give the true one, see `cameras.seen_by`. Rows are
off as image estimators are: ``input_error="camera"``, and so are their keypoints (`keypoint_sigma`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..predictions import Predictions
from .cameras import seen_by, true_camera
from .columns import UNKNOWN_POSE, Columns, each, joined, number_in
from .files import json_names, naming, npz_names, read_tree
from .format import Format, Numbers, Side
from .hand_meshes import is_hand_mesh, meshes_below
from .image_hands import Reading, hands_of, hands_of_meshes, no_hand
from .image_records import TRANSL, ImageRecord, image_name, records_of

_PARAMETERS = (".npz", ".pkl", ".json", ".pt", ".pth")
_MARKS = ("pred_mano_params", "pred_cam", "pred_cam_t_full")


def read(
    path: Path,
    *,
    side: Side | None = None,
    object_id: str = "",
    camera: Numbers = None,
    focal: float | None = None,
    image_size: tuple[int, int] | None = None,
    right_hand_space: bool | None = None,
    mano_dir: str | Path | None = None,
) -> Predictions:
    """Read the outputs of HaMeR.

    Args:
        side: side of all hands, where the file does not say.
        object_id: name of the object, where the file does not say.
        camera: true intrinsics, see `cameras.intrinsics`; depth becomes metric up to the size of the hand.
        focal: true focal length, pixels, where the principal point is in the middle, instead of ``camera``.
        image_size: width and height, pixels, where the file does not say.
        right_hand_space: whether left hands are given as the right hands of the flipped image. None: matrices
            are, axis-angle vectors must say.
        mano_dir: the user's MANO, where the file holds vertices.
    """
    told = Reading(side, right_hand_space, False, image_size, mano_dir)
    return read_images(path, told, object_id, camera, focal)


def read_images(path: Path, told: Reading, object_id: str, camera: Any, focal: float | None) -> Predictions:
    """`read`, for HaMeR and WiLoR alike."""
    matrix, focal = true_camera(camera, focal)
    files = parameter_files(path) if path.is_dir() else [path]
    if files and path.suffix.lower() != ".obj":
        records = [record for file in files for record in _records(file, one_of_many=path.is_dir())]
        parts = each(
            records, lambda record: hands_of(record, told), lambda record: no_hand(record, told), "records",
            lambda record: record.where,
        )  # fmt: skip
    else:
        meshes = meshes_below(path)
        if not meshes:
            raise ValueError(
                "holds no file of parameters and no .obj with the 778 vertices of MANO's hand, as demo.py --save_mesh "
                "writes them."
            )
        parts = hands_of_meshes(meshes, told)
    columns = joined(parts)
    rows = len(columns["side"])
    _frames(columns, path.stem)
    named_objects = columns.pop("object_id", np.full(rows, object_id))
    columns["object_id"] = np.where(named_objects == "", object_id, named_objects)
    columns["object_pose"] = np.tile(UNKNOWN_POSE, (rows, 1, 1))
    if not rows:
        return Predictions.from_columns(columns | {"input_error": np.zeros(0, "U1"), "metric_depth": np.zeros(0, bool)})
    return _before_camera(columns, matrix, focal)


def parameter_files(folder: Path) -> list[Path]:
    """The files of a folder with one for each image, in the order of their numbers; those of other kinds are left."""
    files = [file for file in folder.iterdir() if file.is_file() and file.suffix.lower() in _PARAMETERS]
    return sorted(files, key=lambda file: (number_in(file.stem) is None, number_in(file.stem) or 0, file.name))


def _records(file: Path, *, one_of_many: bool) -> list[ImageRecord]:
    """The records of a file; one of a folder's is an image, called as the file and of the number in its name."""
    with naming(file):
        found = records_of(read_tree(file), file.stem)
    if not one_of_many:
        return found
    number = number_in(file.stem)
    return [replace(r, number=number if r.number is None else r.number, name=r.name or file.stem) for r in found]


def _before_camera(columns: Columns, camera: np.ndarray | None, focal: float | None) -> Predictions:
    """The rows under the assumed focal length, or the true one where it is known."""
    rows = len(columns["side"])
    assumed, centre, size = columns.pop("focal"), columns.pop("centre"), columns.pop("size")
    saved = columns.pop("camera")
    if not np.isfinite(columns["keypoints_2d"]).any():
        del columns["keypoints_2d"], columns["keypoint_sigma"]
    if np.isfinite(size).all() and np.abs(size).max() < 1e9:
        columns["image_size"] = np.rint(size).astype(np.int64)
    whole = np.isfinite(assumed) & np.isfinite(centre).all(1)
    known = np.full((rows, 3, 3), np.nan)
    known[whole] = np.eye(3)
    known[whole, 0, 0] = known[whole, 1, 1] = assumed[whole]
    known[whole, :2, 2] = centre[whole]
    if whole.any():
        columns["cam_K"] = known
    labels = {"input_error": "camera", "metric_depth": np.zeros(rows, bool)}
    if focal is not None:
        if not np.isfinite(assumed).all():
            raise ValueError(
                "focal: the assumed focal length is unknown; save img_size or scaled_focal_length, or give image_size."
            )
        if not whole.all():  # the principal point is in the middle, wherever that is
            columns["transl"][:, 2] *= focal / assumed
            columns.pop("cam_K", None)
            return Predictions.from_columns(columns | labels | {"metric_depth": True})
        true = known.copy()
        true[:, 0, 0] = true[:, 1, 1] = focal
    else:
        true = saved if camera is None else np.broadcast_to(camera, (rows, 3, 3))
    predictions = Predictions.from_columns(columns | labels)
    if not np.isfinite(true).all((1, 2)).any():
        return predictions
    if not (whole | ~np.isfinite(true).all((1, 2))).all():
        raise ValueError(
            "camera: what the estimator assumed is unknown; save img_size (or scaled_focal_length and "
            "pred_keypoints_2d), or give image_size."
        )
    return seen_by(predictions, true)


def _frames(columns: Columns, stem: str) -> None:
    """Fills `frame_id`, and `frame_index` where the file counts frames."""
    if "frame_id" not in columns:
        return
    names, numbers = columns["frame_id"], columns.pop("frame_index")
    # A file with at most one hand of each side is one of an image; more may be of as many images.
    one = len(names) == len(set(columns["side"].tolist()))
    counted = np.isfinite(numbers)
    if counted.all():
        columns["frame_index"] = numbers.astype(np.int64)
    elif (names != "").all() and not counted.any():
        first = {name: place for place, name in enumerate(dict.fromkeys(names.tolist()))}
        columns["frame_index"] = np.array([first[name] for name in names.tolist()], np.int64)
    elif one and not counted.any() and (number := number_in(stem)) is not None:
        columns["frame_index"] = np.full(len(names), number)
    rest = [str(int(n)) if np.isfinite(n) else stem if one else str(row) for row, n in enumerate(numbers)]
    columns["frame_id"] = np.where(names == "", rest, names)


def sniff(path: Path) -> bool:
    """HaMeR's field names in an .npz or at the beginning of a .json, WiLoR-mini's not; hands' meshes."""
    if path.is_dir():
        meshes = [file for file in path.glob("*.obj") if is_hand_mesh(file)]
        return bool(meshes) and not any(map(_has_parameters, meshes))
    names = npz_names(path)
    ours = {"global_orient", "hand_pose"} <= names and names & {*TRANSL, "is_right", "right", "pred_cam"}
    from_json = json_names(path, _MARKS) and not json_names(path, ("wilor_preds",))
    return bool(ours) or from_json or (is_hand_mesh(path) and not _has_parameters(path))


def _has_parameters(mesh: Path) -> bool:
    """Whether the parameters that a mesh was made from lie beside it: then they are what is read."""
    return any((mesh.parent / (image_name(mesh) + suffix)).is_file() for suffix in _PARAMETERS)


FORMAT = Format("hamer", read, None, sniff, "HaMeR outputs (.npz, .pkl, .json, .pt) with pred_cam_t_full, or its .obj")
