"""Fitting the score: it finds the odds that made the data, and its probabilities keep their promise."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from contact.corpus import CorpusConfig
from contact.corpus.corpus import build_object
from contact.corpus.placement import SynthesisConfig
from contact.network import ContactNet, NetworkConfig
from contact.weights import card_path, save_weights
from hand_models import load_open_hand
from refine.solve.calibrate_score import CalibrationConfig, Trials, calibrate, fit_score, run_trials
from refine.solve.score import load_score


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
    found = fit_score(simulated())
    assert found.error == pytest.approx(2.0, rel=0.1)
    assert found.depth == pytest.approx(200.0, rel=0.15)
    assert 0.0 <= found.gap < 20.0
    assert found.bias == pytest.approx(-1.0, abs=0.2)


@pytest.mark.parametrize("confidence", [0.3, 0.7, 0.9])
def test_results_are_better_as_often_as_promised(confidence):
    trials = simulated()
    found = fit_score(trials)
    gain = (trials.before - trials.after) @ torch.tensor([found.error, found.depth, found.gap])
    near = (gain - found.margin(confidence)).abs() < 0.3
    share = (trials.error_after < trials.error_before)[near].float().mean()
    assert float(share) == pytest.approx(confidence, abs=0.04)


def test_nothing_bad_counts_as_good():
    trials = simulated()
    upside_down = replace(trials, before=trials.after, after=trials.before)
    found = fit_score(upside_down)
    assert min(found.error, found.depth, found.gap) >= 0.0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> CorpusConfig:
    """Two objects with a few grasps each."""
    synthesis = SynthesisConfig(candidates=10)
    folder = tmp_path_factory.mktemp("corpus")
    config = CorpusConfig(folder, objects=2, grasps_per_object=5, resolution=32, synthesis=synthesis)
    threads = torch.get_num_threads()
    for index in range(config.objects):
        build_object(config, index)
    torch.set_num_threads(threads)
    return config


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    small = NetworkConfig(fine=8, middle=8, token=8, layers=1, heads=1)
    return save_weights(ContactNet(small), {"seed": 0}, tmp_path / "w.safetensors")


def test_the_card_receives_the_score(corpus, weights, monkeypatch):
    monkeypatch.setattr("contact.corpus.corpus.HELD_OUT", 1)
    config = CalibrationConfig(corpus.out, weights, grasps=4, protocols=("image", "none"))
    trials = run_trials(config, load_open_hand())
    assert len(trials.error_before) == 8
    # The input is the truth itself under `none`, the last protocol.
    assert (trials.error_before[4:] < 1e-6).all()
    assert (trials.error_before[:4] > 1e-3).all()
    found = calibrate(config)
    assert load_score(weights) == found
    assert json.loads(card_path(weights).read_text())["seed"] == 0


def test_a_corpus_that_holds_nothing_out_is_refused(corpus, weights):
    with pytest.raises(ValueError, match="too small to hold objects out"):
        calibrate(CalibrationConfig(corpus.out, weights))
