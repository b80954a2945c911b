"""Uncertainty: the posterior against closed forms and against samples, and what calibration must achieve."""

from __future__ import annotations

import json

import pytest
import torch

from contact.corpus import CorpusConfig
from contact.corpus.corpus import build_object
from contact.corpus.placement import SynthesisConfig
from contact.network import ContactNet, NetworkConfig
from contact.weights import card_path, save_weights
from hand_models import HandModel, HandPose, load_open_hand
from hand_models.pose import TANGENT_DIM
from hand_models.solver.states import HandState
from refine.solve import calibrate_uncertainty as fitting
from refine.solve.calibrate_score import CalibrationConfig
from refine.solve.optimize import joint_variance
from refine.solve.uncertainty import COVERAGE, UncertaintyScale, coverage, fit_scale, load_scale


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


def bent_hand(batch: int = 1) -> HandPose:
    generator = torch.Generator().manual_seed(0)
    return HandPose(
        "right", 0.5 * torch.randn(batch, 3, generator=generator),
        0.3 * torch.randn(batch, 15, 3, generator=generator), torch.zeros(batch, 10), torch.zeros(batch, 3),
    )  # fmt: skip


def information(pose: HandPose, std: torch.Tensor) -> torch.Tensor:
    """Hessian of independent unknowns of these standard deviations."""
    return torch.diag_embed((std**-2).expand(len(pose), TANGENT_DIM))


def test_a_hand_that_only_moves_moves_all_joints_alike(model):
    std = torch.full((TANGENT_DIM,), 1e-4)
    std[:3] = torch.tensor([0.003, 0.004, 0.012])
    variance = joint_variance(HandState.of(bent_hand(), model), information(bent_hand(), std))
    torch.testing.assert_close(variance.sqrt(), torch.full((1, 21), 0.0075), rtol=0.01, atol=0)


def test_the_posterior_is_what_samples_of_it_show(model):
    pose, generator = bent_hand(), torch.Generator().manual_seed(1)
    root = torch.randn(TANGENT_DIM, TANGENT_DIM, generator=generator) / TANGENT_DIM**0.5
    root = 1e-3 * (root + torch.eye(TANGENT_DIM))
    hessian = torch.linalg.inv((root @ root.T).double()).float()[None]
    many = pose.repeat_interleave(4000)
    moved = many.retract(torch.randn(4000, TANGENT_DIM, generator=generator) @ root.T)
    sampled = model.joints(moved).var(0).mean(-1)
    torch.testing.assert_close(joint_variance(HandState.of(pose, model), hessian)[0], sampled, rtol=0.1, atol=0)


def test_fingertips_are_less_certain_than_knuckles_when_angles_are_unknown(model):
    std = torch.full((TANGENT_DIM,), 1e-4)
    std[6:] = 0.1
    variance = joint_variance(HandState.of(bent_hand(3), model), information(bent_hand(3), std))
    for finger in range(5):
        chain = variance[:, 1 + 4 * finger : 5 + 4 * finger]
        assert (chain.diff(dim=1) > 0).all()
    assert (variance[:, 0] < 1e-6).all()


def normal_errors(variance: torch.Tensor, factor: float, seed: int) -> torch.Tensor:
    draw = torch.randn(*variance.shape, 3, generator=torch.Generator().manual_seed(seed))
    return draw * factor * variance.sqrt()[..., None]


def test_the_fit_finds_the_factors_of_normal_errors():
    variance = 1e-4 * torch.rand(600, 21, generator=torch.Generator().manual_seed(0)) + 1e-6
    share, stated = (torch.arange(600) % 3 > 0).float(), torch.arange(600) % 3 > 1
    factor = torch.tensor([0.7, 2.5, 1.6]).repeat(200)[:, None, None]
    error = normal_errors(variance, 1.0, 1) * factor
    scale = fit_scale(variance, error, share, stated)
    assert scale.refined == pytest.approx(2.5, rel=0.03)
    assert scale.stated == pytest.approx(1.6, rel=0.03)
    assert scale.kept == pytest.approx(0.7, rel=0.03)
    fresh = normal_errors(variance, 1.0, 2) * factor
    assert coverage(scale.std(variance, share, stated), fresh) == pytest.approx(COVERAGE, abs=0.01)


def test_hands_that_go_part_of_the_way_are_in_between():
    variance = torch.full((3, 21), 4e-6)
    scale, share = UncertaintyScale(refined=2.0, stated=1.0, kept=0.5), torch.tensor([0.0, 0.25, 1.0])
    for stated, expected in ((False, [0.5, 0.875, 2.0]), (True, [0.5, 0.625, 1.0])):
        std = scale.std(variance, share, torch.tensor([stated] * 3))
        torch.testing.assert_close(std, 2e-3 * torch.tensor(expected)[:, None].expand(3, 21))


def test_errors_with_heavy_tails_are_covered_too():
    variance = torch.full((400, 21), 1e-6)
    generator = torch.Generator().manual_seed(0)
    error = 1e-3 * torch.empty(400, 21, 3).cauchy_(generator=generator)
    share, stated = torch.ones(400), torch.zeros(400, dtype=torch.bool)
    scale = fit_scale(variance, error, share, stated)
    assert coverage(scale.std(variance, share, stated), error) == pytest.approx(COVERAGE, abs=0.002)


def test_an_outcome_that_never_happens_is_calibrated_as_all():
    variance = torch.full((50, 21), 1e-6)
    scale = fit_scale(variance, normal_errors(variance, 3.0, 0), torch.ones(50), torch.zeros(50, dtype=torch.bool))
    assert scale.kept == scale.stated == scale.refined


def test_too_few_hands_are_refused():
    with pytest.raises(ValueError, match=r"error: 42 joints; give 100 or more"):
        fit_scale(torch.ones(2, 21), torch.ones(2, 21, 3), torch.ones(2), torch.ones(2, dtype=torch.bool))


def test_the_card_brings_the_factors_back(tmp_path):
    weights = tmp_path / "w.safetensors"
    assert load_scale(weights) == UncertaintyScale()
    weights.with_suffix(".json").write_text(json.dumps({"network": {}}))
    assert load_scale(weights) == UncertaintyScale()
    card = {"uncertainty": {"refined": 1.5, "stated": 1, "kept": 2, "coverage": 0.68, "coverage_none": 0.7}}
    weights.with_suffix(".json").write_text(json.dumps(card))
    assert load_scale(weights) == UncertaintyScale(1.5, 1.0, 2.0)


# On the corpus --------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    small = NetworkConfig(fine=8, middle=8, token=8, layers=2, heads=1)
    return save_weights(ContactNet(small), {"seed": 0}, tmp_path / "w.safetensors")


def test_noisy_hands_are_refined_and_measured(weights, tmp_path, model, monkeypatch):
    synthesis = SynthesisConfig(candidates=10)
    corpus = CorpusConfig(tmp_path, objects=1, grasps_per_object=5, resolution=32, synthesis=synthesis)
    threads = torch.get_num_threads()
    build_object(corpus, 0)
    torch.set_num_threads(threads)
    monkeypatch.setattr("contact.corpus.corpus.HELD_OUT", 1)
    config, cases = (
        CalibrationConfig(corpus.out, weights, grasps=3),
        (("image", False), ("none", False), ("camera", True)),
    )
    outcomes = fitting.run_outcomes(config, model, cases)
    assert outcomes.variance.shape == (9, 21)
    assert outcomes.case.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert outcomes.stated.tolist() == [False] * 6 + [True] * 3
    kept = outcomes.share[3:6] == 0
    # Under `none` the input is the truth, and hands that stay have left it only where they were too deep in.
    assert kept.any()
    assert float(outcomes.error[3:6][kept].norm(dim=-1).mean()) < 0.02
    assert (outcomes.share[6:] == 1).all()
    assert (outcomes.error[:3].norm(dim=-1).mean(1) > 1e-3).all()


def test_the_card_receives_the_factors_and_how_well_they_hold(weights, tmp_path, model, monkeypatch):
    variance = 1e-4 * torch.rand(800, 21, generator=torch.Generator().manual_seed(0)) + 1e-6
    share, case = (torch.arange(800) % 3 > 0).float(), torch.arange(800) // 400
    stated = torch.zeros(800, dtype=torch.bool)
    error = normal_errors(variance, 1.7, 3)
    error[(case == 1) & (share == 0)] = 0  # not noisy and kept: nothing to learn from
    outcomes = fitting.Outcomes(variance, error, share, stated, case)
    monkeypatch.setattr(fitting, "run_outcomes", lambda config, model, cases: outcomes)
    cases = (("image", False), ("none", False))
    found = fitting.calibrate_uncertainty(CalibrationConfig(tmp_path, weights), model, cases)
    assert load_scale(weights) == UncertaintyScale(found["refined"], found["stated"], found["kept"])
    assert found["refined"] == pytest.approx(1.7, rel=0.05)
    assert found["kept"] == pytest.approx(1.7, rel=0.05)
    assert found["coverage_image"] == pytest.approx(COVERAGE, abs=0.02)
    assert found["coverage_none"] == pytest.approx((2 * COVERAGE + 1) / 3, abs=0.02)
    card = json.loads(card_path(weights).read_text())
    assert card["seed"] == 0
    assert card["uncertainty"] == found
