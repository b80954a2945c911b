"""`refine_grasp`: noisy hands and an object in, refined hands out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contact import weights as shipped
from contact.features import observe
from contact.field import ContactField
from contact.hierarchy import LEVELS
from contact.network import ContactNet
from contact.object_set import ObjectSet
from contact.objects import ObjectMesh
from hand_models import HandModel, HandPose, load_hand_model

from .config import RefineConfig
from .inputs import as_hand_pose, as_object_pose, check_reach
from .optimize import optimise
from .prediction_poses import into_camera_frame, into_object_frame
from .result import RefineResult, statuses
from .score import load_score, plausibility, score


@dataclass(frozen=True)
class Refined:
    """Outcome for ``B`` right hands in the object frame, before it is dressed up as a `RefineResult`."""

    pose: HandPose
    field: ContactField
    accepted: Tensor
    """(B,) bool"""
    score_before: Tensor
    score_after: Tensor
    steps: Tensor


def refine_grasp(
    hand_pose: Any,
    object_mesh: Any,
    *,
    object_pose: Any = None,
    side: str = "right",
    config: RefineConfig | None = None,
    hand_model: HandModel | None = None,
    seed: int = 0,
) -> RefineResult:
    """Make a roughly right grasp physically right.

    A network predicts from the noisy hand and the object where they touch, which part of the hand touches
    where, and how sure it is; a Gauss–Newton solver moves the hand there without letting it sink in. A hand
    that is already more plausible than what the solver finds is returned unchanged, status ``kept``.

    Args:
        hand_pose: one hand or a batch of ``B``: a `HandPose`; a dict with ``global_orient (3)``,
            ``hand_pose (45)`` and optionally ``betas (10)``, ``transl (3)``; a vector of 51
            (``global_orient, hand_pose, transl``) or 61 (``global_orient, hand_pose, betas, transl``); or
            ``(21, 3)`` joints, metres, OpenPose order. Angles are axis-angle, absolute (``flat_hand_mean``).
        object_mesh: a path, a ``trimesh.Trimesh``, ``(vertices, faces)`` or an `ObjectMesh`, metres.
        object_pose: 4×4 object to camera, or ``(B, 4, 4)``, when the hands are in the camera's frame;
            None when hand and object share a frame.
        side: "right" or "left", for forms of ``hand_pose`` that do not say it.
        config: see `RefineConfig`.
        hand_model: None for the open hand; `hand_models.load_hand_model("mano")` for MANO.
        seed: of everything random; equal inputs and seeds give equal results.

    Returns:
        `RefineResult`; hands with NaN or infinity come back as they are, status ``failed``.

    Raises:
        ValueError: an argument is of the wrong kind, shape, unit or frame; all hands are NaN.
        FileNotFoundError: a mesh path or the weights do not exist.
    """
    config, model = _options(config, hand_model)
    given = as_hand_pose(hand_pose, model, side)
    obj = ObjectMesh.from_any(object_mesh)
    if len(obj.points) != LEVELS[0]:
        raise ValueError(
            f"object_mesh: an ObjectMesh of {len(obj.points)} points; make it with n_points={LEVELS[0]}, the default."
        )
    camera = None
    if object_pose is not None:
        rotation, translation = as_object_pose(object_pose, len(given))
        camera = torch.eye(4).repeat(len(given), 1, 1)
        camera[:, :3, :3], camera[:, :3, 3] = rotation, translation
    finite = given.finite()
    if not finite.any():
        raise ValueError("hand_pose: every hand holds NaN or infinity; check the estimator's output.")
    pose = into_object_frame(given, camera, model)
    check_reach(pose, model, obj.points.mean(0), float(obj.diameter))

    # Everything inside is a right hand: a left one is refined in the mirror.
    right_model = model if model.side == "right" else model.mirrored()
    mirrored = pose.side == "left"
    scene = obj.mirrored() if mirrored else obj
    inside = (pose.mirrored() if mirrored else pose)[finite]
    refined = refine_right_hands(inside, scene, right_model, config, seed)
    outcome = refined.pose.mirrored() if mirrored else refined.pose
    field = refined.field.mirrored() if mirrored else refined.field

    rows = finite.nonzero()[:, 0]
    result_pose = _fill(pose, rows, outcome)
    accepted = torch.zeros(len(pose), dtype=torch.bool).index_copy(0, rows, refined.accepted)
    before, after = model(pose), model(result_pose)
    metrics = _measure(model, obj, before.vertices, after.vertices, pose.side, config, finite)
    back = into_camera_frame(result_pose, camera, model)
    # A pose that was kept is returned as it came, not as two changes of frame left it.
    final = _fill(given, accepted.nonzero()[:, 0], back[accepted])

    def spread(values: Tensor) -> np.ndarray:
        full = values.new_full((len(pose), *values.shape[1:]), torch.nan)
        return full.index_copy(0, rows, values).numpy()

    assert refined.field.joints_var is not None
    return RefineResult(
        pose=final,
        initial_pose=given,
        vertices_before=before.vertices,
        vertices_after=after.vertices,
        joints_before=before.joints,
        joints_after=after.joints,
        contact=field.map(lambda t: t.new_full((len(pose), *t.shape[1:]), torch.nan).index_copy(0, rows, t)),
        metrics=metrics,
        status=statuses(finite.tolist(), accepted.tolist()),
        score_before=spread(refined.score_before),
        score_after=spread(refined.score_after),
        uncertainty=spread(refined.field.joints_var.sqrt()),
        steps=np.where(finite.numpy(), spread(refined.steps.float()), 0).astype(np.int64),
        object=obj,
        object_pose=None if camera is None else camera.numpy(),
        faces=model.faces_for(pose.side).numpy(),
        hand_model=model,
    )


def _options(config: RefineConfig | None, hand_model: HandModel | None) -> tuple[RefineConfig, HandModel]:
    """Defaults where None is given; ``ValueError`` for anything but the two classes."""
    if config is not None and not isinstance(config, RefineConfig):
        raise ValueError(
            f"config: got {type(config).__name__}; pass a RefineConfig, e.g. RefineConfig(gate=False)."
        )
    if hand_model is not None and not isinstance(hand_model, HandModel):
        raise ValueError(
            f"hand_model: got {type(hand_model).__name__}; pass a HandModel, e.g. load_hand_model('mano')."
        )
    return config or RefineConfig(), hand_model or load_hand_model("open")


@torch.no_grad()
def refine_right_hands(
    pose: HandPose, obj: ObjectMesh, model: HandModel, config: RefineConfig, seed: int
) -> Refined:
    """Refine ``B`` finite right hands in the object's frame, in batches of ``config.batch_size``."""
    objects = ObjectSet.of([obj])
    weights = Path(config.weights) if config.weights else shipped.DEFAULT
    network, judge = _network(weights), load_score(weights)
    margin = judge.margin if config.margin is None else config.margin
    parts = []
    for start in range(0, len(pose), config.batch_size):
        rows = pose[start : start + config.batch_size]
        which = torch.zeros(len(rows), dtype=torch.long)
        field = predict_field(network, model, objects, which, rows)
        if config.method == "contactopt":
            from .baseline import contactopt

            with torch.enable_grad():  # it descends by autograd
                found = contactopt(model, rows, obj, field, seed=seed)
            steps = torch.full((len(rows),), 250)
        else:
            solution = optimise(model, objects, which, rows, field, config)
            found, steps = solution.pose, solution.iterations
        before, after = (score(plausibility(model, objects, which, p, field), judge) for p in (rows, found))
        accepted = found.finite() & ((after > before + margin) | (not config.gate))
        pick = accepted.nonzero()[:, 0]
        after = torch.where(accepted, after, before)
        parts.append(Refined(_fill(rows, pick, found[pick]), field, accepted, before, after, steps))
    return Refined(
        HandPose.cat([p.pose for p in parts]),
        ContactField.cat([p.field for p in parts]),
        *(
            torch.cat([getattr(p, n) for p in parts])
            for n in ("accepted", "score_before", "score_after", "steps")
        ),
    )


def predict_field(
    network: ContactNet, model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose
) -> ContactField:
    """What the network makes of ``B`` noisy right hands, object frame."""
    observation = observe(
        model, pose, objects.points[which], objects.normals[which], objects.thickness[which]
    )
    return network.predict(model, observation, objects.hierarchy[which])


def _network(path: Path) -> ContactNet:
    """The network, read once; again when the file has changed, as after another training."""
    return _load_network(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=4)
def _load_network(path: Path, changed: int) -> ContactNet:
    return shipped.load_network(path)


def _fill(pose: HandPose, rows: Tensor, new: HandPose) -> HandPose:
    """``pose`` with the hands at ``rows`` replaced."""
    names = ("global_orient", "hand_pose", "betas", "transl")
    return HandPose(pose.side, *(getattr(pose, n).index_copy(0, rows, getattr(new, n)) for n in names))


def _measure(
    model: HandModel,
    obj: ObjectMesh,
    before: Tensor,
    after: Tensor,
    side: str,
    config: RefineConfig,
    finite: Tensor,
) -> dict[str, np.ndarray]:
    """Penetration depth, intersection volume and contact of the hands before and after."""
    from .metrics import contact_ratio, intersection_volume, penetration_depth

    faces = model.faces_for(side)
    result: dict[str, np.ndarray] = {}
    for when, vertices in (("before", before), ("after", after)):
        usable = vertices[finite]
        values = {
            "penetration_mm": 1000 * penetration_depth(usable, obj),
            "contact_ratio": contact_ratio(usable, obj),
        }
        if config.volumes:
            values["volume_cm3"] = 1e6 * intersection_volume(usable, faces, obj)
        for name, value in values.items():
            full = np.full(len(finite), np.nan, np.float32)
            full[finite.numpy()] = np.asarray(value)
            result[f"{name}_{when}"] = full
    return result
