"""From noisy hands to refined ones: several plausible contact fields per grasp, each solved, the best one kept.

A network that sees a noisy hand cannot always tell how the hand is meant to hold the object. Its latent gives
``K`` fields that fit what it saw; all of them are solved side by side, and the score of `refine.solve.score`, taken
against the mean prediction, says which solution is returned and whether it is better than the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from contact import weights as shipped
from contact.field import ContactField
from contact.network import ContactNet, Encoding
from contact.network.features import Observation, observe
from contact.objects import ObjectMesh
from contact.objects.hierarchy import PointHierarchy
from contact.objects.object_set import ObjectSet
from hand_models import HandModel, HandPose

from ..config import RefineConfig
from ..evidence.pose_prior import PosePrior
from .candidates import Candidates, Finalists, find_finalists, settle_best
from .candidates import solve_best as solve_best
from .candidates import solved_variance as solved_variance
from .score import ScoreWeights, load_score, margins_against, plausibility, score

DRAWN_POINTS = 512
"""Object points that drawn fields cover: of the mean prediction's 2,048 the optimiser uses 160."""


@dataclass(frozen=True)
class Refined:
    """Outcome for ``B`` right hands in the object frame, before it is dressed up as a `RefineResult`."""

    pose: HandPose
    field: ContactField
    """the mean prediction"""
    share: Tensor
    """(B,) of the way from the input to its solution: 0 returns the input, 1 the solution"""
    score_before: Tensor
    """(B,)"""
    margin: Tensor
    """(B,) how much higher than before a solution had to score to be returned"""
    score_after: Tensor
    """(B,) of the returned hand"""
    steps: Tensor
    """(B,) evaluations of the solve that gave the result"""
    variance: Tensor
    """(B, 21) square metres per axis: of each joint of the returned hand, uncalibrated"""

    @property
    def accepted(self) -> Tensor:
        """(B,) bool: the solution is returned."""
        return self.share == 1


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
    network, judge = load_weights(weights, device), load_score(weights)
    # What a model has computed of itself is lost when it moves.
    model = model if model.template.device == device else model.to(device)
    objects = ObjectSet.of(meshes).to(device)
    parts = []
    for rows in torch.arange(len(pose)).split(max(1, config.batch_size // config.finalists)):
        given, index = pose[rows].to(device), which[rows].to(device)
        sight = Sight.of(network, model, objects, index, given)
        field = sight.mean()
        if config.method == "contactopt":
            held = [meshes[i] for i in which[rows].tolist()]
            best = _descend(model, objects, held, index, given, field, judge, seed)
        else:
            known = None if prior is None else prior[rows].to(device)
            best = _search(sight, objects, index, given, field, judge, config, seed, known)
        as_given = plausibility(model, objects, index, given, field)
        before = score(as_given, judge)
        margins = margins_against(as_given, judge, config.margin, stated=prior is not None)
        way = (model.joints(best.pose) - model.joints(given)).norm(dim=-1).mean(1)
        share = margins.share_of_way(best.score - before, way) if config.gate else torch.ones_like(way)
        share = torch.where(best.pose.finite(), share, torch.zeros_like(share))
        whole = share == 1
        returned, after = select(whole, best.pose, given), torch.where(whole, best.score, before)
        part = (share % 1).nonzero()[:, 0]
        if len(part):
            partly = given[part].toward(best.pose[part], share[part])
            returned = fill(returned, part, partly)
            seen = field.at(slice(0))[part]  # the score asks for joints and the hand's contact alone
            halfway = plausibility(model, objects, index[part], partly, seen)
            after = after.index_copy(0, part, score(halfway, judge))
        own = expected_variance(model.joints(returned), field)
        parts.append(
            Refined(
                returned.to("cpu"),
                field.to("cpu"),
                share.cpu(),
                before.cpu(),
                margins.sure.cpu(),
                after.cpu(),
                best.steps.cpu(),
                torch.where(whole[:, None], best.variance, own).cpu(),
            )
        )
    names = ("share", "score_before", "margin", "score_after", "steps", "variance")
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

    def __getitem__(self, rows: slice) -> Sight:
        """Of some of the hands."""
        encoding = Encoding(*(getattr(self.encoding, f.name)[rows] for f in fields(Encoding)))
        return replace(
            self, observation=self.observation[rows], hierarchy=self.hierarchy[rows], encoding=encoding
        )

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


def _search(
    sight: Sight,
    objects: ObjectSet,
    which: Tensor,
    pose: HandPose,
    mean: ContactField,
    judge: ScoreWeights,
    config: RefineConfig,
    seed: int,
    prior: PosePrior | None,
) -> Candidates:
    """`solve_best` over fields drawn from ``sight``, at most ``config.batch_size`` of them in memory at once."""
    step, found = max(1, config.batch_size // config.hypotheses), []
    for start in range(0, len(pose), step):
        rows = slice(start, start + step)
        drawn = draw_fields(sight[rows], mean[rows], config.hypotheses, seed)
        known = None if prior is None else prior[rows]
        found.append(
            find_finalists(
                sight.model, objects, which[rows], pose[rows], mean[rows], drawn, judge, config, known
            )
        )
    return settle_best(sight.model, objects, mean, Finalists.cat(found), judge, config, prior)


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
    from .contactopt import contactopt

    with torch.enable_grad():  # it descends by autograd
        found = contactopt(model, pose, list(meshes), field, seed=seed)
    value = score(plausibility(model, objects, which, found, field), judge)
    variance = expected_variance(model.joints(found), field)
    return Candidates(found, value, variance, torch.full((len(pose),), 250))


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


def fill(pose: HandPose, rows: Tensor, new: HandPose) -> HandPose:
    """``pose`` with the hands at ``rows`` replaced."""
    names = ("global_orient", "hand_pose", "betas", "transl")
    return HandPose(pose.side, *(getattr(pose, n).index_copy(0, rows, getattr(new, n)) for n in names))


def weights_path(config: RefineConfig) -> Path:
    """Where the network's weights are."""
    return Path(config.weights) if config.weights else shipped.DEFAULT


def load_weights(path: Path, device: torch.device | str = "cpu") -> ContactNet:
    """The network, read once; again when the file has changed, as after another training."""
    return _load_network(path, path.stat().st_mtime_ns if path.is_file() else 0, torch.device(device))


@lru_cache(maxsize=4)
def _load_network(path: Path, changed: int, device: torch.device) -> ContactNet:
    return shipped.load_network(path).to(device)
