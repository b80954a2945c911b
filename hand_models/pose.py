"""`HandPose`: the parameters of a batch of hands, and the manifold they live on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arguments import as_floats
from .record import Record
from .rotations import exp_so3, log_so3, mirror_axis_angle

SIDES = ("right", "left")
TANGENT_DIM = 51  # translation 3, root rotation 3, hand pose 45; ten more when betas are free
_SHAPES = {"global_orient": (3,), "hand_pose": (15, 3), "betas": (10,), "transl": (3,)}


def check_side(side: str) -> str:
    """Return ``side`` if it is "right" or "left"; raise ``ValueError`` otherwise."""
    if side not in SIDES:
        raise ValueError(f"side: got {side!r}; pass 'right' or 'left'.")
    return side


def _as_rows(name: str, value: Any) -> Tensor:
    """Any array-like of parameters as float32 ``(B, *shape)``; a missing batch dimension is added."""
    tensor = as_floats(name, value)
    shape = _SHAPES[name]
    width = int(np.prod(shape))
    if tensor.shape == shape or tensor.shape == (width,):
        tensor = tensor[None]
    # Dimensions of one are let pass, since estimators give global_orient as (B, 1, 3).
    if tensor.ndim < 2 or tuple(n for n in tensor.shape[1:] if n != 1) not in (shape, (width,)):
        raise ValueError(f"{name}: got shape {tuple(tensor.shape)}; expected {('B', *shape)} or {shape}.")
    return tensor.reshape(len(tensor), *shape)


def _as_rotations(name: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    """Rotation matrices as float32 ``(B, *shape, 3, 3)``; a missing batch dimension is added."""
    tensor = as_floats(name, value)
    if tensor.shape == (*shape, 3, 3):
        tensor = tensor[None]
    dims = tuple(tensor.shape)
    if tensor.ndim < 3 or dims[-2:] != (3, 3) or tuple(n for n in dims[1:-2] if n != 1) != shape:
        raise ValueError(f"{name}: got shape {dims}; expected {('B', *shape, 3, 3)} rotation matrices.")
    product = tensor @ tensor.transpose(-1, -2)
    off = (product - torch.eye(3, device=tensor.device)).abs() > 0.01  # False for NaN, which is judged later
    if off.any() or (torch.linalg.det(tensor) < 0).any():
        raise ValueError(
            f"{name}: not rotation matrices (orthonormal, determinant +1); orthonormalise them first, or pass "
            "axis-angle to HandPose.from_arrays."
        )
    return tensor.reshape(len(tensor), *shape, 3, 3)


@dataclass(frozen=True)
class HandPose(Record):
    """Pose and shape of ``B`` hands of one side, in MANO's terms (Romero et al., SIGGRAPH Asia 2017).

    Angles are axis-angle radians and *absolute* (MANO's mean pose already added: ``flat_hand_mean=True``).
    The hand turns about its root joint ``J0(betas)``; ``transl`` is added after posing. A left hand is
    the mirror image in x of the right-hand model.
    """

    side: str
    global_orient: Tensor
    """(B, 3) rotation of the wrist."""
    hand_pose: Tensor
    """(B, 15, 3) joint rotations in MANO order: index, middle, pinky, ring, thumb, three each."""
    betas: Tensor
    """(B, 10) shape coefficients of the hand model in use; zeros are its mean hand."""
    transl: Tensor
    """(B, 3) metres."""

    def __post_init__(self) -> None:
        check_side(self.side)
        for name, shape in _SHAPES.items():
            value = getattr(self, name)
            if not isinstance(value, Tensor):
                raise ValueError(
                    f"{name}: got {type(value).__name__}; pass a tensor, or build with HandPose.from_arrays."
                )
            if tuple(value.shape[1:]) != shape or value.ndim == 0:
                raise ValueError(f"{name}: got shape {tuple(value.shape)}; expected {('B', *shape)}.")
        rows = {len(getattr(self, name)) for name in _SHAPES}
        if len(rows) > 1:
            sizes = {name: len(getattr(self, name)) for name in _SHAPES}
            raise ValueError(f"hand_pose: batch sizes differ: {sizes}; every field needs the same B.")

    # Constructors -------------------------------------------------------------------------------

    @staticmethod
    def zeros(batch_size: int = 1, *, side: str = "right") -> HandPose:
        """The flat hand at the model's origin, ``batch_size`` times."""
        return HandPose(side, *(torch.zeros(batch_size, *shape) for shape in _SHAPES.values()))

    @staticmethod
    def from_arrays(values: Mapping[str, Any], *, side: str | None = None) -> HandPose:
        """From a mapping with ``global_orient`` and ``hand_pose``, and optionally ``betas``, ``transl``, ``side``.

        Arrays may be numpy or torch, flat (``hand_pose`` of 45) or shaped, with or without the batch.
        Missing betas and transl are zero; one row of either serves every hand. ``side`` here goes before
        the mapping's. Raises ``ValueError`` naming the field that is wrong.
        """
        known = {*_SHAPES, "side"}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"hand_pose: unknown field {unknown[0]!r}; the fields are {sorted(known)}.")
        for name in ("global_orient", "hand_pose"):
            if values.get(name) is None:
                raise ValueError(f"hand_pose: field {name!r} is missing; give global_orient (3) and hand_pose (45).")
        rows = {name: _as_rows(name, values[name]) for name in _SHAPES if values.get(name) is not None}
        batch = len(rows["global_orient"])
        for name, shape in _SHAPES.items():
            rows.setdefault(name, torch.zeros(batch, *shape))
            if len(rows[name]) == 1 and batch > 1 and name in ("betas", "transl"):
                rows[name] = rows[name].expand(batch, *shape)
        return HandPose(check_side(side or str(values.get("side", "right"))), **rows)

    @staticmethod
    def from_pca(
        coefficients: Any, components: Any, mean: Any, *, flat_hand_mean: bool = False, global_orient: Any = None,
        betas: Any = None, transl: Any = None, side: str = "right",
    ) -> HandPose:  # fmt: skip
        """From MANO's principal components: ``hand_pose = coefficients @ components[:n] (+ mean)``.

        Args:
            coefficients: ``(B, n)`` with ``n <= 45``.
            components: ``(45, 45)`` rows of MANO's ``hands_components``.
            mean: ``(45,)`` MANO's ``hands_mean``; added unless ``flat_hand_mean``.

        Raises:
            ValueError: naming the argument whose shape is wrong.
        """
        c = torch.atleast_2d(as_floats("coefficients", coefficients))
        basis = as_floats("components", components)
        if basis.ndim != 2 or basis.shape[1] != 45:
            raise ValueError(f"components: got shape {tuple(basis.shape)}; expected rows of 45, MANO's are (45, 45).")
        if c.ndim != 2:
            raise ValueError(f"coefficients: got shape {tuple(c.shape)}; expected (B, n).")
        if c.shape[1] > len(basis):
            raise ValueError(f"coefficients: {c.shape[1]} per hand, but only {len(basis)} components are known.")
        pose = c @ basis[: c.shape[1]]
        if not flat_hand_mean:
            offset = as_floats("mean", mean)
            if offset.numel() != 45:
                raise ValueError(f"mean: got shape {tuple(offset.shape)}; expected (45,).")
            pose = pose + offset.reshape(45)
        orient = torch.zeros(len(c), 3) if global_orient is None else global_orient
        return HandPose.from_arrays(
            {"global_orient": orient, "hand_pose": pose.reshape(-1, 15, 3), "betas": betas, "transl": transl}, side=side
        )

    @staticmethod
    def from_rotmats(
        global_orient: Any, hand_pose: Any, *, betas: Any = None, transl: Any = None, side: str = "right"
    ) -> HandPose:
        """From rotation matrices: ``global_orient (B, 3, 3)`` and ``hand_pose (B, 15, 3, 3)``.

        Raises:
            ValueError: a wrong shape, or matrices that are not rotations to within 0.01.
        """
        root = _as_rotations("global_orient", global_orient, ())
        local = _as_rotations("hand_pose", hand_pose, (15,))
        return HandPose.from_arrays(
            {"global_orient": log_so3(root), "hand_pose": log_so3(local), "betas": betas, "transl": transl}, side=side
        )

    # Batch --------------------------------------------------------------------------------------

    @classmethod
    def cat(cls, parts: Sequence[HandPose]) -> HandPose:
        """Join batches of the same side. Raises ``ValueError`` when they differ, or there are none."""
        if len({part.side for part in parts}) > 1:
            raise ValueError("parts: one batch holds one side; mirror the others first with .mirrored().")
        return super().cat(parts)

    def finite(self) -> Tensor:
        """``(B,)`` bool: no NaN or infinity in any field."""
        return torch.stack([getattr(self, n).flatten(1).isfinite().all(1) for n in _SHAPES]).all(0)

    def as_arrays(self) -> dict[str, np.ndarray]:
        """The four fields as numpy arrays."""
        return {name: getattr(self, name).detach().cpu().numpy() for name in _SHAPES}

    # Geometry -----------------------------------------------------------------------------------

    def mirrored(self) -> HandPose:
        """The same hands in a mirror that flips x: the other side, x negated."""
        other = "left" if self.side == "right" else "right"
        flip = self.transl.new_tensor([-1.0, 1.0, 1.0])
        return HandPose(
            other, mirror_axis_angle(self.global_orient), mirror_axis_angle(self.hand_pose), self.betas,
            self.transl * flip,
        )  # fmt: skip

    def transformed(self, rotation: Tensor, translation: Tensor, root: Tensor) -> HandPose:
        """The hands after the rigid motion ``x -> rotation x + translation`` of the world.

        Args:
            rotation: ``(3, 3)`` or ``(B, 3, 3)``.
            translation: ``(3,)`` or ``(B, 3)`` metres.
            root: ``(B, 3)`` root joint of each shape, ``model.root(pose)``: hands turn about it.

        ``transl' = rotation (root + transl) + translation - root``.
        """
        orient = log_so3(rotation @ exp_so3(self.global_orient))
        moved = (rotation @ (root + self.transl)[..., None])[..., 0] + translation - root
        return replace(self, global_orient=orient, transl=moved)

    def retract(self, delta: Tensor) -> HandPose:
        """Move along a tangent vector ``(B, 51)``, or ``(B, 61)`` with betas.

        Order: translation (metres), rotation of the root about the root joint in world axes
        (``R <- exp(w) R``), hand pose (added to the axis-angle vectors), betas (added).

        Raises:
            ValueError: ``delta`` has another width.
        """
        if delta.ndim != 2 or delta.shape[1] not in (TANGENT_DIM, TANGENT_DIM + 10):
            raise ValueError(f"delta: got shape {tuple(delta.shape)}; expected (B, 51), or (B, 61) with betas.")
        orient = log_so3(exp_so3(delta[:, 3:6]) @ exp_so3(self.global_orient))
        betas = self.betas + delta[:, TANGENT_DIM:] if delta.shape[1] > TANGENT_DIM else self.betas
        pose = self.hand_pose + delta[:, 6:TANGENT_DIM].reshape(-1, 15, 3)
        return HandPose(self.side, orient, pose, betas, self.transl + delta[:, :3])

    def toward(self, other: HandPose, share: Tensor) -> HandPose:
        """The hands part of the way to ``other``, along the straight line of `retract`.

        Args:
            other: ``B`` hands of the same side.
            share: ``(B,)`` of the way; 0 stays, 1 arrives.
        """
        return self.retract(share[:, None] * torch.cat([other.offset(self), other.betas - self.betas], 1))

    def offset(self, origin: HandPose) -> Tensor:
        """``(B, 51)`` the tangent vector along which `retract` moves ``origin`` here, but for betas."""
        turn = log_so3(exp_so3(self.global_orient) @ exp_so3(origin.global_orient).transpose(-1, -2))
        return torch.cat([self.transl - origin.transl, turn, (self.hand_pose - origin.hand_pose).flatten(1)], 1)
