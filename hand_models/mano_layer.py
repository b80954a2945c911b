"""Take the hand model out of a MANO layer the user has already built.

``smplx.MANO`` / ``smplx.MANOLayer`` and the ``ManoLayer`` of manopth (and manotorch, which keeps its names)
hold MANO's arrays in buffers. They are read by name here; neither package is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .mano import ManoFields, ManoPca, build_model, check_fields
from .model import PARENTS, HandModel
from .pose import check_side

_SMPLX = ("v_template", "shapedirs", "posedirs", "J_regressor", "lbs_weights", "parents", "faces_tensor")
_MANOPTH = ("th_v_template", "th_shapedirs", "th_posedirs", "th_J_regressor", "th_weights", "th_faces")


def _kind(layer: Any) -> str:
    if all(hasattr(layer, name) for name in _SMPLX):
        return "smplx"
    if all(hasattr(layer, name) for name in _MANOPTH):
        return "manopth"
    near = _MANOPTH if any(hasattr(layer, name) for name in _MANOPTH) else _SMPLX
    missing = [name for name in near if not hasattr(layer, name)]
    raise ValueError(
        f"layer: a {type(layer).__name__} is no known MANO layer (it lacks {', '.join(missing)}); pass a "
        "smplx.MANO or a manopth ManoLayer, or load the file with load_mano."
    )


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
    where = type(layer).__name__
    if _kind(layer) == "smplx":
        template = _numpy(layer.v_template)
        posedirs = _numpy(layer.posedirs)  # (135, V * 3): smplx flattens and transposes
        if posedirs.shape != (135, template.size):
            raise ValueError(
                f"{where}: posedirs has shape {posedirs.shape}; a MANO layer has (135, {template.size})."
            )
        return check_fields(
            where,
            template=template,
            shapedirs=_numpy(layer.shapedirs),
            posedirs=posedirs.T.reshape(*template.shape, 135),
            joint_regressor=_numpy(layer.J_regressor),
            weights=_numpy(layer.lbs_weights),
            parents=_numpy(layer.parents).tolist(),
            faces=_numpy(layer.faces_tensor),
        )
    parents = getattr(layer, "kintree_parents", None)
    return check_fields(
        where,
        template=_numpy(layer.th_v_template).reshape(-1, 3),
        shapedirs=_numpy(layer.th_shapedirs),
        posedirs=_numpy(layer.th_posedirs),
        joint_regressor=_numpy(layer.th_J_regressor),
        weights=_numpy(layer.th_weights),
        faces=_numpy(layer.th_faces),
        parents=_numpy(parents).tolist() if parents is not None else PARENTS,
    )


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
        raise ValueError(
            "layer: it takes rotation matrices and keeps no pose space; use HandPose.from_rotmats."
        )
    return ManoPca(
        _side(layer, side),
        torch.tensor(mean, dtype=torch.float32),
        torch.tensor(components, dtype=torch.float32),
    )
