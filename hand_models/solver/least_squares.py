"""Batched damped Gauss–Newton on manifolds.

Every problem has its own damping and stops on its own; finished problems leave the batch, so that the few
hard ones do not keep the others waiting. Damping: Levenberg–Marquardt with Marquardt's diagonal scaling
(Nocedal & Wright, Numerical Optimization, ch. 10.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

import torch
from torch import Tensor

from ..record import Record
from .states import S, State, Term


@dataclass(frozen=True)
class Termination:
    """When a problem is finished, and how its damping moves."""

    iterations: int = 30
    """At most this many evaluations after the first."""
    relative_decrease: float = 1e-4
    """Converged when a step lowers the cost by less than this share, or promises to."""
    damping: float = 1e-2
    """Initial damping, relative to the diagonal of the Hessian."""
    shrink: float = 0.3
    """Factor on the damping after a good step."""
    grow: float = 5.0
    """Factor on the damping after a rejected step."""
    max_damping: float = 1e4
    """A problem whose damping passes this has no downhill step left."""


@dataclass(frozen=True)
class Solution(Generic[S]):
    """Where every problem ended."""

    state: S
    equations: Any
    """The model at the solution; its Hessian is the inverse covariance of the unknowns."""
    initial_cost: Tensor
    """(B,)"""
    iterations: Tensor
    """(B,) evaluations used"""
    converged: Tensor
    """(B,) bool: stopped before the limit, at a finite cost"""


@dataclass(frozen=True)
class _Problems(Record):
    """Problems that are under way together."""

    index: Tensor
    """(b,) which of the batch they are"""
    state: Any
    equations: Any
    damping: Tensor
    """(b,)"""


@torch.no_grad()
def minimize(initial: S, terms: Sequence[Term], termination: Termination = Termination()) -> Solution[S]:
    """Minimise the sum of all terms of every problem of a batch.

    Args:
        initial: where all ``B`` problems start.
        terms: what is minimised, each of the same ``B`` problems.
        termination: limits and damping.

    Returns:
        Per problem the state of lowest cost that was met. One whose cost is NaN from the start keeps its state
        and counts as not converged; the others do not notice it.

    Raises:
        ValueError: there are no terms.
    """

    def linearize(state: State, active: Sequence[Term]) -> Any:
        return state.assemble([part for term in active for part in term.linearize(state)])

    active = list(terms)
    equations = linearize(initial, active)
    initial_cost = equations.cost
    index = torch.arange(len(initial_cost), device=initial_cost.device)
    running = _Problems(index, initial, equations, torch.full_like(initial_cost, termination.damping))
    finished: list[_Problems] = []
    used: list[Tensor] = []

    def retire(done: Tensor, evaluations: int) -> None:
        nonlocal running, active
        if done.any():
            finished.append(running[done])
            used.append(torch.full_like(finished[-1].index, evaluations))
            rest = (~done).nonzero()[:, 0]  # found once, not again for every tensor
            running, active = running[rest], [term[rest] for term in active]

    for evaluations in range(termination.iterations):
        step = running.equations.step(running.damping)
        # A step that does not even promise a decrease that counts is not worth an evaluation.
        least = termination.relative_decrease * running.equations.cost
        worthwhile = running.equations.promised(step) > least
        retire(~worthwhile, evaluations)
        if len(running.index) == 0:
            break
        before = running.equations.cost
        state = running.state.retract(step if len(step) == len(before) else step[worthwhile])
        trial = linearize(state, active)
        better = trial.cost < before  # False for NaN, so a bad step is never taken
        decrease = (before - trial.cost) / before.clamp_min(1e-20)
        factor = torch.where(better, termination.shrink, termination.grow)
        damping = (running.damping * factor).clamp_min(1e-6)
        new = _Problems(running.index, state, trial, damping)
        running = new if better.all() else replace(new.where(better, running), damping=damping)
        retire(
            (better & (decrease < termination.relative_decrease)) | (~better & (damping > termination.max_damping)),
            evaluations + 1,
        )
    stopped = sum(len(part.index) for part in finished)
    used.append(torch.full_like(running.index, termination.iterations))
    ended = _Problems.cat([*finished, running])
    order = ended.index.argsort()
    ended = ended[order]
    converged = ended.equations.cost.isfinite() & (order < stopped)
    return Solution(ended.state, ended.equations, initial_cost, torch.cat(used)[order], converged)
