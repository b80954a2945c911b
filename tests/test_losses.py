"""Training losses are proper: in expectation nothing scores better than the true mean and variance."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from contact.field import ContactField
from contact.network import Prediction
from contact.train.losses import LossWeights, gaussian_nll, gaussian_nll_of, losses, total

B, N, P = 2, 400, 300
JOINT_ROOT = torch.tensor([[0.006, 0.0, 0.0], [0.002, 0.004, 0.0], [-0.001, 0.003, 0.008]]).double()
JOINT_COV = JOINT_ROOT @ JOINT_ROOT.T
TERMS = ("joints", "contact", "near", "part", "canonical", "gap", "hand_contact", "holding")
HOLD = torch.ones(B, dtype=torch.float64)


@pytest.mark.parametrize("dims", [1, 3])
def test_expected_likelihood_is_least_at_the_truth(dims: int) -> None:
    """Closed form: the error is ``|bias|² + dims σ²`` in expectation."""
    sigma, bias = 0.7, torch.linspace(-1, 1, 41, dtype=torch.float64)
    variance = torch.logspace(-1.5, 1.5, 301, dtype=torch.float64)
    error = bias[:, None] ** 2 * dims + dims * sigma**2
    score = gaussian_nll(error, variance[None], dims)
    best = score.flatten().argmin().item()
    assert bias[best // 301].item() == pytest.approx(0, abs=1e-9)
    assert variance[best % 301] == pytest.approx(sigma**2, rel=0.03)  # the grid's step
    # At another mean the best variance is what the error really is.
    biased = score[0].argmin()
    assert variance[biased] == pytest.approx(sigma**2 + 1, rel=0.03)
    least = gaussian_nll(torch.tensor(dims * sigma**2), torch.tensor(sigma**2), dims)
    assert least.item() == pytest.approx(0.5 * (1 + math.log(sigma**2)))


@pytest.mark.parametrize("dims", [1, 3])
def test_likelihood_is_torchs(dims: int) -> None:
    """The average over coordinates of the normal density's logarithm, less its constant."""
    error, variance = torch.randn(50, dims, dtype=torch.float64), torch.rand(50, dtype=torch.float64) + 0.1
    density = torch.distributions.Normal(torch.zeros(50, 1).double(), variance.sqrt()[:, None]).log_prob(error)
    expected = -density.mean(1) - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(gaussian_nll((error**2).sum(1), variance, dims), expected)


def test_likelihood_with_a_covariance_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(50, 3, 3, dtype=torch.float64, generator=generator)
    covariance = root @ root.transpose(1, 2) + 0.1 * torch.eye(3)
    error = torch.randn(50, 3, dtype=torch.float64, generator=generator)
    density = torch.distributions.MultivariateNormal(torch.zeros(50, 3).double(), covariance).log_prob(error)
    torch.testing.assert_close(gaussian_nll_of(error, covariance), -density / 3 - 0.5 * math.log(2 * math.pi))
    alike = gaussian_nll_of(error, 0.4 * torch.eye(3).double().expand(50, 3, 3))
    torch.testing.assert_close(alike, gaussian_nll((error**2).sum(1), torch.tensor(0.4).double(), 3))


def truth_and_prediction(seed: int = 0) -> tuple[Prediction, ContactField, Tensor]:
    """Truth scattered about the prediction with known mean and variance; half of the points have a partner."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(B, *shape, generator=generator, dtype=torch.float64)

    def full(value: float, *shape: int) -> Tensor:
        return torch.full((B, *shape), value, dtype=torch.float64)

    def chance(share: float, *shape: int) -> Tensor:
        return (torch.rand(B, *shape, generator=generator, dtype=torch.float64) < share).double()

    prediction = Prediction(
        contact_logit=full(math.log(0.3 / 0.7), N), contact_var=full(0.21, N),
        near_logit=full(0.0, N), part_logits=torch.zeros(B, N, 16, dtype=torch.float64),
        canonical=draw(N, 3) * 0.05, canonical_var=full(0.01**2, N),
        gap=full(0.002, N), gap_var=full(0.003**2, N),
        hand_contact_logit=full(math.log(0.2 / 0.8), P), hand_contact_var=full(0.16, P),
        joints=full(0.0, 21, 3), joints_cov=JOINT_COV.expand(B, 21, 3, 3), holding_logit=full(1.5),
    )  # fmt: skip
    nothing = full(0.0, N)
    part = torch.nn.functional.one_hot(torch.randint(16, (B, N), generator=generator), 16).double()
    truth = ContactField(
        chance(0.3, N), nothing, part, prediction.canonical + 0.01 * draw(N, 3), nothing,
        prediction.gap + 0.003 * draw(N), nothing, chance(0.5, N), chance(0.2, P), full(0.0, P),
    )  # fmt: skip
    return prediction, truth, prediction.joints + draw(21, 3) @ JOINT_ROOT.T


def derivative(name: str, field: str) -> Tensor:
    """Derivatives of a term by a field of the prediction, over many draws of the truth."""
    grads = []
    for seed in range(20):
        prediction, truth, joints = truth_and_prediction(seed)
        leaf = getattr(prediction, field).clone().requires_grad_()
        losses(replace(prediction, **{field: leaf}), truth, joints, HOLD)[name].backward()
        grads.append(leaf.grad[..., 3] if field == "part_logits" else leaf.grad)  # over all parts they sum to zero
    return torch.stack(grads)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("joints", "joints"), ("joints", "joints_cov"), ("contact", "contact_logit"), ("contact", "contact_var"),
        ("near", "near_logit"), ("part", "part_logits"), ("canonical", "canonical"), ("canonical", "canonical_var"),
        ("gap", "gap"), ("gap", "gap_var"), ("hand_contact", "hand_contact_logit"),
        ("hand_contact", "hand_contact_var"),
    ],
)  # fmt: skip
def test_truth_is_stationary(name: str, field: str) -> None:
    """At the true mean and variance the expected derivative vanishes: it is within its own sampling error."""
    grads = derivative(name, field)
    count = grads.numel()
    assert grads.abs().max() > 0
    assert abs(float(grads.mean())) < 4 * float(grads.std()) / count**0.5


@pytest.mark.parametrize(
    ("name", "field", "factor"),
    [
        ("joints", "joints_cov", 2.0), ("joints", "joints_cov", 0.5), ("contact", "contact_var", 2.0),
        ("contact", "contact_var", 0.5), ("canonical", "canonical_var", 2.0), ("canonical", "canonical_var", 0.5),
        ("gap", "gap_var", 2.0), ("gap", "gap_var", 0.5), ("hand_contact", "hand_contact_var", 2.0),
        ("hand_contact", "hand_contact_var", 0.5), ("contact", "contact_logit", 0.2), ("near", "near_logit", None),
        ("gap", "gap", 0.0), ("hand_contact", "hand_contact_logit", 0.2), ("canonical", "canonical", 0.8),
        ("joints", "joints", None), ("part", "part_logits", None), ("holding", "holding_logit", -1.0),
    ],
)  # fmt: skip
def test_anything_else_scores_worse(name: str, field: str, factor: float | None) -> None:
    prediction, truth, joints = truth_and_prediction()
    honest = losses(prediction, truth, joints, HOLD)
    value = getattr(prediction, field)
    if factor is not None:
        wrong = value * factor
    elif field == "part_logits":
        wrong = value.clone()
        wrong[..., 3] += 1.0
    else:
        wrong = value + (0.01 if field == "joints" else 0.5)
    lying = losses(replace(prediction, **{field: wrong}), truth, joints, HOLD)
    assert lying[name] > honest[name] + 1e-4
    for other in TERMS:
        if other != name:
            assert lying[other] == honest[other]  # each prediction enters one term


def test_closed_forms() -> None:
    """One number each, by hand, in centimetres inside the likelihoods."""
    prediction, truth, _joints = truth_and_prediction()
    exact = replace(truth, canonical=prediction.canonical, gap=prediction.gap + 0.003)
    round_ = replace(prediction, joints_cov=(0.006**2 * torch.eye(3).double()).expand(B, 21, 3, 3))
    off = prediction.joints + torch.tensor([0.003, 0.0, 0.004], dtype=torch.float64)
    terms = losses(round_, exact, off, HOLD)
    assert set(terms) == set(TERMS)
    expected = 0.5 * (0.25 / 3 / 0.36 + math.log(0.36)) + 0.3 * 0.5
    assert terms["joints"].item() == pytest.approx(expected, rel=1e-5)
    assert terms["canonical"].item() == pytest.approx(0.5 * math.log(1.0), abs=1e-12)
    assert terms["gap"].item() == pytest.approx(0.5 * (1 + math.log(0.09)))
    assert terms["near"].item() == pytest.approx(math.log(2))
    assert terms["part"].item() == pytest.approx(math.log(16))
    share = truth.contact.mean().item()
    mean = -(share * math.log(0.3) + (1 - share) * math.log(0.7))
    spread = (share * 0.49 + (1 - share) * 0.09) / 0.21 + math.log(0.21)
    assert terms["contact"].item() == pytest.approx(mean + 0.1 * 0.5 * spread)
    assert terms["holding"].item() == pytest.approx(math.log1p(math.exp(-1.5)))


def test_points_without_a_partner_do_not_count() -> None:
    prediction, truth, joints = truth_and_prediction()
    before = losses(prediction, truth, joints, HOLD)
    away = truth.near == 0
    changed = replace(
        truth,
        gap=torch.where(away, 9.0, truth.gap),
        canonical=torch.where(away[..., None], 9.0, truth.canonical),
        part=torch.where(away[..., None], truth.part.roll(1, -1), truth.part),
    )
    after = losses(prediction, changed, joints, HOLD)
    for name in ("gap", "canonical", "part"):
        assert after[name] == before[name]
    nowhere = losses(prediction, replace(truth, near=torch.zeros_like(truth.near)), joints, HOLD)
    assert all(value.isfinite() for value in nowhere.values())
    assert nowhere["gap"] == nowhere["canonical"] == nowhere["part"] == 0


def test_hands_that_hold_nothing_teach_that_alone() -> None:
    """The field is that of a hand that holds: the second hand's says nothing of the network, but whether it holds."""
    prediction, truth, joints = truth_and_prediction()
    holding = torch.tensor([1.0, 0.0], dtype=torch.float64)
    leaves = {f.name: getattr(prediction, f.name).clone().requires_grad_() for f in fields(prediction)}
    terms = losses(Prediction(**leaves), truth, joints, holding)
    total(terms).backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None, name
        assert leaf.grad[0].abs().max() > 0, name
        assert (leaf.grad[1].abs().max() > 0) == (name == "holding_logit"), name
    alone = losses(prediction[:1], truth[:1], joints[:1], HOLD[:1])
    for name in TERMS[:-1]:
        torch.testing.assert_close(terms[name], alone[name])
    expected = 0.5 * (math.log1p(math.exp(-1.5)) + math.log1p(math.exp(1.5)))
    assert terms["holding"].item() == pytest.approx(expected)


def test_a_batch_in_which_nothing_is_held_teaches_whether_hands_hold() -> None:
    prediction, truth, joints = truth_and_prediction()
    leaves = {f.name: getattr(prediction, f.name).clone().requires_grad_() for f in fields(prediction)}
    loss = total(losses(Prediction(**leaves), truth, joints, torch.zeros_like(HOLD)))
    assert loss.isfinite()
    loss.backward()
    assert leaves["holding_logit"].grad.abs().min() > 0
    assert all(leaf.grad is None or leaf.grad.isfinite().all() for leaf in leaves.values())


def test_the_spread_of_contact_does_not_move_its_mean() -> None:
    """The likelihood of the remainder must not teach the mean: only cross-entropy does."""
    prediction, truth, joints = truth_and_prediction()
    grads = []
    for variance in (0.01, 1.0):
        leaf = prediction.contact_logit.clone().requires_grad_()
        changed = replace(prediction, contact_logit=leaf, contact_var=torch.full_like(leaf, variance))
        losses(changed, truth, joints, HOLD)["contact"].backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads)
    expected = (prediction.contact_logit.sigmoid() - truth.contact) / truth.contact.numel()
    torch.testing.assert_close(grads[0], expected)


def test_gradients_are_finite_at_a_perfect_prediction() -> None:
    prediction, truth, _ = truth_and_prediction()
    leaves = {f.name: getattr(prediction, f.name).clone().requires_grad_() for f in fields(prediction)}
    total(losses(Prediction(**leaves), truth, prediction.joints, HOLD)).backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None, name
        assert leaf.grad.isfinite().all(), name


def test_total() -> None:
    weights = LossWeights(
        joints=2.0, contact=0.0, near=1.0, part=3.0, canonical=0.5, gap=0.25, hand_contact=1.5, holding=4.0
    )
    terms = {name: torch.tensor(float(k + 1)) for k, name in enumerate(TERMS)}
    assert total(terms, weights).item() == pytest.approx(2 * 1 + 0 + 3 + 3 * 4 + 0.5 * 5 + 0.25 * 6 + 1.5 * 7 + 4 * 8)
    assert {f.name for f in fields(LossWeights)} == set(TERMS)
