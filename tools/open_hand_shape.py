"""Sampling adult hand shapes from MakeHuman's phenotypes and hand targets (build-time only)."""

from __future__ import annotations

import itertools
import zipfile
from dataclasses import dataclass

import numpy as np
from open_hand_source import HandCut, read_target

_RACES = ("african", "asian", "caucasian")
_AGES = ("young", "old")
_MUSCLES = ("minmuscle", "averagemuscle", "maxmuscle")
_WEIGHTS = ("minweight", "averageweight", "maxweight")
_HEIGHTS = ("minheight", "maxheight")
_GIRTH = tuple(f"hands/r-hand-fingers-diameter-{sign}" for sign in ("decr", "incr"))

# Wrist to middle finger tip of adults, metres: mean by sex and spread within one (hand anthropometry surveys).
LENGTH_MEAN = {"male": 0.191, "female": 0.177}
LENGTH_STD = 0.0088


@dataclass(frozen=True)
class ShapeSource:
    """Sparse shape targets restricted to what the hand needs.

    ids (M,) base-mesh vertices kept; base (M,3) decimetres; targets name -> offsets (M,3) decimetres.
    """

    ids: np.ndarray
    base: np.ndarray
    targets: dict[str, np.ndarray]

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Positions of base-mesh ids among the kept ones."""
        return np.searchsorted(self.ids, ids)


def read_shapes(archive: zipfile.ZipFile, cut: HandCut) -> ShapeSource:
    """Read every adult target that can move the hand or its joint cubes."""
    ids = np.unique(np.concatenate([cut.ids, cut.joint_ids.ravel(), cut.end_ids.ravel()]))
    names = [f"macrodetails/{r}-{g}-{a}" for r, g, a in itertools.product(_RACES, LENGTH_MEAN, _AGES)]
    for parts in itertools.product(LENGTH_MEAN, _AGES, _MUSCLES, _WEIGHTS):
        names.append("macrodetails/universal-" + "-".join(parts))
        names.extend("macrodetails/height/" + "-".join((*parts, h)) for h in _HEIGHTS)
    names.extend(_GIRTH)
    targets = {name: read_target(archive, name, len(cut.base))[ids] for name in names}
    return ShapeSource(ids, cut.base[ids], targets)


def phenotype(
    source: ShapeSource,
    *,
    male: float,
    age: float,
    muscle: float,
    weight: float,
    height: float,
    race: np.ndarray,
    finger_girth: float = 0.0,
) -> np.ndarray:
    """Vertices (M,3), decimetres, of one adult.

    male, age (0 young, 1 old), muscle, weight, height in [0,1]; race (3,) sums to 1; finger_girth in [-1,1].
    """
    sexes = {"male": male, "female": 1 - male}
    ages = {"young": 1 - age, "old": age}
    muscles, weights = _triangle(_MUSCLES, muscle), _triangle(_WEIGHTS, weight)
    heights = {"minheight": max(0.0, 1 - 2 * height), "maxheight": max(0.0, 2 * height - 1)}
    out = source.base.copy()
    for (s, ps), (a, pa) in itertools.product(sexes.items(), ages.items()):
        for name, share in zip(_RACES, race, strict=True):
            out += share * ps * pa * source.targets[f"macrodetails/{name}-{s}-{a}"]
        for (m, pm), (w, pw) in itertools.product(muscles.items(), weights.items()):
            value = ps * pa * pm * pw
            if value == 0:
                continue
            out += value * source.targets[f"macrodetails/universal-{s}-{a}-{m}-{w}"]
            for h, ph in heights.items():
                out += value * ph * source.targets[f"macrodetails/height/{s}-{a}-{m}-{w}-{h}"]
    return out + abs(finger_girth) * source.targets[_GIRTH[finger_girth > 0]]


def _triangle(names: tuple[str, str, str], x: float) -> dict[str, float]:
    """Piecewise-linear shares of the low, middle and high target at ``x`` in [0,1]."""
    return dict(zip(names, (max(0.0, 1 - 2 * x), 1 - abs(2 * x - 1), max(0.0, 2 * x - 1)), strict=True))


@dataclass(frozen=True)
class Adult:
    """One drawn adult.

    vertices (M,3) of the source, decimetres; length: wrist to middle tip, metres; palm (2,) thickness and width and
    fingers (5,) lengths (index, middle, pinky, ring, thumb), relative to the source's.
    """

    vertices: np.ndarray
    length: float
    palm: np.ndarray
    fingers: np.ndarray


def draw_adults(source: ShapeSource, n: int, rng: np.random.Generator) -> list[Adult]:
    """``n`` adults, half of either sex, ages and builds spread over the phenotype's range.

    MakeHuman's phenotypes change little of the hand but its size, so the proportions known from anthropometry are
    drawn here: at equal length men's hands are thicker than women's, and girth, breadth, thickness and finger
    lengths vary by 2-6 % on their own and partly together.
    """
    out = []
    for i in range(n):
        male = 1 - i % 2
        build = rng.normal(0.6 if male else -0.6, 0.8)  # slender ... broad, unit variance over both sexes
        muscle, weight, height = np.clip(rng.normal(0.5, 0.2, 3), 0, 1)
        vertices = phenotype(
            source,
            male=float(male),
            age=float(rng.uniform(0, 0.8)),
            muscle=float(muscle),
            weight=float(weight),
            height=float(height),
            race=rng.dirichlet(np.ones(3)),
            finger_girth=float(np.clip(0.28 * build + rng.normal(0, 0.25), -1, 1)),
        )
        palm = 1 + np.array([0.03, 0.025]) * build + rng.normal(0, [0.035, 0.03])
        fingers = 1 + rng.normal(0, 0.022) + rng.normal(0, [0.015, 0.015, 0.02, 0.015, 0.025])
        length = rng.normal(LENGTH_MEAN["male" if male else "female"], LENGTH_STD)
        out.append(Adult(vertices, float(length), palm, fingers))
    return out


def neutral_adult(source: ShapeSource) -> np.ndarray:
    """The middle of the range: half male, young, average build, equal mix; vertices (M,3) decimetres."""
    return phenotype(source, male=0.5, age=0.2, muscle=0.5, weight=0.5, height=0.5, race=np.full(3, 1 / 3))


def principal_shapes(deviations: np.ndarray, length: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Shape directions (V,3,k) of unit-variance, uncorrelated coefficients, those (S,k), and the variance kept.

    The first coefficient is hand length in standard deviations, positive for larger hands (its direction is the
    regression of shape on length); the others are the principal components of what length does not explain, so
    they leave it alone.  Their sign makes the largest entry positive.

    deviations (S,V,3) and length (S,) have zero mean, metres.
    """
    flat = deviations.reshape(len(deviations), -1)
    size = length / length.std()
    first = size @ flat / len(flat)
    u, s, vt = np.linalg.svd(flat - np.outer(size, first), full_matrices=False)
    sign = np.sign(np.take_along_axis(vt, np.abs(vt).argmax(1)[:, None], 1)[: k - 1, 0])
    scale = s[: k - 1] / np.sqrt(len(flat))
    basis = np.concatenate([first[None], vt[: k - 1] * (scale * sign)[:, None]])
    coefficients = np.concatenate([size[:, None], u[:, : k - 1] * sign * np.sqrt(len(flat))], axis=1)
    kept = float((basis**2).sum() / ((flat**2).sum() / len(flat)))
    return basis.T.reshape(*deviations.shape[1:], k), coefficients, kept
