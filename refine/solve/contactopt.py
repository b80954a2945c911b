"""ContactOpt's published procedure, as a baseline to stand beside ours and for ``method="contactopt"``.

Grady, Tang, Twigg, Vo, Brahmbhatt, Kemp, "ContactOpt: Optimizing Contact to Improve Grasps", CVPR 2021:
first-order descent on the difference between a target contact map and the capsule contact of the current
hand, from eight randomly displaced starts. Numbers below are those of the paper and its published program.

What differs, by necessity:

- The program optimises 15 principal components of MANO's pose space. Other hands have no such space, so the
  articulation moves along flexion, abduction and twist of every joint, the latter two with smaller steps, as
  grasping hands do. ``components`` brings principal components back for a hand that has them.
- Hand points are the model's ``contact_points`` instead of all vertices of MANO.
- The program knows thin objects (penetration allowance zero) by their vertex counts; here they are those with
  a small median thickness.
- All restarts run side by side in one batch; they do not influence one another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from contact.capsule import Capsule, contact_of_hand, contact_of_object, gather_points, nearest_index
from contact.field import ContactField
from contact.objects import ObjectMesh
from hand_models.anatomy import from_anatomical
from hand_models.model import HandModel
from hand_models.pose import HandPose
from hand_models.record import Record
from hand_models.rotations import exp_so3, log_so3

Progress = Callable[[int, int, Tensor], None]
"""Called after every step with steps done, steps in total and the losses ``(hands, restarts)`` at hand."""


DESCENT_CAPSULE = Capsule(bottom=-0.001)
"""While optimising, the program's capsules end 1 mm below the surface (1.5 mm in its ground truth)."""


@dataclass(frozen=True)
class ContactOptSettings:
    """Constants of the procedure. The defaults are those published for Perturbed ContactPose."""

    learning_rate: float = 0.01
    """AMSGrad's step, in radians of articulation and of wrist rotation."""
    translation_scale: float = 0.3
    """Translation in metres per unit of its unknown, so a step is at most 3 mm."""
    object_weight: float = 1.0
    """Of the object's contact map in the loss."""
    hand_weight: float = 2.0
    """Of the hand's contact map in the loss."""
    missing_weight: float = 2.0
    """Extra weight of contact that is wanted but missing, over contact that is there but unwanted."""
    penetration_weight: float = 600.0
    """Per metre of mean penetration."""
    penetration_allowed: float = 0.002
    """Metres of penetration that cost nothing: soft tissue."""
    thin: float = 0.005
    """Metres of median thickness below which an object allows no penetration."""
    restart_translation: float = 0.04
    """Standard deviation of the displacement of a start, metres per axis."""
    restart_rotation: float = 5.0
    """Standard deviation of the turn of a start, degrees for each of three axes."""
    capsule: Capsule = DESCENT_CAPSULE
    articulation: tuple[float, float, float] = (1.0, 0.35, 0.2)
    """Radians of flexion, abduction and twist per unit of their unknowns. Ours, in place of the components."""

    @staticmethod
    def for_images() -> ContactOptSettings:
        """The constants published for hands estimated from images."""
        return ContactOptSettings(hand_weight=2.5, penetration_weight=320.0, restart_translation=0.02)


DEFAULT_SETTINGS = ContactOptSettings()


def contactopt(
    model: HandModel,
    pose: HandPose,
    objects: ObjectMesh | Sequence[ObjectMesh],
    field: ContactField,
    *,
    iterations: int = 250,
    restarts: int = 8,
    seed: int = 0,
    settings: ContactOptSettings = DEFAULT_SETTINGS,
    components: Tensor | None = None,
    chunk: int = 32,
    progress: Progress | None = None,
) -> HandPose:
    """Move hands until their contact matches ``field.contact`` and ``field.hand_contact``.

    Args:
        model: the hand.
        pose: ``B`` hands in the object frame; betas stay as they are.
        objects: one object for the batch, or one per hand with equal numbers of points.
        field: target contact over ``points`` of the objects and ``contact_points`` of the model.
        iterations: evaluations of the loss per start.
        restarts: starts per hand, every one displaced at random; 1 starts from the hand as it is.
        seed: of the starts; the starts of a hand depend on the seed and its place in the batch only.
        components: ``(K, 45)`` rows that span the articulation, e.g. ``hands_components[:15]`` of MANO.
        chunk: hands worked on at once, which bounds memory.
        progress: see `Progress`.

    Returns:
        The end of the start with the smallest final loss, per hand.

    Raises:
        ValueError: field, objects and hands do not fit together, or a count is not positive.
    """
    meshes = list(objects) if isinstance(objects, Sequence) else [objects]
    _check(model, pose, meshes, field, iterations, restarts, chunk)
    device = model.template.device
    pose = pose.to(device).detach()
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(pose), restarts, 6, generator=generator).to(device)
    if restarts == 1:
        noise = torch.zeros_like(noise)
    done, total, ends = 0, iterations * -(-len(pose) // chunk), []
    for start in range(0, len(pose), chunk):
        rows = slice(start, start + chunk)
        maps = (t[rows].detach().to(device) for t in (field.contact, field.hand_contact))
        targets = tuple(t.repeat_interleave(restarts, 0) for t in maps)
        surface = _Surface.of(meshes if len(meshes) == 1 else meshes[rows], settings, device)
        if len(meshes) > 1:
            surface = surface.repeat_interleave(restarts)
        begin = _displaced(model, pose[rows].repeat_interleave(restarts), noise[rows].flatten(0, 1), settings)
        hand = _Unknowns(model, begin, settings, components)

        for step in range(iterations):
            loss = _loss(hand.points(), surface, targets, settings)
            if step + 1 < iterations:  # the last evaluation judges the result, as in the program
                hand.descend(loss)
            done += 1
            if progress is not None:
                progress(done, total, loss.detach().reshape(-1, restarts))
        best = loss.detach().nan_to_num(torch.inf).reshape(-1, restarts).argmin(1)
        ends.append(hand.pose()[torch.arange(len(best), device=device) * restarts + best])
    return HandPose.cat(ends) if ends else pose


def _check(
    model: HandModel,
    pose: HandPose,
    meshes: list[ObjectMesh],
    field: ContactField,
    iterations: int,
    restarts: int,
    chunk: int,
) -> None:
    for name, value in (("iterations", iterations), ("restarts", restarts), ("chunk", chunk)):
        if value < 1:
            raise ValueError(f"{name}: got {value}; it must be at least 1.")
    if len(meshes) not in (1, len(pose)):
        raise ValueError(f"objects: {len(meshes)} for {len(pose)} hands; give one, or one per hand.")
    expected = (len(pose), len(meshes[0].points)), (len(pose), len(model.contact_points))
    got = tuple(field.contact.shape), tuple(field.hand_contact.shape)
    if got != expected:
        raise ValueError(
            f"field: contact and hand_contact have shapes {got}, expected {expected}; "
            "make the field from these hands, this model and these objects."
        )


@dataclass(frozen=True)
class _Surface(Record):
    """Sampled object surfaces, ``(B or 1, n, 3)``, and the penetration each allows, ``(B or 1, 1)`` metres."""

    points: Tensor
    normals: Tensor
    allowed: Tensor

    @staticmethod
    def of(meshes: list[ObjectMesh], settings: ContactOptSettings, device: torch.device) -> _Surface:
        thin = torch.stack([m.thickness.median() < settings.thin for m in meshes]).to(device)
        return _Surface(
            torch.stack([m.points for m in meshes]).to(device),
            torch.stack([m.normals for m in meshes]).to(device),
            settings.penetration_allowed * (~thin)[:, None].float(),
        )


def _displaced(model: HandModel, pose: HandPose, noise: Tensor, settings: ContactOptSettings) -> HandPose:
    """Starts: turned about the origin of the hand's template, which moves along, and shifted."""
    angle = noise[:, 3:] * settings.restart_rotation * torch.pi / 180
    axes = torch.eye(3, dtype=angle.dtype, device=angle.device)
    about_x, about_y, about_z = (exp_so3(angle[:, 2 - k, None] * axes[k]) for k in range(3))
    turn = about_z @ about_y @ about_x
    root = model.root(pose)
    origin = root + pose.transl - (exp_so3(pose.global_orient) @ root[..., None])[..., 0]
    shift = origin - (turn @ origin[..., None])[..., 0] + settings.restart_translation * noise[:, :3]
    return pose.transformed(turn, shift, root)


class _Unknowns:
    """The variables of a batch of descents, all zero at the start, and the hand they stand for."""

    def __init__(
        self, model: HandModel, start: HandPose, settings: ContactOptSettings, components: Tensor | None
    ) -> None:
        self._model, self._start, self._settings = model, start, settings
        self._components = None if components is None else components.to(start.transl)
        width = 45 if components is None else len(components)
        self._pivot = (model.root(start) + start.transl)[:, None]
        self._orient = exp_so3(start.global_orient)
        self._x = torch.zeros(len(start), 6 + width, device=start.transl.device, requires_grad=True)
        self._optimizer = torch.optim.Adam([self._x], lr=settings.learning_rate, amsgrad=True)

    def _moved(self) -> tuple[Tensor, Tensor, Tensor]:
        """World rotation about the root (B, 3, 3), translation (B, 3), hand pose (B, 15, 3)."""
        turn = self._orient @ exp_so3(self._x[:, :3]) @ self._orient.transpose(-1, -2)
        bend = self._x[:, 6:]
        if self._components is None:
            scale = bend.new_tensor(self._settings.articulation)
            bend = from_anatomical(bend.reshape(-1, 15, 3) * scale, side=self._start.side)
        else:
            bend = (bend @ self._components).reshape(-1, 15, 3)
        return turn, self._settings.translation_scale * self._x[:, 3:6], self._start.hand_pose + bend

    def points(self) -> Tensor:
        """(B, P, 3) contact points. Turned outside the model, so that no rotation vector comes near pi."""
        turn, shift, hand_pose = self._moved()
        points = self._model(replace(self._start, hand_pose=hand_pose)).vertices[:, self._model.contact_points]
        return (points - self._pivot) @ turn.transpose(-1, -2) + self._pivot + shift[:, None]

    def descend(self, loss: Tensor) -> None:
        """One step of AMSGrad. The mean couples nothing: every hand has its own variables."""
        self._optimizer.zero_grad()
        loss.mean().backward()
        self._optimizer.step()

    @torch.no_grad()
    def pose(self) -> HandPose:
        """The hand as it now is."""
        turn, shift, hand_pose = self._moved()
        orient = log_so3(turn @ self._orient)
        moved = self._start.transl + shift
        return replace(self._start, global_orient=orient, hand_pose=hand_pose, transl=moved)


def _loss(hand: Tensor, surface: _Surface, targets: tuple[Tensor, ...], settings: ContactOptSettings) -> Tensor:
    """Loss ``(B,)`` of hand points ``(B, P, 3)``: contact of object and of hand, and penetration."""
    detached = hand.detach()
    to_hand = nearest_index(surface.points.expand(len(hand), -1, -1), detached)
    to_object = nearest_index(detached, surface.points)
    capsule = settings.capsule
    of_object = contact_of_object(surface.points, surface.normals, hand, capsule=capsule, nearest=to_hand)
    of_hand = contact_of_hand(hand, surface.points, surface.normals, capsule=capsule, nearest=to_object)

    below = gather_points(surface.points, to_object) - hand
    depth = (below * gather_points(surface.normals, to_object)).sum(-1)
    penetration = (depth - surface.allowed).relu().mean(1)
    return (
        settings.object_weight * map_difference(of_object, targets[0], settings.missing_weight)
        + settings.hand_weight * map_difference(of_hand, targets[1], settings.missing_weight)
        + settings.penetration_weight * penetration
    )


def map_difference(contact: Tensor, target: Tensor, missing_weight: float) -> Tensor:
    """Mean absolute difference ``(B,)`` of contact maps ``(B, n)``, missing contact ``1 + missing_weight`` times."""
    difference = target - contact
    return (difference + missing_weight * difference.relu()).abs().mean(1)
