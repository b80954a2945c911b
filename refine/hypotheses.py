"""From noisy hands to refined ones: several plausible contact fields per grasp, each solved, the best one kept.

A network that sees a noisy hand cannot always tell how the hand is meant to hold the object. Its latent gives
``K`` fields that fit what it saw; all of them are solved side by side, and the score of `refine.score`, taken
against the mean prediction, says which solution is returned and whether it is better than the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from contact import weights as shipped
from contact.features import Observation, observe
from contact.field import ContactField
from contact.hierarchy import PointHierarchy
from contact.network import ContactNet, Encoding
from contact.object_set import ObjectSet
from contact.objects import ObjectMesh
from hand_models import HandModel, HandPose

from .config import RefineConfig
from .optimize import align, joint_variance, settle
from .priors import PosePrior
from .score import ScoreWeights, load_score, margin_against, plausibility, score

DRAWN_POINTS = 512
"""Object points that drawn fields cover: of the mean prediction's 2,048 the optimiser uses 160."""


@dataclass(frozen=True)
class Refined:
    """Outcome for ``B`` right hands in the object frame, before it is dressed up as a `RefineResult`."""

    pose: HandPose
    field: ContactField
    """the mean prediction"""
    accepted: Tensor
    """(B,) bool"""
    score_before: Tensor
    """(B,)"""
    margin: Tensor
    """(B,) how much higher than before a result had to score to be accepted"""
    score_after: Tensor
    """(B,) of the returned hand"""
    steps: Tensor
    """(B,) evaluations of the solve that gave the result"""
    variance: Tensor
    """(B, 21) square metres per axis: of each joint of the returned hand, uncalibrated"""


@dataclass(frozen=True)
class Candidates:
    """The best of ``K`` solutions for each of ``B`` hands."""

    pose: HandPose
    score: Tensor
    """(B,)"""
    variance: Tensor
    """(B, 21) square metres per axis"""
    steps: Tensor
    """(B,)"""


@torch.no_grad()
def refine_right_hands(
    pose: HandPose,
    meshes: Sequence[ObjectMesh],
    which: Tensor,
    model: HandModel,
    config: RefineConfig,
    seed: int = 0,
    prior: PosePrior | None = None,
) -> Refined:
    """Refine ``B`` finite right hands in their objects' frames.

    ``config.hypotheses`` times as many problems are solved, at most ``config.batch_size`` at once.

    Args:
        which: ``(B,)`` which of the meshes each hand holds.
        prior: what else is known of the hands; the method "contactopt" has no use for it.

    Raises:
        FileNotFoundError: the weights do not exist.
        ValueError: they are not weights of this network.
    """
    device = torch.device(config.device)
    weights = weights_path(config)
    network, judge = load_weights(weights).to(device), load_score(weights)
    model, objects = model.to(device), ObjectSet.of(meshes).to(device)
    parts = []
    for rows in torch.arange(len(pose)).split(max(1, config.batch_size // config.hypotheses)):
        given, index = pose[rows].to(device), which[rows].to(device)
        sight = Sight.of(network, model, objects, index, given)
        field = sight.mean()
        if config.method == "contactopt":
            held = [meshes[i] for i in which[rows].tolist()]
            best = _descend(model, objects, held, index, given, field, judge, seed)
        else:
            fields = draw_fields(sight, field, config.hypotheses, seed)
            known = None if prior is None else prior[rows].to(device)
            best = solve_best(model, objects, index, given, field, fields, judge, config, known)
        as_given = plausibility(model, objects, index, given, field)
        before = score(as_given, judge)
        margin = margin_against(as_given, judge, config.margin, stated=prior is not None)
        accepted = best.pose.finite() & ((best.score > before + margin) | (not config.gate))
        own = expected_variance(model.joints(given), field)
        parts.append(
            Refined(
                select(accepted, best.pose, given).to("cpu"),
                field.to("cpu"),
                accepted.cpu(),
                before.cpu(),
                margin.cpu(),
                torch.where(accepted, best.score, before).cpu(),
                best.steps.cpu(),
                torch.where(accepted[:, None], best.variance, own).cpu(),
            )
        )
    names = ("accepted", "score_before", "margin", "score_after", "steps", "variance")
    return Refined(
        HandPose.cat([p.pose for p in parts]),
        ContactField.cat([p.field for p in parts]),
        *(torch.cat([getattr(p, name) for p in parts]) for name in names),
    )


@dataclass(frozen=True)
class Sight:
    """What the network has seen of ``B`` noisy right hands, before the latent comes in."""

    network: ContactNet
    model: HandModel
    observation: Observation
    hierarchy: PointHierarchy
    encoding: Encoding

    @staticmethod
    @torch.no_grad()
    def of(network: ContactNet, model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose) -> Sight:
        """Look at the hands and their objects, object frame."""
        seen = observe(model, pose, objects.points[which], objects.normals[which], objects.thickness[which])
        hierarchy = objects.hierarchy[which]
        return Sight(network, model, seen, hierarchy, network.encode(seen, hierarchy))

    @torch.no_grad()
    def mean(self) -> ContactField:
        """The mean prediction, ``B`` rows."""
        raw = self.network.decode(self.encoding, self.observation, self.hierarchy, *self._skin())
        return raw.to_field(self.observation)

    @torch.no_grad()
    def draws(self, noise: Tensor) -> ContactField:
        """Plausible fields over the first `DRAWN_POINTS` object points.

        Args:
            noise: ``(K, Z)`` standard normal. All hands share it, so that none depends on its place in the batch.

        Returns:
            ``K · B`` rows, draw by draw.
        """
        count, batch, at = len(noise), len(self.observation.origin), slice(DRAWN_POINTS)
        rows = torch.arange(batch, device=noise.device).repeat(count)
        latent = self.network.prior(self.encoding).draw(noise[:, None].expand(-1, batch, -1)).flatten(0, 1)
        encoding = replace(self.encoding, fine=self.encoding.fine[:, at]).repeat(count)
        # The object's features have done their work in the encoding: not worth copying.
        seen = replace(self.observation, objects=self.observation.objects[:, :0])[rows]
        raw = self.network.decode(encoding, seen, self.hierarchy[rows], *self._skin(), at=at, latent=latent)
        return raw.to_field(seen)

    def _skin(self) -> tuple[Tensor, Tensor]:
        points = self.model.contact_points
        return self.model.rest_canonical[points], self.model.part_of_vertex[points]


def predict_field(
    network: ContactNet, model: HandModel, objects: ObjectSet, which: Tensor, pose: HandPose
) -> ContactField:
    """What the network makes of ``B`` noisy right hands, object frame."""
    return Sight.of(network, model, objects, which, pose).mean()


def draw_fields(sight: Sight, mean: ContactField, count: int, seed: int = 0) -> ContactField:
    """``count`` plausible contact fields for each of ``B`` noisy right hands, in the object frame.

    Args:
        mean: the mean prediction for them.
        count: fields per hand.
        seed: of the latents.

    Returns:
        ``count · B`` rows, field by field, the first ``B`` being the mean prediction; over all object points
        if that is all there is, else over the first `DRAWN_POINTS`, which are spread over the object.
    """
    if count == 1:
        return mean
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count - 1, sight.network.config.latent, generator=generator)
    return ContactField.cat([mean.at(slice(DRAWN_POINTS)), sight.draws(noise.to(mean.contact))])


def solve_best(
    model: HandModel,
    objects: ObjectSet,
    which: Tensor,
    pose: HandPose,
    mean: ContactField,
    fields: ContactField,
    judge: ScoreWeights,
    config: RefineConfig,
    prior: PosePrior | None = None,
) -> Candidates:
    """Solve every hypothesis and choose, per hand, the solution that scores best against the mean prediction.

    All are brought to where their field sees the hand; only the best ``config.finalists`` go on to settle on
    the surface, which is most of the work.

    Args:
        pose: ``B`` noisy right hands.
        mean: their mean prediction.
        fields: ``K · B`` rows, field by field.
        prior: what else is known of the hands.

    Returns:
        The variance is `solved_variance` of the chosen solution and that of the other hypotheses around it,
        each counted as its score says it is probable.
    """
    batch, count = len(pose), len(fields) // len(pose)
    hand = torch.arange(batch, device=which.device)

    def judged(found: HandPose, owner: Tensor) -> Tensor:
        parts = plausibility(model, objects, which[owner], found, mean[owner])
        return score(parts, judge).nan_to_num(-torch.inf).reshape(-1, batch)

    owner = hand.repeat(count)
    known = None if prior is None else prior[owner]
    aligned = align(model, objects, which[owner], pose[owner], fields, config, known)
    # A single hypothesis has won before it is scored.
    first = judged(aligned.pose, owner) if count > 1 else mean.contact.new_zeros(1, batch)
    finals = first.topk(min(config.finalists, count), dim=0).indices  # (F, B)
    rows, owner = (finals * batch + hand).flatten(), hand.repeat(len(finals))
    known = None if prior is None else prior[owner]
    settled = settle(
        model, objects, which[owner], pose[owner], fields[rows], config, aligned.pose[rows], prior=known
    )
    scores = judged(settled.pose, owner)
    chosen = scores.argmax(0) * batch + hand
    origin = rows[chosen]

    joints = model.joints(aligned.pose)
    away = (joints.unflatten(0, (count, batch)) - joints[origin]).square().mean(-1)  # (K, B, 21)
    spread = (first.softmax(0)[..., None] * away).sum(0)
    best = settled.pose[chosen]
    variance = solved_variance(model, best, settled.equations.hessian[chosen], fields[origin]) + spread
    steps = aligned.iterations[origin] + settled.iterations[chosen]
    return Candidates(best, scores.amax(0), variance, steps)


def _descend(
    model: HandModel,
    objects: ObjectSet,
    meshes: Sequence[ObjectMesh],
    which: Tensor,
    pose: HandPose,
    field: ContactField,
    judge: ScoreWeights,
    seed: int,
) -> Candidates:
    """ContactOpt's procedure instead; it has no posterior, the prediction has to say how far off it is."""
    from .baseline import contactopt

    with torch.enable_grad():  # it descends by autograd
        found = contactopt(model, pose, list(meshes), field, seed=seed)
    value = score(plausibility(model, objects, which, found, field), judge)
    variance = expected_variance(model.joints(found), field)
    return Candidates(found, value, variance, torch.full((len(pose),), 250))


def solved_variance(model: HandModel, pose: HandPose, hessian: Tensor, field: ContactField) -> Tensor:
    """(B, 21) square metres per axis: of the posterior, and of the error that all of a field's values share.

    The posterior treats what the field says of many points and joints as independent. What is wrong with all of
    it at once does not average out, and is as large as what the network states for one joint.
    """
    assert field.joints_var is not None
    return joint_variance(model, pose, hessian) + field.joints_var


def expected_variance(joints: Tensor, field: ContactField) -> Tensor:
    """(B, 21) square metres per axis: how far off the prediction believes ``joints (B, 21, 3)`` to be."""
    assert field.joints is not None
    assert field.joints_var is not None
    return (joints - field.joints).square().mean(-1) + field.joints_var


def select(condition: Tensor, yes: HandPose, no: HandPose) -> HandPose:
    """Hand by hand ``yes`` where ``condition (B,)`` holds, else ``no``."""

    def pick(name: str) -> Tensor:
        a, b = getattr(yes, name), getattr(no, name)
        return torch.where(condition.view(-1, *[1] * (a.ndim - 1)), a, b)

    return HandPose(no.side, *(pick(n) for n in ("global_orient", "hand_pose", "betas", "transl")))


def weights_path(config: RefineConfig) -> Path:
    """Where the network's weights are."""
    return Path(config.weights) if config.weights else shipped.DEFAULT


def load_weights(path: Path) -> ContactNet:
    """The network, read once; again when the file has changed, as after another training."""
    return _load_network(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=4)
def _load_network(path: Path, changed: int) -> ContactNet:
    return shipped.load_network(path)
