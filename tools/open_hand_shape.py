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
_HAND = tuple(f"hands/r-hand-fingers-{kind}-{sign}" for kind in ("length", "diameter") for sign in ("decr", "incr"))

# Wrist to middle finger tip of adults, metres: mean by sex and spread within one (hand anthropometry surveys).
LENGTH_MEAN = {"male": 0.191, "female": 0.177}
LENGTH_STD = 0.0095


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
    names.extend(_HAND)
    targets = {name: read_target(archive, name, len(cut.base))[ids] for name in names}
    return ShapeSource(ids, cut.base[ids], targets)


def phenotype(source: ShapeSource, *, male: float, age: float, muscle: float, weight: float, height: float,
              race: np.ndarray, finger_length: float = 0.0, finger_girth: float = 0.0) -> np.ndarray:
    """Vertices (M,3), decimetres, of one adult.

    male, age (0 young, 1 old), muscle, weight, height in [0,1]; race (3,) sums to 1; the last two in [-1,1].
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
    for kind, amount in (("length", finger_length), ("diameter", finger_girth)):
        out += abs(amount) * source.targets[f"hands/r-hand-fingers-{kind}-{'incr' if amount > 0 else 'decr'}"]
    return out


def _triangle(names: tuple[str, str, str], x: float) -> dict[str, float]:
    """Piecewise-linear shares of the low, middle and high target at ``x`` in [0,1]."""
    return dict(zip(names, (max(0.0, 1 - 2 * x), 1 - abs(2 * x - 1), max(0.0, 2 * x - 1)), strict=True))


@dataclass(frozen=True)
class Adult:
    """One drawn adult: source vertices (M,3) decimetres and the hand length (metres) they are to be scaled to."""

    vertices: np.ndarray
    length: float


def draw_adults(source: ShapeSource, n: int, rng: np.random.Generator) -> list[Adult]:
    """``n`` adults, half of either sex, ages and builds spread over the phenotype's range."""
    out = []
    for i in range(n):
        sex = ("male", "female")[i % 2]
        muscle, weight, height = np.clip(rng.normal(0.5, 0.2, 3), 0, 1)
        finger_length, finger_girth = np.clip(rng.normal(0.0, [0.5, 0.5]), -1, 1)
        vertices = phenotype(
            source, male=float(sex == "male"), age=float(rng.uniform(0, 0.8)), muscle=float(muscle),
            weight=float(weight), height=float(height), race=rng.dirichlet(np.ones(3)),
            finger_length=float(finger_length), finger_girth=float(finger_girth),
        )
        out.append(Adult(vertices, float(rng.normal(LENGTH_MEAN[sex], LENGTH_STD))))
    return out


def neutral_adult(source: ShapeSource) -> np.ndarray:
    """The middle of the range: half male, young, average build, equal mix; vertices (M,3) decimetres."""
    return phenotype(source, male=0.5, age=0.2, muscle=0.5, weight=0.5, height=0.5, race=np.full(3, 1 / 3))


def principal_shapes(deviations: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, float]:
    """PCA of deviations (S,V,3): directions (V,3,k) per standard deviation, their stds (k,), variance kept.

    Signs are fixed: a positive coefficient moves the skin outwards from the origin of the rest frame's wrist on
    the whole (the caller subtracts the mean); ties go to the largest entry.
    """
    flat = deviations.reshape(len(deviations), -1)
    _, s, vt = np.linalg.svd(flat, full_matrices=False)
    std = s / np.sqrt(len(flat))
    basis = vt[:k] * std[:k, None]
    largest = np.take_along_axis(basis, np.abs(basis).argmax(1)[:, None], 1)
    basis = basis * np.sign(largest)
    kept = float((std[:k] ** 2).sum() / (std**2).sum())
    return basis.T.reshape(*deviations.shape[1:], k), std[:k], kept
