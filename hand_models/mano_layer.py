"""Take the hand model out of a MANO layer the user has already built.

``smplx.MANO`` / ``smplx.MANOLayer`` and the ``ManoLayer`` of manopth (and manotorch, which keeps its names)
hold MANO's arrays in buffers. They are read by name here; neither package is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .mano import ManoFields, ManoPca, build_model, mano_fields
from .model import PARENTS, HandModel
from .pose import check_side

_NAMES = {
    "smplx": {
        "v_template": "v_template", "shapedirs": "shapedirs", "posedirs": "posedirs", "J_regressor": "J_regressor",
        "weights": "lbs_weights", "f": "faces_tensor",
    },
    "manopth": {
        "v_template": "th_v_template", "shapedirs": "th_shapedirs", "posedirs": "th_posedirs",
        "J_regressor": "th_J_regressor", "weights": "th_weights", "f": "th_faces",
    },
}  # fmt: skip
"""Fields of MANO's files and the attributes of a layer that hold them, by package."""


def _kind(layer: Any) -> str:
    missing = {kind: [n for n in names.values() if not hasattr(layer, n)] for kind, names in _NAMES.items()}
    nearest = min(missing, key=lambda kind: len(missing[kind]))
    if missing[nearest]:
        raise ValueError(
            f"layer: a {type(layer).__name__} is no known MANO layer (it lacks {', '.join(missing[nearest])}); pass a "
            "smplx.MANO or a manopth ManoLayer, or load the file with load_mano."
        )
    return nearest


def _numpy(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _side(layer: Any, side: str | None) -> str:
    if side is not None:
        return check_side(side)
    if isinstance(getattr(layer, "side", None), str):
        return check_side(layer.side)
    if hasattr(layer, "is_rhand"):
        return "right" if layer.is_rhand else "left"
    raise ValueError("side: the layer does not say which hand it is; pass side='right' or side='left'.")


def _fields(layer: Any) -> ManoFields:
    where, kind = type(layer).__name__, _kind(layer)
    content = {name: _numpy(getattr(layer, attribute)) for name, attribute in _NAMES[kind].items()}
    content["v_template"] = content["v_template"].reshape(-1, 3)  # manopth keeps a batch of one
    template, posedirs = content["v_template"], content["posedirs"]
    if kind == "smplx":  # which flattens and transposes
        if posedirs.shape != (135, template.size):
            raise ValueError(f"{where}: posedirs has shape {posedirs.shape}; a MANO layer has (135, {template.size}).")
        content["posedirs"] = posedirs.T.reshape(*template.shape, 135)
    parents = getattr(layer, "parents" if kind == "smplx" else "kintree_parents", None)
    parents = np.array(PARENTS) if parents is None else _numpy(parents)
    content["kintree_table"] = np.stack([parents, np.arange(len(parents))])
    return mano_fields(where, content)


def from_layer(layer: Any, *, side: str | None = None, tips: str | Sequence[int] | None = None) -> HandModel:
    """A `HandModel` with the arrays of a built MANO layer, copied to the CPU.

    The layer's own changes to its buffers are taken over: a ``shapedirs`` sign already fixed stays fixed.
    Its pose settings (PCA, mean) are not part of the model; see `pca_from_layer`. Units are metres whatever
    the layer's ``forward`` returns (manopth's returns millimetres).

    Args:
        layer: ``smplx.MANO``, ``smplx.MANOLayer``, or a ``ManoLayer`` of manopth or manotorch.
        side: overrides what the layer says of itself.
        tips: as in `load_mano`; None takes the convention of the layer's package.

    Raises:
        ValueError: not a MANO layer, or fewer than ten shape components (build it with ``num_betas=10``).
    """
    kind = _kind(layer)
    return build_model(_fields(layer), _side(layer, side), tips=kind if tips is None else tips)


def pca_from_layer(layer: Any, *, side: str | None = None) -> ManoPca:
    """The pose space a built MANO layer uses.

    ``mean`` is what the layer adds: zeros when it was built with ``flat_hand_mean=True``. So pass it to
    `HandPose.from_pca` with ``flat_hand_mean=False``. ``components`` holds the rows the layer uses; the
    identity for a layer that takes axis-angle.

    Raises:
        ValueError: not a MANO layer, or a manopth layer over rotation matrices, which has no such space.
    """
    if _kind(layer) == "smplx":
        mean = _numpy(layer.hand_mean)
        components = _numpy(layer.hand_components) if getattr(layer, "use_pca", False) else np.eye(45)
    elif hasattr(layer, "th_hands_mean"):
        mean = _numpy(layer.th_hands_mean).reshape(-1)
        components = _numpy(layer.th_selected_comps) if getattr(layer, "use_pca", False) else np.eye(45)
    else:
        raise ValueError("layer: it takes rotation matrices and keeps no pose space; use HandPose.from_rotmats.")
    return ManoPca(
        _side(layer, side), torch.tensor(mean, dtype=torch.float32), torch.tensor(components, dtype=torch.float32)
    )
