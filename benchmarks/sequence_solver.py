"""Sequences solved as one problem: is the banded step the dense one, and does time grow with the frames alone?

A hand follows noisy joints and skin over T frames, held back by an acceleration term. Prints, from one run, how far
the step for T = 6 is from that of dense normal equations, and the time of an evaluation and a step a frame for
growing T, beside T = 30.

    python benchmarks/sequence_solver.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from hand_models import HandPose, load_open_hand
from hand_models.solver.least_squares import Termination, minimize
from hand_models.solver.normal_equations import NormalEquations
from hand_models.solver.sequence import Acceleration, PerFrame, SequenceState
from hand_models.solver.states import HandState
from hand_models.solver.terms import AnglePrior, JointLimits, PointTargets

SKIN = 350
HASTE = Acceleration(transl=0.002, turn=0.02, bend=0.02)


def problem(length: int, dtype: torch.dtype = torch.float32) -> tuple[SequenceState, list]:
    """A hand on its way over ``length`` frames, started where each frame's noise puts it."""
    model = load_open_hand().to(dtype)
    generator = torch.Generator().manual_seed(length)
    way = torch.zeros(length, 51, dtype=dtype)
    way[:, 0], way[:, 3] = torch.linspace(0, 0.3, length), torch.linspace(0, 1, length)
    truth = HandPose.zeros(length).to(dtype).retract(way)
    noise = torch.randn(length, 51, generator=generator).to(dtype)
    given = truth.retract(0.05 * noise)
    hand, skin = model(truth), model.contact_points[:SKIN]

    def noisy(points: torch.Tensor, kind: str) -> PointTargets:
        target = points + 0.005 * torch.randn(points.shape, generator=generator).to(dtype)
        weight = torch.ones_like(target[..., 0])
        return PointTargets(target, weight, 0.005 * weight, points=kind)

    terms = (
        noisy(hand.joints, "joints"), noisy(hand.vertices[:, skin], "skin"),
        AnglePrior.grasping(model.anatomy, length), JointLimits(model.anatomy, 0.05),
    )  # fmt: skip
    return SequenceState(HandState.of(given, model, skin), length), [PerFrame(terms, 1, length), HASTE]


def against_dense(length: int = 6) -> float:
    """Largest difference between the banded and the dense step, relative to the step's length."""
    state, terms = problem(length, torch.float64)
    equations = state.assemble([part for term in terms for part in term.linearize(state)])
    _, _, dim = equations.gradient.shape
    hessian = equations.own.new_zeros(1, length, dim, length, dim)
    for t in range(length):
        hessian[:, t, :, t] = equations.own[:, t]
        for reach, blocks in ((1, equations.next), (2, equations.after)):
            if t + reach < length:
                hessian[:, t, :, t + reach] = blocks[:, t]
                hessian[:, t + reach, :, t] = blocks[:, t].transpose(1, 2)
    whole = NormalEquations(equations.cost, equations.gradient.flatten(1), hessian.reshape(1, length * dim, -1))
    damping = torch.full_like(equations.cost, 1e-2)
    expected = whole.step(damping)
    return float((equations.step(damping) - expected).abs().amax() / expected.abs().amax())


def milliseconds_a_frame(length: int, iterations: int, repeats: int) -> float:
    """Of one evaluation with its step: the least of several runs of ``iterations``."""
    state, terms = problem(length)
    stop = Termination(iterations=iterations, relative_decrease=-1.0)  # none stops early
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        found = minimize(state, terms, stop)
        spent = time.perf_counter() - start
        best = min(best, spent / (int(found.iterations) + 1))
    return 1e3 * best / length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to 1,000 frames, few repeats")
    quick = parser.parse_args().quick
    lengths = (30, 100, 1000) if quick else (30, 100, 300, 1000, 3000)
    difference = against_dense()
    print(f"T = 6: banded and dense step differ by {difference:.1e} of it")
    milliseconds_a_frame(30, 2, 1)  # the first call of everything
    spent = {n: milliseconds_a_frame(n, 3, 2 if quick else max(2, 300 // n)) for n in lengths}
    for n, ms in spent.items():
        print(f"T = {n:5,}: {ms:.3f} ms a frame and evaluation, {ms / spent[30]:.2f} of T = 30")
    figures = {"step_difference": difference} | {f"ms_a_frame_{n}": round(ms, 4) for n, ms in spent.items()}
    print(json.dumps(figures | {"worst_ratio": max(spent.values()) / spent[30]}))


if __name__ == "__main__":
    main()
