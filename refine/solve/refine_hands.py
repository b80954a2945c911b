"""From noisy right hands to refined ones: the field is predicted, the hand solved for, and decided how far it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from contact.field import ContactField
from contact.objects import ObjectMesh
from contact.objects.object_set import ObjectSet
from hand_models import HandModel, HandPose
from hand_models.solver.least_squares import Termination, minimize
from hand_models.solver.states import HandState, Term

from ..config import RefineConfig
from .decision import Refined, decide
from .fields import EncodedGrasps, expected_variance, load_weights, weights_path
from .optimize import Solved, optimise, placed, solved_variance
from .samples import sample_hands
from .score import ScoreWeights, load_score, plausibility, score

_NEARLY = Termination(iterations=12, relative_decrease=1e-3)
_LOOSENED = (8.0, 3.0)  # times the standard deviation of terms that find out themselves what goes with what


@torch.no_grad()
def refine_right_hands(
    pose: HandPose,
    meshes: Sequence[ObjectMesh],
    which: Tensor,
    model: HandModel,
    config: RefineConfig,
    seed: int = 0,
    evidence: Sequence[Term] = (),
    holding: Tensor | None = None,
    samples: int | None = None,
) -> Refined:
    """Refine ``B`` finite right hands in their objects' frames.

    At most ``config.batch_size`` problems are solved at once.

    Args:
        which: ``(B,)`` which of the meshes each hand holds.
        evidence: what else is known of the hands, as terms; the method "contactopt" has no use for it.
        holding: ``(B,)`` 1 for hands that are known to hold the object, 0 for those that are known not to, NaN where
            it is to be judged; None to judge it of all.
        samples: how many plausible hands to draw for each beside; the method "contactopt" draws none.

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
    known_holding = torch.full((len(pose),), torch.nan) if holding is None else holding
    parts = []
    for rows in torch.arange(len(pose)).split(config.batch_size):
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
            best = _solve(grasps, objects, index, start, field, score_weights, config, known)
        of_input = grasps.observation.spread.square().sum((2, 3)) / 3
        of_input = of_input.masked_fill(grasps.observation.told[:, None] == 0, torch.nan)
        decided = decide(
            model, objects, index, given, best, field, score_weights, config,
            stated=stated, known=known_holding[rows].to(device), given_var=of_input,
        )  # fmt: skip
        if samples is not None:
            drawn = sample_hands(grasps, objects, index, start, field, samples, score_weights, config, seed, known)
            decided = replace(decided, samples=drawn)
        parts.append(decided.to("cpu"))
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
    score_weights: ScoreWeights, config: RefineConfig, evidence: Sequence[Term],
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
