"""Fitting the score: it finds the odds that made the data, and its margin keeps its promise."""

from __future__ import annotations

import pytest
import torch

from refine.calibrate import Trials, fit_score


def simulated(count: int = 20_000) -> Trials:
    """Pairs whose outcome is drawn with log odds 2 Δerror + 200 Δdepth - 1; the gap says nothing."""
    generator = torch.Generator().manual_seed(0)
    before = torch.rand(count, 3, generator=generator) * torch.tensor([2.0, 0.01, 0.01])
    after = torch.rand(count, 3, generator=generator) * torch.tensor([2.0, 0.01, 0.01])
    odds = (before - after) @ torch.tensor([2.0, 200.0, 0.0]) - 1.0
    better = torch.rand(count, generator=generator) < odds.sigmoid()
    error = torch.full((count,), 0.01)
    return Trials(before, after, error, torch.where(better, 0.005, 0.02))


def test_the_odds_that_made_the_data_are_found():
    found = fit_score(simulated(), 0.9)
    assert found.error == pytest.approx(2.0, rel=0.1)
    assert found.depth == pytest.approx(200.0, rel=0.15)
    assert 0.0 <= found.gap < 20.0


@pytest.mark.parametrize("confidence", [0.7, 0.9])
def test_results_at_the_margin_are_better_as_often_as_promised(confidence):
    trials = simulated()
    found = fit_score(trials, confidence)
    gain = (trials.before - trials.after) @ torch.tensor([found.error, found.depth, found.gap])
    near = (gain - found.margin).abs() < 0.3
    share = (trials.error_after < trials.error_before)[near].float().mean()
    assert float(share) == pytest.approx(confidence, abs=0.04)


def test_nothing_bad_counts_as_good():
    trials = simulated()
    upside_down = Trials(trials.after, trials.before, trials.error_before, trials.error_after)
    found = fit_score(upside_down, 0.9)
    assert min(found.error, found.depth, found.gap) >= 0.0
