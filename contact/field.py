"""`ContactField`: where a hand touches an object, and its ground truth from a known pose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import igl
import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from hand_models import HandModel, HandPose
from hand_models.record import Record

from .capsule import axis_distance, contact_at_distance, contact_value
from .objects.mesh import ObjectMesh
from .objects.surface_points import RAY_UNITS, first_hit

NUM_PARTS = 16
_EXACT_WITHIN = 0.01
"""Metres; beyond, measuring to the nearest vertex instead of the skin changes a contact value by < 0.01."""
# How far a correspondence may reach, metres:
_OUTWARD = 0.03
"""longest gap between the object and a hand that does not touch it"""
_INWARD = 0.015
"""deepest penetration that still counts"""
_BEYOND_THICKNESS = 0.004
"""a hand may come out this far on the other side of a thin object and still belong to this side"""
_TOUCHING = 0.0025
"""up to this distance the closest point stands in where the ray just misses the skin"""
_SIDEWAYS = 0.001
"""the closest point may lie this far off the normal, which bounds the error of ``p + gap n``"""


@dataclass(frozen=True)
class ContactField(Record):
    """Contact and correspondence of ``B`` grasps over ``n`` object points and ``P`` hand points.

    The object-to-hand correspondence is TOCH's (Zhou et al., ECCV 2022): the hand point that lies on the
    line of an object point's normal. Means come with variances; a ground truth has variance zero.
    """

    contact: Tensor
    """(B, n) capsule contact value of each object point, in [0, 1]."""
    contact_var: Tensor
    """(B, n)"""
    part: Tensor
    """(B, n, 16) probability of each bone of the hand (MANO's joint order); uniform where ``near`` is 0."""
    canonical: Tensor
    """(B, n, 3) metres: the corresponding point on the mean right hand at rest; 0 where ``near`` is 0."""
    canonical_var: Tensor
    """(B, n) square metres, per axis."""
    gap: Tensor
    """(B, n) metres along the outward normal from the object point to the hand; negative when the hand is
    inside the object. 0 where ``near`` is 0."""
    gap_var: Tensor
    """(B, n) square metres."""
    near: Tensor
    """(B, n) in [0, 1]: probability that the correspondence exists."""
    hand_contact: Tensor
    """(B, P) capsule contact value of the hand model's ``contact_points``."""
    hand_contact_var: Tensor
    """(B, P)"""
    joints: Tensor | None = None
    """(B, 21, 3) metres, object frame: where an estimator believes the joints are. None in a ground truth."""
    joints_var: Tensor | None = None
    """(B, 21) square metres, per axis."""
    joints_cov: Tensor | None = None
    """(B, 21, 3, 3) square metres, object frame."""
    holding: Tensor | None = None
    """(B,) probability that the hand holds the object."""

    def mirrored(self) -> ContactField:
        """The same grasps in a mirror that flips x, over the mirrored object's points.

        Contact, gap and the canonical hand (always a right one) do not change; joints do.
        """
        if self.joints is None:
            return self
        flip = self.joints.new_tensor([-1.0, 1.0, 1.0])
        cov = None if self.joints_cov is None else self.joints_cov * flip[:, None] * flip
        return replace(self, joints=self.joints * flip, joints_cov=cov)

    def at(self, points: Tensor | slice) -> ContactField:
        """The field at some of the object points, an index ``(m,)`` or slice."""
        names = ("contact", "contact_var", "part", "canonical", "canonical_var", "gap", "gap_var", "near")
        return replace(self, **{name: getattr(self, name)[:, points] for name in names})

    def targets(self, points: Tensor, normals: Tensor) -> Tensor:
        """(B, n, 3) where the corresponding hand points are to be: ``points + gap * normals``."""
        return points + self.gap[..., None] * normals

    @classmethod
    def cat(cls, parts: Sequence[ContactField]) -> ContactField:
        """Join batches over equal numbers of points. Joints are kept only if every batch has them.

        Raises:
            ValueError: when ``parts`` is empty.
        """
        if any(part.joints is None for part in parts):
            parts = [replace(part, joints=None, joints_var=None, joints_cov=None, holding=None) for part in parts]
        return super().cat(parts)


@torch.no_grad()
def field_from_pose(model: HandModel, pose: HandPose, object_mesh: ObjectMesh | Sequence[ObjectMesh]) -> ContactField:
    """Ground-truth contact field of ``pose``, object frame, metres.

    Contact is the capsule value (Grady et al., CVPR 2021) measured to the surfaces themselves, not to their
    samples: object points use the closest point of the hand's skin, hand points the object's signed distance.
    Correspondence follows TOCH (Zhou et al., ECCV 2022): outside the hand the first skin met along the
    outward normal, unless the object itself is met before; inside the hand the skin met inwards.

    Args:
        model: hand model; either side.
        pose: ``B`` hands. A left hand's field also lives on the *right* canonical hand.
        object_mesh: one object for the batch, or one per grasp (with equal numbers of points).

    Returns:
        A field over ``object.points`` and ``model.contact_points`` with zero variances, on the CPU.

    Raises:
        ValueError: the number of objects differs from the number of hands, or a vertex is not finite.
    """
    batch = len(pose)
    objects = list(object_mesh) if isinstance(object_mesh, Sequence) else [object_mesh] * batch
    if len(objects) != batch:
        raise ValueError(f"object_mesh: {len(objects)} objects for {batch} hands; give one, or one per hand.")
    vertices = model(pose).vertices
    if not vertices.isfinite().all():
        raise ValueError("pose: NaN or infinite vertices; drop such hands first: pose[pose.finite()].")
    skin = _Skin.of(model, pose.side)
    probes = {key: _Probe.of(o) for key, o in {id(o): o for o in objects}.items()}
    pairs = list(zip(vertices, objects, strict=True))
    rows = [_one_hand(skin, v, probes[id(o)]) for v, o in pairs]
    columns = {k: torch.stack([r[k] for r in rows]) for k in rows[0]} if rows else _empty()
    signed = [o.grid.query(v[None, model.contact_points])[0] for v, o in pairs]
    signed_distance = torch.cat(signed) if signed else torch.zeros(0, len(model.contact_points))
    hand_contact = contact_at_distance(signed_distance)
    zero = torch.zeros_like(columns["contact"])
    return ContactField(
        **columns,
        contact_var=zero, canonical_var=zero, gap_var=zero,
        hand_contact=hand_contact, hand_contact_var=torch.zeros_like(hand_contact),
    )  # fmt: skip


def _empty() -> dict[str, Tensor]:
    """Columns of a batch of no hands."""
    flat = {name: torch.zeros(0, 0) for name in ("contact", "near", "gap")}
    return {**flat, "part": torch.zeros(0, 0, NUM_PARTS), "canonical": torch.zeros(0, 0, 3)}


@dataclass(frozen=True)
class _Skin:
    """What is the same for every hand: triangles (closed at the wrist) and what hangs on their corners."""

    faces: np.ndarray
    """(F', 3) int64, outward"""
    is_cap: np.ndarray
    """(F',) bool: closes the wrist, is not skin"""
    canonical: np.ndarray
    """(V, 3)"""
    part: np.ndarray
    """(V,)"""

    @staticmethod
    def of(model: HandModel, side: str) -> _Skin:
        faces = np.ascontiguousarray(model.faces_for(side, closed=True).numpy(), dtype=np.int64)
        base = len(model.template) ** np.arange(3)  # a triangle's corners in order, as one number
        skin, closed = (np.sort(f, axis=1) @ base for f in (model.faces.numpy(), faces))
        is_cap = ~np.isin(closed, skin)
        return _Skin(faces, is_cap, model.rest_canonical.double().numpy(), model.part_of_vertex.numpy())


@dataclass(frozen=True)
class _Probe:
    """An object's sample points with the room there is around them along the normals."""

    points: np.ndarray
    normals: np.ndarray
    clearance: np.ndarray
    """(n,) metres outwards to where the object meets itself (infinite for a convex one)"""
    thickness: np.ndarray
    """(n,) metres inwards to the far side"""

    @staticmethod
    def of(object_mesh: ObjectMesh) -> _Probe:
        points, normals, vertices, thickness = (
            np.ascontiguousarray(values.double().numpy())
            for values in (object_mesh.points, object_mesh.normals, object_mesh.vertices, object_mesh.thickness)
        )
        faces = np.ascontiguousarray(object_mesh.faces.numpy(), dtype=np.int64)
        # As TOCH's program: start 0.1 mm clear of the triangle the point lies on.
        return _Probe(points, normals, first_hit(vertices, faces, points, normals, 1e-4), thickness)


def _one_hand(skin: _Skin, vertices: Tensor, probe: _Probe) -> dict[str, Tensor]:
    """The object's columns of the field for one posed hand, vertices (V, 3)."""
    hand = vertices.double().numpy()
    scaled, tree = np.ascontiguousarray(hand * RAY_UNITS), igl.AABB()
    tree.init(scaled, skin.faces)
    # The exact closest point matters, and is quick to find, near the skin only; a vertex will do far away.
    # No point of the skin is farther than this from a vertex: a triangle's longest edge over root three.
    corners = hand[skin.faces[~skin.is_cap]]
    spacing = np.sqrt(((corners - np.roll(corners, -1, axis=1)) ** 2).sum(-1).max() / 3.0)
    distance, vertex = cKDTree(hand).query(probe.points)
    closest, closest_face = hand[vertex], np.full(len(vertex), -1)
    by_skin = np.flatnonzero(distance < _EXACT_WITHIN + spacing)
    if len(by_skin):
        queries = probe.points[by_skin] * RAY_UNITS
        _, closest_face[by_skin], exact = tree.squared_distance(scaled, skin.faces, queries)
        closest[by_skin] = exact / RAY_UNITS
    offset = torch.from_numpy(closest - probe.points)
    contact = contact_value(axis_distance(offset, torch.from_numpy(probe.normals)))

    within = np.flatnonzero(distance <= _OUTWARD + spacing)  # else no ray can be short enough
    face, gap, weight = _cast(tree, scaled, skin, probe, within)
    missed = np.flatnonzero((face < 0) & (distance[within] < _TOUCHING + spacing))
    ids = within[missed]
    hits = _closest_as_hit(hand, skin, probe, ids, closest_face[ids], closest[ids])
    face[missed], gap[missed], weight[missed] = hits

    hit = face >= 0
    points, corners = within[hit], skin.faces[face[hit]]
    n = len(probe.points)
    near, gaps, canonical = np.zeros(n, np.float32), np.zeros(n, np.float32), np.zeros((n, 3), np.float32)
    part = np.full((n, NUM_PARTS), 1.0 / NUM_PARTS, np.float32)
    near[points], gaps[points] = 1.0, gap[hit]
    canonical[points] = np.einsum("kc,kcx->kx", weight[hit], skin.canonical[corners])
    dominant = corners[np.arange(len(corners)), weight[hit].argmax(1)]
    part[points] = np.eye(NUM_PARTS, dtype=np.float32)[skin.part[dominant]]
    columns = {"near": near, "gap": gaps, "canonical": canonical, "part": part}
    return {"contact": contact.float(), **{k: torch.from_numpy(v) for k, v in columns.items()}}


def _cast(
    tree: igl.AABB, scaled: np.ndarray, skin: _Skin, probe: _Probe, ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follow the normals of the object points ``ids (m,)`` to the hand ``scaled (V, 3)``, in ray units.

    Returns:
        face ``(m,)`` or -1, signed gap ``(m,)``, barycentric weights ``(m, 3)``.
    """
    m = len(ids)
    face, gap, weight = np.full(m, -1), np.zeros(m), np.zeros((m, 3))
    if m == 0:
        return face, gap, weight
    points, normals = probe.points[ids], probe.normals[ids]
    # libigl loses rays that run exactly along an edge, which aligned shapes make common: step off by 1 µm.
    origins = points - _INWARD * normals + np.array([0.53, 0.61, 0.59]) * 1e-6
    hits = tree.intersect_ray(scaled, skin.faces, origins * RAY_UNITS, normals)
    counts = np.fromiter(map(len, hits), np.int64, m)
    table = np.array([h for row in hits for h in row]).reshape(-1, 4)  # face, t, u, v
    ray, tri = np.repeat(np.arange(m), counts), table[:, 0].astype(np.int64)
    t = table[:, 1] / RAY_UNITS - _INWARD
    a, b, c = (scaled[skin.faces[tri, k]] for k in range(3))
    entering = (np.cross(b - a, c - a) * normals[ray]).sum(1) < 0  # into the hand, seen along the normal

    def first(key: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Per ray the chosen hit with the smallest key (index into the table) and whether there is one."""
        order = np.flatnonzero(chosen)
        order = order[np.lexsort((key[order], ray[order]))]
        rays, start = np.unique(ray[order], return_index=True)
        found, best = np.zeros(m, bool), np.zeros(m, np.int64)
        found[rays], best[rays] = True, order[start]
        return best, found

    ahead, has_ahead = first(t, t > 0)
    behind, has_behind = first(-t, (t <= 0) & entering)
    if len(t) == 0:
        return face, gap, weight
    outside = has_ahead & entering[ahead] & (t[ahead] <= np.minimum(probe.clearance[ids], _OUTWARD))
    inside = has_ahead & ~entering[ahead]  # the next skin is met from within
    inside &= has_behind & (-t[behind] <= probe.thickness[ids] + _BEYOND_THICKNESS)
    best = np.where(inside, behind, ahead)
    valid = (inside | outside) & ~skin.is_cap[tri[best]]
    face[valid], gap[valid] = tri[best][valid], t[best][valid]
    u, v = table[best, 2], table[best, 3]
    weight[valid] = np.stack([1.0 - u - v, u, v], 1)[valid]
    return face, gap, weight


def _closest_as_hit(
    hand: np.ndarray, skin: _Skin, probe: _Probe, ids: np.ndarray, face: np.ndarray, closest: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same three columns as `_cast` from the closest points, for object points that all but touch."""
    corners = hand[skin.faces[face]]
    edge_ab, edge_ac = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normals, offset = probe.normals[ids], closest - probe.points[ids]
    gap = (offset * normals).sum(1)
    sideways = np.linalg.norm(offset - gap[:, None] * normals, axis=1)
    ok = (np.linalg.norm(offset, axis=1) <= _TOUCHING) & (sideways <= _SIDEWAYS) & ~skin.is_cap[face]
    ok &= (np.cross(edge_ab, edge_ac) * normals).sum(1) < 0
    # Barycentric weights of a point in the plane of the triangle, by least squares on two edges.
    rel = closest - corners[:, 0]
    d00, d01, d11 = (edge_ab**2).sum(1), (edge_ab * edge_ac).sum(1), (edge_ac**2).sum(1)
    d20, d21 = (rel * edge_ab).sum(1), (rel * edge_ac).sum(1)
    det = np.maximum(d00 * d11 - d01**2, 1e-30)
    v, w = (d11 * d20 - d01 * d21) / det, (d00 * d21 - d01 * d20) / det
    return np.where(ok, face, -1), gap, np.stack([1.0 - v - w, v, w], 1)
