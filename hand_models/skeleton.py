"""Hand skeletons: who orders the joints how, and how to get from one order to another.

Joints have one set of names here (`JOINT_NAMES`): ``wrist``, and ``thumb1`` to ``thumb3`` then ``thumb_tip``,
likewise ``index``, ``middle``, ``ring``, ``pinky``, counted from the wrist outwards. Every order is data: a
tuple of those names and the place it was read from. The joints that leave a `HandModel` are in ``"openpose"``
order.

Anatomy names differ between sources for the same points: ``thumb1..3`` are CMC, MCP, IP (MediaPipe) and also
"MCP, PIP, DIP" (FHAB, DexYCB); on the fingers ``1..3`` are MCP, PIP, DIP everywhere. Orders say nothing of
*where* a source puts a point: MANO's ``thumb1`` and its fingertips lie some millimetres from MediaPipe's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

FINGERS = ("thumb", "index", "middle", "ring", "pinky")


def _finger(name: str, *, tip: bool = True) -> tuple[str, ...]:
    return tuple(f"{name}{k}" for k in (1, 2, 3)) + ((f"{name}_tip",) if tip else ())


def _chain(*fingers: str, tip: bool = True) -> tuple[str, ...]:
    return ("wrist", *(joint for f in fingers for joint in _finger(f, tip=tip)))


JOINT_NAMES = _chain(*FINGERS)
"""The 21 joints in OpenPose order, the order used throughout."""

PARENT_NAMES: Mapping[str, str | None] = MappingProxyType(
    {"wrist": None}
    | {child: parent for f in FINGERS for parent, child in zip(("wrist", *_finger(f)[:-1]), _finger(f), strict=True)}
)
"""Each joint's parent in the kinematic tree; None for the wrist."""


@dataclass(frozen=True)
class JointOrder:
    """One source's order of hand joints."""

    name: str
    joints: tuple[str, ...]
    """Joint names, first to last: a permutation of `JOINT_NAMES`, or of the 16 without tips."""
    source: str
    """Where the order was read from."""
    note: str = ""
    """What else to mind when using this source's joints."""

    def __len__(self) -> int:
        return len(self.joints)


_MANO_FINGERS = ("index", "middle", "pinky", "ring", "thumb")
_MANO_16 = _chain(*_MANO_FINGERS, tip=False)
_SMPLX = _MANO_16 + tuple(f"{f}_tip" for f in FINGERS)
_FHAB = ("wrist", *(f"{f}1" for f in FINGERS), *(joint for f in FINGERS for joint in _finger(f)[1:]))
_INTERHAND = (*(joint for f in FINGERS for joint in reversed(_finger(f))), "wrist")

_ORDERS = (
    ("openpose", JOINT_NAMES, "OpenPose, doc/output.md, hand output format", ""),
    ("mano16", _MANO_16, "MANO, rows of J_regressor and of kintree_table (Romero et al., SIGGRAPH Asia 2017)",
     "No fingertips: MANO has no tip joints, they are vertices (TIP_VERTICES)."),
    ("manopth", JOINT_NAMES, "hassony2/manopth, manopth/manolayer.py, last reordering of th_jtr", "Millimetres."),
    ("smplx", _SMPLX, "vchoutas/smplx, body_models.py MANO with vertex_joint_selector, vertex_ids.py 'mano'",
     "As released smplx returns the first 16 (mano16); the tips come when the selector is on."),
    ("ho3d", _SMPLX, "shreyashampali/ho3d, vis_HO3D.py jointsMapManoToSimple and setup_mano.py",
     "HO-3D, H2O-3D: OpenGL camera (y up, z backwards); negate y and z for OpenCV."),
    ("freihand", JOINT_NAMES, "lmb-freiburg/freihand, utils/mano_utils.py", ""),
    ("dexycb", JOINT_NAMES, "NVlabs/dex-ycb-toolkit, dex_ycb_toolkit/dex_ycb.py _MANO_JOINTS", ""),
    ("fhab", _FHAB, "guiggh/hand_pose_action, README.md, hand pose data",
     "First-Person Hand Action (FHAB, FPHA): millimetres, world coordinates."),
    ("contactpose", JOINT_NAMES, "facebookresearch/ContactPose, docs/doc.md, 21 joint format", ""),
    ("contactpose_mano", _chain(*_MANO_FINGERS),
     "facebookresearch/ContactPose, utilities/mano_fitting.py openpose2mano",
     "ContactPose's and ContactOpt's internal order: MANO's fingers, each with its tip."),
    ("h2o", JOINT_NAMES, "taeinkwon/h2odataset, issue 22 (the author: OpenPose format, supplementary figure S2b)",
     "hand_pose files: left hand first, each preceded by one flag."),
    ("arctic", _SMPLX, "zc-alexfan/arctic, common/body_models.py: smplx MANO patched to return 21 joints", ""),
    ("mediapipe", JOINT_NAMES, "MediaPipe, HandLandmark enumeration",
     "Points lie on the skin seen in the image rather than at joint centres."),
    ("interhand26m", _INTERHAND, "facebookresearch/InterHand2.6M, annotations/skeleton.txt (one hand)",
     "Tip first. Millimetres; right hand first, then left."),
)  # fmt: skip
ORDERS: Mapping[str, JointOrder] = MappingProxyType({row[0]: JointOrder(*row) for row in _ORDERS})
"""Every known order by name."""

_ALIASES = MappingProxyType(
    {
        "mano": "mano16", "fpha": "fhab", "h2o3d": "ho3d", "hamer": "openpose", "wilor": "openpose",
        "interhand": "interhand26m", "mano21": "contactpose_mano",
    }
)  # fmt: skip


@dataclass(frozen=True)
class TipVertices:
    """Vertex ids of the five fingertips on the 778-vertex MANO mesh, thumb to pinky."""

    name: str
    right: tuple[int, int, int, int, int]
    left: tuple[int, int, int, int, int]
    source: str

    def for_side(self, side: str) -> tuple[int, int, int, int, int]:
        """The ids for ``"right"`` or ``"left"``."""
        return self.left if side == "left" else self.right


_TIP_VERTICES = (
    ("smplx", (744, 320, 443, 554, 671), (744, 320, 443, 554, 671),
     "vchoutas/smplx, smplx/vertex_ids.py 'mano'; also ARCTIC, HaMeR and WiLoR"),
    ("manopth", (745, 317, 444, 556, 673), (745, 317, 445, 556, 673),
     "hassony2/manopth, manopth/manolayer.py; also DexYCB"),
    ("freihand", (744, 320, 443, 555, 672), (744, 320, 443, 555, 672),
     "lmb-freiburg/freihand, utils/mano_utils.py kpId2vertices"),
    ("ho3d", (744, 333, 444, 555, 672), (744, 333, 444, 555, 672), "shreyashampali/ho3d, setup_mano.py"),
    ("contactpose", (745, 333, 444, 555, 672), (745, 333, 444, 555, 672),
     "facebookresearch/ContactPose, utilities/mano_fitting.py fingertip_idxs"),
)  # fmt: skip
TIP_VERTICES: Mapping[str, TipVertices] = MappingProxyType({row[0]: TipVertices(*row) for row in _TIP_VERTICES})
"""Which MANO vertices each source calls the fingertips. They lie some millimetres apart."""


def joint_order(name: str) -> JointOrder:
    """The order called ``name``; case, spaces and ``-_.`` do not matter.

    Raises:
        ValueError: no such order; the message lists the known ones.
    """
    if not isinstance(name, str):
        raise ValueError(f"order: got {name!r}; pass the name of a joint order, one of {sorted(ORDERS)}.")

    def plain(text: str) -> str:
        return "".join(c for c in text.lower() if c.isalnum())

    wanted = plain(name)
    known = {plain(key): key for key in ORDERS} | {plain(key): key for key in _ALIASES}
    if wanted not in known:
        raise ValueError(f"order: {name!r} is not known; use one of {', '.join(sorted(ORDERS))}.")
    key = known[wanted]
    return ORDERS[_ALIASES.get(key, key)]


def permutation(*, source: str, target: str) -> tuple[int, ...]:
    """Where each joint of ``target`` sits in ``source``: ``target[k] = source[permutation[k]]``.

    Raises:
        ValueError: an order is unknown, or ``target`` has tips that ``source`` lacks.
    """
    have, want = joint_order(source), joint_order(target)
    missing = [joint for joint in want.joints if joint not in have.joints]
    if missing:
        raise ValueError(
            f"target: {want.name!r} needs {', '.join(missing)}, which {have.name!r} lacks; fingertips "
            "are surface points: pose a hand model and use its 21 joints, or choose target='mano16'."
        )
    return tuple(have.joints.index(joint) for joint in want.joints)


def convert(joints: Any, *, source: str, target: str) -> Any:
    """Reorder joints, keeping values, type and device.

    Args:
        joints: ``(..., J, D)`` numpy array, torch tensor or nested list, in any unit; D is usually 3, or 2
            in an image. J must be that of ``source``.
        source: name of the order the joints are in (`ORDERS`).
        target: name of the order wanted. Going to ``"mano16"`` drops the tips.

    Returns:
        ``(..., J', D)`` array or tensor.

    Raises:
        ValueError: unknown order, wrong number of joints, or tips asked for that are not there.
    """
    index = permutation(source=source, target=target)
    array = joints if isinstance(joints, (np.ndarray, Tensor)) else np.asarray(joints, dtype=float)
    count = len(joint_order(source))
    if array.ndim < 2 or array.shape[-2] != count:
        raise ValueError(f"joints: got shape {tuple(array.shape)}; order {source!r} needs (..., {count}, D).")
    return array[..., list(index), :]


def bones(order: str = "openpose") -> tuple[tuple[int, int], ...]:
    """Bones as index pairs ``(parent, child)`` in ``order``, from the wrist out: 20, or 15 without tips."""
    joints = joint_order(order).joints
    place = {joint: k for k, joint in enumerate(joints)}
    pairs = ((PARENT_NAMES[child], child) for child in JOINT_NAMES if child in place)
    return tuple((place[parent], place[child]) for parent, child in pairs if parent is not None)


def parents(order: str = "openpose") -> tuple[int, ...]:
    """Index of each joint's parent in ``order``; -1 for the wrist."""
    joints = joint_order(order).joints
    named = (PARENT_NAMES[joint] for joint in joints)
    return tuple(-1 if parent is None else joints.index(parent) for parent in named)
