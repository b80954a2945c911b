"""ContactOpt: the JSON of its user demo, in and out.

Source of truth: facebookresearch/ContactOpt, ``data/demo_mano.json`` (``beta`` 10, ``pose`` 18, ``trans`` 3),
``contactopt/run_user_demo.py``, ``contactopt/hand_object.py`` ``run_mano`` (manopth: 3 of orientation and 15 principal
components with ``flat_hand_mean=False``; 48 numbers are axis-angle with ``flat_hand_mean=True``) and ``util.py``
``forward_mano`` (``trans`` is added after posing about the wrist joint). Metres, right hands, in the frame of the
object's mesh. A list of such hands is read and written too.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hand_models import load_mano_pca
from hand_models.atomic import write_atomically

from ..predictions import Predictions, has_pose
from .columns import pose_columns
from .files import field, json_names, read_json, table_of
from .format import Format
from .hands import mano_columns

COMPONENTS = 15


def read(path: Path, *, mano_dir: str | Path | None = None, object_id: str | None = None) -> Predictions:
    """Read the hand, or hands, of a demo file; they are in the object's frame.

    Args:
        mano_dir: the user's MANO, for principal components.
        object_id: name of the object; the file's stem when None.
    """
    hands = table_of(read_json(path), "a hand with pose, beta and trans")
    poses = [field(hand, "pose", None) for hand in hands]
    places = [(field(hand, "beta", 10), field(hand, "trans", 3)) for hand in hands]
    parts = []
    for row, pose in enumerate(poses):
        if len(pose) not in (3 + COMPONENTS, 48):
            raise ValueError(f"hand {row}: field 'pose' has {len(pose)} numbers; expected 18 or 48.")
    for width in (3 + COMPONENTS, 48):
        rows = [row for row, pose in enumerate(poses) if len(pose) == width]
        if rows:
            pose = np.array([poses[row] for row in rows])
            betas, transl = (np.array([places[row][k] for row in rows]) for k in (0, 1))
            pca = width < 48
            part = mano_columns(
                "right", pose[:, :3], pose[:, 3:], betas, transl, mano_dir, components=pca, add_mean=pca
            )
            parts.append((rows, part))
    return Predictions.from_columns(
        pose_columns(len(hands), parts) | {"side": "right", "object_id": object_id or path.stem}
    )


def write(path: Path, predictions: Predictions, *, mano_dir: str | Path | None = None) -> Path:
    """Write the demo's JSON: one object, or a list when there are several rows.

    Poses are projected on the first 15 components, which is what ContactOpt can express.

    Raises:
        MissingManoError: MANO is not there.
        ValueError: a left hand, a row without a finite pose, or hands in a camera's frame.
    """
    if predictions.object_pose is not None:
        raise ValueError("object_pose: the hands are in a camera's frame; ContactOpt wants the object's.")
    bad = ~has_pose(predictions) | (predictions.side != "right") | (predictions.hand_model != "mano")
    if bad.any():
        raise ValueError(f"row {int(np.argmax(bad))}: is not a right MANO hand with a finite pose.")
    pca = load_mano_pca(mano_dir)
    basis = pca.components.double().numpy()[:COMPONENTS]
    offset = predictions.column("hand_pose").reshape(-1, 45) - pca.mean.double().numpy()
    coefficients = np.linalg.lstsq(basis.T, offset.T, rcond=None)[0].T
    fields = {
        "beta": predictions.column("betas"),
        "pose": np.c_[predictions.column("global_orient"), coefficients],
        "trans": predictions.column("transl"),
    }
    hands = [
        {name: value[row].astype(float).round(7).tolist() for name, value in fields.items()}
        for row in range(len(predictions))
    ]
    document = hands[0] if len(hands) == 1 else hands
    return write_atomically(path, lambda stream: stream.write(json.dumps(document, indent=1).encode() + b"\n"))


def sniff(path: Path) -> bool:
    """A .json that names ``beta``, and ``pose`` or ``trans``."""
    return json_names(path, ["beta"]) and json_names(path, ["pose", "trans"])


FORMAT = Format("contactopt", read, write, sniff, "ContactOpt's demo JSON (beta, pose, trans), in and out")
