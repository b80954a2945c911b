"""How good predicted contact fields are: detection, calibration, likelihood, correspondence.

The event is "this object point touches": a true capsule value above `THRESHOLD`, as ContactOpt counts it (Grady et
al., CVPR 2021). A field states a mean and a variance of the value, hence a probability of the event, see
`touch_probability`. Arrays or tensors in, numbers out; points of all grasps are pooled unless said otherwise.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from scipy.special import betainc
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import normalize

from .field import ContactField

Array: TypeAlias = "np.ndarray | Tensor"

THRESHOLD = 0.4
"""Contact value above which a point touches: 2.5 mm from the capsule's axis."""
BINS = 15
"""Equal bins of probability in the calibration error."""
_LEAST = 1e-6  # probabilities are kept this far from 0 and 1 in likelihoods


# ------------------------------------------------------------------ measures of numbers


def precision_recall_f1(predicted: Array, positive: Array) -> tuple[float, float, float]:
    """Precision, recall and their harmonic mean of decisions ``predicted``, both bool of one shape.

    Precision is NaN where nothing is predicted, recall where nothing is positive; F1 is NaN where both are.
    """
    predicted, positive = _pair(predicted, positive, bool)
    hits, said, true = (float(x.sum()) for x in (predicted & positive, predicted, positive))
    return (
        hits / said if said else np.nan,
        hits / true if true else np.nan,
        2 * hits / (said + true) if said + true else np.nan,
    )


def average_precision(score: Array, positive: Array) -> float:
    """Area under precision over recall, in steps: Σ (R_k − R_{k−1}) P_k over the distinct scores, falling.

    Equal scores are one step, so the order of the points does not matter (as scikit-learn defines it). A random
    score has the share of positives in expectation. NaN where nothing is positive. Raises ``ValueError`` for shapes
    that differ, or a score that is not finite.
    """
    score, positive = _pair(score, positive, bool)
    if not np.isfinite(score).all():
        raise ValueError("score: NaN or infinite values cannot be ranked; leave such grasps out.")
    if not positive.any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    score, positive = score[order], positive[order]
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)  # of each run of equal scores
    hits = np.cumsum(positive)[last]
    return float((np.diff(hits, prepend=0) * hits / (last + 1)).sum() / hits[-1])


def touch_probability(mean: Array, variance: Array, threshold: float = THRESHOLD) -> np.ndarray:
    """Probability that a contact value exceeds ``threshold``, given its mean and variance.

    The value lies in [0, 1]; its distribution is taken to be the Beta of that mean and variance. A variance too
    large for any distribution on [0, 1] means that the value is either 0 or 1, and 1 with probability ``mean``.

    Args:
        mean: in [0, 1], any shape, which is also the result's.
        variance: not negative, the same shape; zero means certainty.
    """
    mean, variance = (np.asarray(_array(x), np.float64) for x in (mean, variance))
    m = mean.clip(_LEAST, 1 - _LEAST)
    certain = variance <= 0
    concentration = m * (1 - m) / np.where(certain, 1.0, variance) - 1
    concentration = concentration.clip(1e-6, 1e6)
    tail = 1 - betainc(m * concentration, (1 - m) * concentration, threshold)
    return np.where(certain, (mean > threshold).astype(np.float64), tail)


def calibration_error(probability: Array, event: Array, bins: int = BINS, skip: int = 0) -> float:
    """Expected calibration error: mean over points of |how often it happens − what was said|, in bins.

    Bins have equal width (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, for a binary event).

    Args:
        probability, event: of one shape; ``ValueError`` for probabilities outside [0, 1].
        skip: lowest bins to leave out. Most points are far from the hand, which is easy to say; without the
            lowest bin, only those count of which something is claimed. NaN where no point remains.
    """
    probability, event = _pair(probability, event, bool)
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("probability: values outside [0, 1]; give probabilities, not logits.")
    index = np.minimum((probability * bins).astype(np.int64), bins - 1)
    said, happened = (np.bincount(index, weights=x, minlength=bins) for x in (probability, event))
    count = np.bincount(index, minlength=bins)[skip:].sum()
    return float(np.abs(said - happened)[skip:].sum() / count) if count else float("nan")


def negative_log_likelihood(probability: Array, event: Array) -> float:
    """Mean over points of −log p of what happened, nats; probabilities are kept 1e-6 off 0 and 1."""
    probability, event = _pair(probability, event, bool)
    p = np.asarray(probability, np.float64).clip(_LEAST, 1 - _LEAST)
    return float(-np.log(np.where(event, p, 1 - p)).mean())


def spearman(a: Array, b: Array) -> float:
    """Spearman's rank correlation, ties sharing their mean rank. NaN where one of them is constant or empty."""
    a, b = _pair(a, b, np.float64)
    constant = len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0  # scipy warns of these
    return float("nan") if constant else float(spearmanr(a, b).statistic)


def _array(values: Array) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _pair(first: Array, second: Array, second_type: type) -> tuple[np.ndarray, np.ndarray]:
    """Both flat, of one shape."""
    a, b = _array(first), _array(second)
    if a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape} differ; give one value of each per point.")
    return a.reshape(-1), b.reshape(-1).astype(second_type)


# ------------------------------------------------------------------ measures of fields


def touches(truth: ContactField) -> Tensor:
    """(B, n) bool: which object points touch."""
    return truth.contact > THRESHOLD


def measure_field(predicted: ContactField, truth: ContactField, joints: Tensor | None = None) -> dict[str, float]:
    """Figures of predicted fields, all points of all grasps pooled; lengths in mm.

    - ``precision``, ``recall``, ``f1``: of a predicted mean above `THRESHOLD`.
    - ``ap``: average precision of the predicted mean; ``ap_grasp``: mean over grasps of each one's own.
    - ``ece``, ``ece_claimed``, ``nll``: of `touch_probability`; ``ece_claimed`` leaves out the points that are said
      to touch with less than 1/15.
    - ``correspondence_mm``: median distance of the canonical point where contact is true and a correspondence is;
      ``correspondence_near_mm``: where a correspondence is.
    - ``spearman_contact``, ``spearman_canonical``, ``spearman_joints``: rank correlation of predicted variance and
      squared error; of the canonical point where there is a correspondence.
    - ``mpjpe_mm``: of the predicted joints; ``grip_mm``, ``slide_mm``: of their middle, along the line that thumb and
      fingers close on, and across it, where a hand can slide over the surface.

    Figures that cannot be measured are NaN: of correspondence where ``near`` is predicted to be 0 everywhere, of joints
    without the true ones ``(B, 21, 3)``, metres, object frame. Raises ``ValueError`` where the fields are of different
    grasps or points.
    """
    if predicted.contact.shape != truth.contact.shape:
        raise ValueError(
            f"predicted: fields of shape {tuple(predicted.contact.shape)}, truth {tuple(truth.contact.shape)}; "
            "give the same grasps and object points."
        )
    event, near = touches(truth), truth.near > 0.5
    precision, recall, f1 = precision_recall_f1(predicted.contact > THRESHOLD, event)
    probability = touch_probability(predicted.contact, predicted.contact_var)
    if not (predicted.near > 0).any():  # says nothing of correspondence
        near = torch.zeros_like(near)
    distance = (predicted.canonical - truth.canonical).norm(dim=-1)
    figures = {
        "grasps": float(len(truth)),
        "positives": float(event.float().mean()),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "ap": average_precision(predicted.contact, event),
        "ap_grasp": float(np.nanmean(grasp_average_precision(predicted.contact, truth))),
        "ece": calibration_error(probability, event),
        "ece_claimed": calibration_error(probability, event, skip=1),
        "nll": negative_log_likelihood(probability, event),
        "correspondence_mm": _median_mm(distance[near & event]),
        "correspondence_near_mm": _median_mm(distance[near]),
        "spearman_contact": spearman(predicted.contact_var, (predicted.contact - truth.contact) ** 2),
        "spearman_canonical": spearman(predicted.canonical_var[near], distance[near] ** 2),
    } | dict.fromkeys(("spearman_joints", "mpjpe_mm", "grip_mm", "slide_mm"), float("nan"))
    if joints is not None and predicted.joints is not None:
        error = (predicted.joints - joints).norm(dim=-1)
        figures["mpjpe_mm"] = 1000 * float(error.mean())
        closing = normalize(joints[:, 4] - joints[:, [8, 12]].mean(1), dim=-1)
        shift = (predicted.joints - joints).mean(1)
        along = (shift * closing).sum(-1, keepdim=True)
        figures["grip_mm"] = 1000 * float(along.abs().mean())
        figures["slide_mm"] = 1000 * float((shift - along * closing).norm(dim=-1).mean())
        if predicted.joints_var is not None:
            figures["spearman_joints"] = spearman(predicted.joints_var, error**2)
    return figures


def _median_mm(distance: Tensor) -> float:
    return 1000 * float(distance.median()) if len(distance) else float("nan")


def grasp_average_precision(contact: Tensor, truth: ContactField) -> np.ndarray:
    """(B,) average precision of each grasp's own points; NaN for a grasp that touches nowhere."""
    pairs = zip(_array(contact), _array(touches(truth)), strict=True)
    return np.array([average_precision(score, event) for score, event in pairs])


def ambiguous_half(mean: ContactField) -> Tensor:
    """(B,) bool: the half of the grasps whose joints have the largest predicted variance, blind to the truth."""
    if mean.joints_var is None:
        raise ValueError("mean: has no joints_var, so it does not say which grasps are ambiguous.")
    spread = mean.joints_var.mean(1)
    return (spread.argsort(descending=True).argsort() < len(spread) // 2).cpu()


def best_of_draws(mean: ContactField, drawn_contact: Tensor, truth: ContactField) -> dict[str, float]:
    """How much better the best of ``K`` draws, of contact ``(K, B, n)``, detects it than the mean prediction does.

    ``ap_mean``, ``ap_best`` and ``ap_one`` are average precisions of each grasp, by the mean, the best draw and a
    single draw, and ``gain`` is the share by which ``ap_best`` lies above ``ap_mean``: each for the `ambiguous_half`
    and for the other, ``_sure``, where draws ought to agree. The truth chooses the draw: this says whether the right
    field is among them, not that one could pick it.
    """
    of_mean = grasp_average_precision(mean.contact, truth)
    of_draws = np.stack([grasp_average_precision(contact, truth) for contact in drawn_contact])
    ambiguous = ambiguous_half(mean).numpy()
    figures: dict[str, float] = {}
    for name, rows in (("ambiguous", ambiguous), ("sure", ~ambiguous)):
        rows = rows & np.isfinite(of_mean)
        values = [float("nan")] * 4
        if rows.any():
            before, best = of_mean[rows].mean(), of_draws[:, rows].max(0).mean()
            values = [float(v) for v in (before, best, of_draws[:, rows].mean(), best / before - 1)]
        figures |= {f"{k}_{name}": v for k, v in zip(("ap_mean", "ap_best", "ap_one", "gain"), values, strict=True)}
    return figures
