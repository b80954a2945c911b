"""From noisy right hands to refined ones: the field is predicted, the hand solved for, and kept if that is better.

The score of `refine.solve.score`, taken against the mean prediction, says whether a solution is returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from contact.field import ContactField
from contact.objects import ObjectMesh
from contact.objects.object_set import ObjectSet
from hand_models import HandModel, HandPose
from hand_models.record import Record
from hand_models.solver.least_squares import Termination, minimize
from hand_models.solver.states import HandState, Term

from ..config import RefineConfig
from .fields import EncodedGrasps, expected_variance, load_weights, weights_path
from .hypotheses import solve_hypotheses
from .optimize import Solved, optimise, placed, solved_variance
from .score import ScoreWeights, load_score, margins_against, plausibility, score

_NEARLY = Termination(iterations=12, relative_decrease=1e-3)
_LOOSENED = (8.0, 3.0)  # times the standard deviation of terms that find out themselves what goes with what


@dataclass(frozen=True)
class Refined(Record):
    """Outcome for ``B`` right hands in the object frame, before it is dressed up as a `RefineResult`."""

    pose: HandPose
    field: ContactField
    """the mean prediction"""
    share: Tensor
    """(B,) of the way from the input to its solution: 0 returns the input, 1 the solution"""
    accepted: Tensor
    """(B,) bool: the solution is surely better and returned"""
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


@torch.no_grad()
def refine_right_hands(
    pose: HandPose,
    meshes: Sequence[ObjectMesh],
    which: Tensor,
    model: HandModel,
    config: RefineConfig,
    seed: int = 0,
    evidence: Sequence[Term] = (),
) -> Refined:
    """Refine ``B`` finite right hands in their objects' frames.

    ``config.hypotheses`` times as many problems are solved, at most ``config.batch_size`` at once.

    Args:
        which: ``(B,)`` which of the meshes each hand holds.
        evidence: what else is known of the hands, as terms; the method "contactopt" has no use for it.

    Raises:
        FileNotFoundError: the weights do not exist.
        ValueError: they are not weights of this network.
    """
    device = torch.device(config.device)
    weights = weights_path(config)
    network, score_weights = load_weights(weights, device), load_score(weights)
    # What a model has computed of itself is lost when it moves.
    model = model if model.template.device == device else model.to(device)
    objects = ObjectSet.of(meshes).to(device)
    skin = model.contact_points[: config.skin_points]
    parts = []
    for rows in torch.arange(len(pose)).split(max(1, config.batch_size // config.finalists)):
        given, index = pose[rows].to(device), which[rows].to(device)
        known = [term[rows].to(device) for term in evidence]
        # The network sees the hand where what is known of it has it: from there it errs least.
        stated = placed(known, len(rows)).to(device)
        start, covariance = given, None
        if stated.any():
            start, covariance = _placed(HandState.of(given, model, skin), known)
            start = start.where(stated, given)
            covariance = covariance.masked_fill(~stated[:, None, None], torch.nan)
        grasps = EncodedGrasps.of(network, model, objects, index, start, covariance)
        field = grasps.mean()
        if config.method == "contactopt":
            held = [meshes[i] for i in which[rows].tolist()]
            best = _descend(model, objects, held, index, given, field, score_weights, seed)
        else:
            solve = _solve if config.hypotheses == 1 else solve_hypotheses
            best = solve(grasps, objects, index, start, field, score_weights, config, seed, known)
        gated = _gate(model, objects, index, given, best, field, score_weights, config, stated)
        parts.append(gated.to("cpu"))
    return Refined.cat(parts)


def _placed(state: HandState, evidence: Sequence[Term]) -> tuple[HandPose, Tensor]:
    """The hands that agree best with the evidence alone, and how they may be off, ``(B, 51, 51)``."""
    for term in evidence:
        if hasattr(term, "start"):
            state = replace(state, pose=term.start(state))
    loose = [term for term in evidence if hasattr(term, "loosened")]
    rest = [term for term in evidence if not hasattr(term, "loosened")]
    for factor in _LOOSENED if loose else ():
        state = minimize(state, [*rest, *(term.loosened(factor) for term in loose)], _NEARLY).state
    solution = minimize(state, evidence)
    hessian = solution.equations.hessian.double()
    floor = torch.diag_embed(1e-9 * torch.diagonal(hessian, dim1=1, dim2=2) + 1e-9)
    return solution.state.pose, torch.linalg.inv(hessian + floor).to(state.pose.transl)


def _solve(
    grasps: EncodedGrasps, objects: ObjectSet, which: Tensor, pose: HandPose, mean: ContactField,
    score_weights: ScoreWeights, config: RefineConfig, seed: int, evidence: Sequence[Term],
) -> Solved:  # fmt: skip
    """Solve for the mean prediction."""
    model = grasps.model
    solution = optimise(model, objects, which, pose, mean, config, evidence)
    found = solution.state.pose
    assert mean.joints_var is not None
    return Solved(
        found,
        score(plausibility(model, objects, which, found, mean), score_weights),
        solved_variance(solution.state, solution.equations.hessian, mean.joints_var),
        solution.iterations,
    )


def _descend(
    model: HandModel, objects: ObjectSet, meshes: Sequence[ObjectMesh], which: Tensor, pose: HandPose,
    field: ContactField, score_weights: ScoreWeights, seed: int,
) -> Solved:  # fmt: skip
    """ContactOpt's procedure instead; it has no posterior, the prediction has to say how far off it is."""
    from .contactopt import contactopt

    with torch.enable_grad():  # it descends by autograd
        found = contactopt(model, pose, list(meshes), field, seed=seed)
    value = score(plausibility(model, objects, which, found, field), score_weights)
    return Solved(found, value, expected_variance(model.joints(found), field), torch.full((len(pose),), 250))


def _gate(
    model: HandModel, objects: ObjectSet, which: Tensor, given: HandPose, best: Solved, field: ContactField,
    score_weights: ScoreWeights, config: RefineConfig, stated: Tensor,
) -> Refined:  # fmt: skip
    """Solutions where they are surely better than the input, a little of the way to them where they may be."""
    as_given = plausibility(model, objects, which, given, field)
    before = score(as_given, score_weights)
    margins = margins_against(as_given, score_weights, config.margin, stated=stated)
    way = (model.joints(best.pose) - model.joints(given)).norm(dim=-1).mean(1)
    gain = best.score - before
    share = margins.share_of_way(gain, way) if config.gate else torch.ones_like(way)
    accepted = gain > margins.sure if config.gate else torch.ones_like(way, dtype=torch.bool)
    finite = best.pose.finite()
    share, accepted = torch.where(finite, share, torch.zeros_like(share)), accepted & finite
    returned, after = best.pose.where(share == 1, given), torch.where(share == 1, best.score, before)
    part = (share % 1).nonzero()[:, 0]
    if len(part):
        partly = given[part].toward(best.pose[part], share[part])
        returned = returned.fill(part, partly)
        seen = field.at(slice(0))[part]  # the score asks for joints and the hand's contact alone
        halfway = plausibility(model, objects, which[part], partly, seen)
        after = after.index_copy(0, part, score(halfway, score_weights))
    own = expected_variance(model.joints(returned), field)
    variance = torch.where(accepted[:, None], best.variance, own)
    return Refined(returned, field, share, accepted, before, margins.sure, after, best.steps, variance)
