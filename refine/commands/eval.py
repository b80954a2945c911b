"""`regrasp eval`: predictions measured against reference grasps; `regrasp eval contact`: a contact network's fields."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from contact.cases import Cases, draw_contact, held_out_cases, predict_cases, predictor, real_cases
from contact.evaluate import best_of_draws, measure_field
from contact.perturb import PROTOCOLS, protocol
from contact.weights import load_network
from hand_models import load_hand_model

from ..files.object_files import find_objects
from ..files.prediction_files import read_predictions
from ..files.predictions import Predictions
from ..measure.evaluate import evaluate_predictions
from ..measure.report import make_report
from ..measure.sequences import evaluate_sequences
from .eval_report import write_report
from .hands import HandOptions
from .tables import aligned, write_figures


@dataclass(frozen=True)
class EvalOptions:
    """Options of `regrasp eval`."""

    file: Annotated[Path, tyro.conf.Positional]
    """Predictions or results: grasp/1 as .npz, .json or .parquet."""
    reference: Path
    """True grasps, grasp/1. Rows are matched by sequence, frame, object and side."""
    objects: Path
    """Meshes, in metres: a folder of <object_id>.obj (.ply, .stl, .off, .glb) or <object_id>/textured_simple.obj, a
    side-car objects.json, or one mesh that serves all rows."""
    scale: float | None = None
    """Factor that brings the meshes to metres, as for regrasp refine."""
    out: Path | None = None
    """File for the figures as JSON."""
    report: Path | None = None
    """Folder for a report: report.md, tables as CSV and, with matplotlib, pictures."""
    before: Path | None = None
    """What FILE was refined from, grasp/1: the report sets both side by side."""
    noise: str | None = None
    """Protocol by which the hands were off: contactopt, toch-b1, ...; the report adds what papers measured under the
    same noise."""
    hands: HandOptions = field(default_factory=HandOptions)


def evaluate(options: EvalOptions) -> int:
    """Run the command: a table on standard output, and JSON where ``--out`` says."""
    for name in ("before", "noise"):
        if getattr(options, name) is not None and options.report is None:
            raise ValueError(f"--{name}: is for the report; give its folder with --report.")
    if options.noise is not None:
        protocol(options.noise)
    predictions, reference = read_predictions(options.file), read_predictions(options.reference)
    here, there = matched_rows(predictions, reference)
    if not len(here):
        raise ValueError(
            f"--reference {options.reference}: no row has the frame, object and side of a row of {options.file}."
        )
    objects = find_objects(options.objects, options.scale)
    model, pair = options.hands.load(), (predictions.take(here), reference.take(there))
    figures = evaluate_predictions(*pair, objects, model) | evaluate_sequences(*pair, objects, model)
    figures = {"rows": len(here), "rows_without_reference": len(predictions) - len(here)} | figures
    rows = [(name, f"{x:.4g}" if isinstance(x, float) else str(x)) for name, x in figures.items()]
    print("\n".join(aligned(rows)))
    if options.out is not None:
        write_figures(options.out, figures)
    if options.report is not None:
        before = None
        if options.before is not None:
            before, (here, there) = _before(options.before, predictions, here, there)
        rows = predictions.take(here)
        report = make_report(rows, reference.take(there), objects, model, before)
        missing = write_report(report, rows, options.report, options.noise or "")
        print(f"report: {options.report / 'report.md'}")
        if missing:
            print(f"no pictures: {missing}", file=sys.stderr)
    return 0


def _before(
    path: Path, predictions: Predictions, here: np.ndarray, there: np.ndarray
) -> tuple[Predictions, tuple[np.ndarray, np.ndarray]]:
    """What matched rows were refined from, and those rows that it has."""
    given = read_predictions(path)
    row_of, row_in = matched_rows(predictions.take(here), given, "--before")
    if not len(row_in):
        raise ValueError(f"--before {path}: no row has the frame, object and side of a row that is measured.")
    return given.take(row_in), (here[row_of], there[row_of])


def matched_rows(
    predictions: Predictions, reference: Predictions, name: str = "reference"
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of both files that are the same hand, in the order of the first.

    Raises:
        ValueError: a hand is in the second file, whose ``name`` the message gives, twice.
    """
    truth: dict[tuple[Any, ...], int] = {}
    for row, key in enumerate(_keys(reference)):
        if (other := truth.setdefault(key, row)) != row:
            raise ValueError(f"{name}: rows {other} and {row} are the same hand {key}; frame_id must tell them apart.")
    pairs = [(row, truth[key]) for row, key in enumerate(_keys(predictions)) if key in truth]
    here, there = np.array(pairs, int).reshape(-1, 2).T
    return here, there


def _keys(p: Predictions) -> list[tuple[Any, ...]]:
    columns = (p.sequence_id, p.frame_id, p.object_id, p.side)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@dataclass(frozen=True)
class ContactEvalOptions:
    """Options of `regrasp eval contact`."""

    weights: str = "default"
    """Weight file of ContactNet with its card beside it; default: the one that ships."""
    corpus: Path | None = None
    """Corpus made by `regrasp corpus`; of its grasps those on held-out objects are used."""
    real: Path | None = None
    """Folder of human grasps: dexycb_val.npz (object_id, joints in metres) and ycb/<object_id>.ply."""
    noise: str = "contactopt"
    """Protocol by which the hands are off: contactopt, image, camera, toch-b1, ..., none."""
    count: int | None = None
    """Grasps of the corpus and of the real ones, at most; all when not given."""
    draws: int = 0
    """Draws of the latent to take the best of, 2 or more; 0 leaves this out, which is most of the work."""
    seed: int = 0
    """Of the noise and the draws."""
    out: Path | None = None
    """File for the figures as JSON."""


_CONTACT_LINES = (
    ("grasps", "grasps", 0),
    ("share of points that touch", "positives", 3),
    ("precision at 0.4", "precision", 3),
    ("recall at 0.4", "recall", 3),
    ("F1 at 0.4", "f1", 3),
    ("average precision", "ap", 3),
    ("  mean over grasps", "ap_grasp", 3),
    ("expected calibration error", "ece", 3),
    ("  where 1/15 or more is claimed", "ece_claimed", 3),
    ("negative log likelihood, nats", "nll", 3),
    ("correspondence where touching, mm", "correspondence_mm", 1),
    ("  wherever there is one, mm", "correspondence_near_mm", 1),
    ("joints, mm", "mpjpe_mm", 1),
    ("  middle, along the closing line", "grip_mm", 1),
    ("  across it", "slide_mm", 1),
    ("rank correlation of variance and", "", 0),
    ("  error of contact", "spearman_contact", 2),
    ("  error of correspondence", "spearman_canonical", 2),
    ("  error of joints", "spearman_joints", 2),
    ("ambiguous half: mean's precision", "ap_mean_ambiguous", 3),
    ("  best draw's", "ap_best_ambiguous", 3),
    ("  gain", "gain_ambiguous", 3),
)


def evaluate_contact(options: ContactEvalOptions) -> int:
    """Run `regrasp eval contact`: a table on standard output, and JSON where ``--out`` says.

    Raises:
        ValueError: neither ``--corpus`` nor ``--real``, an unknown protocol, or weights of another network.
        FileNotFoundError: weights, corpus or grasps are not there.
    """
    if options.corpus is None and options.real is None:
        raise ValueError("--corpus: give a corpus, or human grasps with --real, to measure on.")
    if options.count is not None and options.count < 1:
        raise ValueError(f"--count: got {options.count}; give 1 or more.")
    if options.draws < 0 or options.draws == 1:
        raise ValueError(f"--draws: got {options.draws}; give 2 or more, or 0 for none.")
    if options.noise not in PROTOCOLS:
        raise ValueError(f"--noise: got {options.noise!r}; choose one of {', '.join(PROTOCOLS)}.")
    network = load_network(None if options.weights == "default" else Path(options.weights))
    model = load_hand_model("open")
    noise, count, seed = options.noise, options.count, options.seed
    measured: dict[str, Cases] = {}
    if options.corpus is not None:
        measured["held-out objects"] = held_out_cases(options.corpus, noise, count, seed, model)
    if options.real is not None:
        measured["human grasps"], _ = real_cases(options.real, model, noise, count=count, seed=seed)
    figures: dict[str, dict[str, float]] = {}
    for name, cases in measured.items():
        predicted = predict_cases(predictor(network, model), cases)
        figures[name] = measure_field(predicted, cases.truth, model.joints(cases.pose))
        if options.draws:
            drawn = draw_contact(network, model, cases, options.draws, seed)
            figures[name] |= best_of_draws(predicted, drawn, cases.truth)
    print(contact_table(figures))
    if options.out is not None:
        settings = {"noise": noise, "seed": seed, "weights": Path(options.weights).name}
        write_figures(options.out, figures | settings)
    return 0


def contact_table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Figures by column, as a table for people; lines that no column has are left out, NaN is a dash."""
    rows = [["", *figures]]
    for label, key, digits in _CONTACT_LINES:
        if not key or any(key in values for values in figures.values()):
            found = [values.get(key, np.nan) if key else None for values in figures.values()]
            cells = ["" if x is None else f"{x:.{digits}f}" if np.isfinite(x) else "-" for x in found]
            rows.append([label, *cells])
    return "\n".join(aligned(rows))
