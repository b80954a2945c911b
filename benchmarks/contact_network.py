"""Contact networks side by side: ours, the published one and others, on the same noisy hands in one run.

    python benchmarks/contact_network.py                    all networks, all grasps, tables
    python benchmarks/contact_network.py --quick            ours and the published one, fewer grasps, at most 45 s
    python benchmarks/contact_network.py --write docs/network.md         and their tables into that page
    python benchmarks/contact_network.py --draws docs/network_draws.png  pictures of the latent's draws, no more
    python benchmarks/contact_network.py --corpus runs/corpus            held-out grasps of a corpus instead
    python benchmarks/contact_network.py --make-held-out runs/corpus     writes the file with held-out grasps

Every network sees the same hands under `contactopt` noise: grasps on objects that none was trained on
(`contact_held_out.npz` beside this file), and 289 human grasps of DexYCB where they are found (see
`benchmarks/real_grasps.py`; nulls and a line on standard error where not), whose truth is the capsule contact of the
fitted hand. The figures are those of `contact.evaluate`. End to end, our optimiser moves the noisy hand to where each
network's field sees it, without the gate that would keep the input: errors are those of joints.

The last line of standard output is one JSON object. `ap_ratio_*`: average precision of ours over the published one's;
`mpjpe_ratio_real`: joint error of ours over the published one's, end to end; `variance_spearman`: rank correlation of
our variance and squared error of contact, all points of the held-out grasps; `best_of_8_ap_gain`: by what share the
best of eight draws beats our mean prediction on the half of the held-out grasps that it is least sure of.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from held_out_cases import read_cases, write_cases
from real_grasps import validation_folder

from contact.cases import Cases, Predictor, draw_contact, held_out_cases, in_turn, predict_cases, predictor, real_cases
from contact.evaluate import best_of_draws, measure_field
from contact.field import ContactField
from contact.network import ContactNet
from contact.objects.object_set import ObjectSet
from contact.weights import load_network
from hand_models import HandModel, load_hand_model
from hand_models.atomic import write_atomically
from refine.config import RefineConfig
from refine.measure.joints import mpjpe
from refine.solve.optimize import optimise

SEED = 0
NOISE = "contactopt"
DRAWS = 8
BATCH = 16
QUICK_HELD_OUT, QUICK_HUMAN, QUICK_DRAWN = 96, 73, 40
"""Grasps of each kind in the quick run, and of how many fields are drawn."""
HELD_OUT = Path(__file__).with_name("contact_held_out.npz")
WEIGHTS = Path(__file__).with_name("weights")
OURS, PUBLISHED = "ContactNet", "DeepContact"
OTHERS = {PUBLISHED: "deepcontact", "EdgeConv": "edgeconv", "basis point set": "basis"}
"""Name to weight file of the networks in `contact_architectures`."""


@dataclass(frozen=True)
class Contender:
    """A network to compare."""

    name: str
    predict: Predictor
    parameters: int


def contenders(ours: ContactNet, model: HandModel, weights: Path, names: Sequence[str]) -> list[Contender]:
    """Ours, and of the others those whose weights are there."""
    found = [Contender(OURS, predictor(ours, model), _count(ours))]
    for name in names:
        file = weights / f"{OTHERS[name]}.safetensors"
        if not file.is_file():
            print(f"{name}: left out, there is no {file.name} in {weights.name}/", file=sys.stderr)
            continue
        from contact_architectures import load_architecture, predict

        network = load_architecture(file).eval()

        def of_others(cases: Cases, network=network) -> ContactField:
            seen = cases.objects[cases.which]
            surface = (seen.points, seen.normals, seen.thickness, seen.hierarchy)
            with torch.no_grad():
                return predict(network, model, cases.noisy, *surface)

        found.append(Contender(name, of_others, _count(network)))
    return found


def _count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def milliseconds(networks: Sequence[Contender], cases: Cases, rounds: int) -> dict[str, float]:
    """Of a grasp in a batch of 16, features included: the median over ``rounds``, in which the networks take turns."""
    rows = torch.arange(BATCH) % len(cases)
    times: dict[str, list[float]] = {c.name: [] for c in networks}
    for _ in range(rounds):
        for c in networks:
            began = time.perf_counter()
            c.predict(cases[rows])
            times[c.name].append(1000 * (time.perf_counter() - began) / BATCH)
    return {name: float(np.median(values)) for name, values in times.items()}


def refined_error(
    field: ContactField, cases: Cases, objects: ObjectSet, model: HandModel, config: RefineConfig
) -> np.ndarray:
    """(N,) metres: joint error of the hands that the optimiser brings to where ``field`` sees them, no gate."""
    poses = []
    for rows in torch.arange(len(cases)).split(config.batch_size):
        noisy, seen = cases.noisy[rows], field[rows]
        found = optimise(model, objects, cases.which[rows], noisy, seen, config).state.pose
        poses.append(model.joints(found.where(found.finite(), noisy)))
    return mpjpe(torch.cat(poses), model.joints(cases.pose))


def benchmark(options: argparse.Namespace) -> dict[str, float | None]:
    """Everything: prints tables, returns the figures of the last line."""
    model, ours = load_hand_model("open"), load_network(options.weights)
    networks = contenders(ours, model, options.architectures, [PUBLISHED] if options.quick else list(OTHERS))
    count = QUICK_HELD_OUT if options.quick else None
    if options.corpus is not None:
        held = held_out_cases(options.corpus, NOISE, options.count, SEED)
    else:
        held = read_cases(options.held_out, NOISE, count, SEED)
    speed = milliseconds(networks, held, 2 if options.quick else 5)
    fields = {c.name: predict_cases(c.predict, held, BATCH) for c in networks}
    on_held = {n: measure_field(f, held.truth, model.joints(held.pose)) for n, f in fields.items()}
    part = slice(QUICK_DRAWN if options.quick else None)
    drawn = draw_contact(ours, model, held[part], DRAWS, SEED)
    draws = best_of_draws(fields[OURS][part], drawn, held[part].truth)
    on_real: dict[str, dict[str, float]] = {}
    folder = validation_folder()
    if folder is None:
        print("no human grasps: set REGRASP_REAL_DATA to their folder (see --help)", file=sys.stderr)
    else:
        on_real = human(networks, folder, model, RefineConfig(weights=options.weights), options.quick)
    sizes = {c.name: c.parameters for c in networks}
    text = tables(sizes, speed, on_held, on_real, draws)
    print(text)
    if options.write is not None:
        write_results(options.write, text)
    return summary(on_held, on_real, draws, speed)


def human(
    networks: Sequence[Contender], folder: Path, model: HandModel, config: RefineConfig, quick: bool
) -> dict[str, dict[str, float]]:
    """Figures of every network on human grasps, the end-to-end joint error among them."""
    cases, meshes = real_cases(folder, model, NOISE, count=QUICK_HUMAN if quick else None, seed=SEED)
    objects = ObjectSet.of(meshes)
    before = mpjpe(model.joints(cases.noisy), model.joints(cases.pose))
    figures = {}
    for c in networks:
        field = predict_cases(c.predict, cases, BATCH)
        error = 1000 * refined_error(field, cases, objects, model, config)
        figures[c.name] = measure_field(field, cases.truth, model.joints(cases.pose)) | {
            "input_mpjpe_mm": 1000 * float(before.mean()),
            "refined_mpjpe_mm": float(error.mean()),
            "refined_mpjpe_median_mm": float(np.median(error)),
        }
    return figures


_ROWS = (
    ("average precision", "ap", "{:.3f}"),
    ("mean over grasps of their own", "ap_grasp", "{:.3f}"),
    ("precision at 0.4", "precision", "{:.2f}"),
    ("recall at 0.4", "recall", "{:.2f}"),
    ("F1 at 0.4", "f1", "{:.2f}"),
    ("expected calibration error", "ece", "{:.3f}"),
    ("where 1/15 or more is claimed", "ece_claimed", "{:.3f}"),
    ("negative log likelihood, nats", "nll", "{:.3f}"),
    ("canonical point where touching, median mm", "correspondence_mm", "{:.1f}"),
    ("variance to error, contact (Spearman)", "spearman_contact", "{:.2f}"),
    ("variance to error, canonical point", "spearman_canonical", "{:.2f}"),
    ("variance to error, joints", "spearman_joints", "{:.2f}"),
    ("predicted joints, mm", "mpjpe_mm", "{:.1f}"),
    ("their middle along the closing line, mm", "grip_mm", "{:.1f}"),
    ("across it, mm", "slide_mm", "{:.1f}"),
    ("refined hand, joint error, mm", "refined_mpjpe_mm", "{:.1f}"),
    ("its median, mm", "refined_mpjpe_median_mm", "{:.1f}"),
)


def table(title: str, figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Lines of a Markdown table, a column a network."""
    lines = [f"| {title} | " + " | ".join(figures) + " |", "|---" * (len(figures) + 1) + "|"]
    for label, key, form in _ROWS:
        cells = [values.get(key, np.nan) for values in figures.values()]
        if np.isfinite(cells).any():
            texts = [form.format(x) if np.isfinite(x) else "–" for x in cells]
            lines.append(f"| {label} | " + " | ".join(texts) + " |")
    return lines


def tables(
    sizes: Mapping[str, int],
    speed: Mapping[str, float],
    on_held: Mapping[str, Mapping[str, float]],
    on_real: Mapping[str, Mapping[str, float]],
    draws: Mapping[str, float],
) -> str:
    """Everything measured, as Markdown."""
    lines = [f"| | {' | '.join(sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    lines.append("| parameters | " + " | ".join(f"{n:,}" for n in sizes.values()) + " |")
    lines.append("| ms a grasp, batch 16 | " + " | ".join(f"{speed[n]:.1f}" for n in sizes) + " |")
    count, share = (on_held[OURS][k] for k in ("grasps", "positives"))
    title = f"{count:.0f} grasps on held-out objects, {100 * share:.1f} % of points touch"
    lines += ["", *table(title, on_held)]
    if on_real:
        count, share, before = (on_real[OURS][k] for k in ("grasps", "positives", "input_mpjpe_mm"))
        title = f"{count:.0f} human grasps, {100 * share:.1f} % of points touch, input {before:.1f} mm off"
        lines += ["", *table(title, on_real)]
    lines += ["", f"| {DRAWS} draws, held-out objects | ambiguous half | the other half |", "|---|---|---|"]
    for label, key in (
        ("average precision of the mean prediction", "ap_mean"),
        ("of a draw, on average", "ap_one"),
        ("of the best draw", "ap_best"),
        ("gain of the best draw", "gain"),
    ):
        cells = [draws[f"{key}_{half}"] for half in ("ambiguous", "sure")]
        form = "{:+.0%}" if key == "gain" else "{:.3f}"
        lines.append(f"| {label} | " + " | ".join(form.format(x) for x in cells) + " |")
    return "\n".join(lines)


def summary(
    on_held: Mapping[str, Mapping[str, float]],
    on_real: Mapping[str, Mapping[str, float]],
    draws: Mapping[str, float],
    speed: Mapping[str, float],
) -> dict[str, float | None]:
    """The last line: ratios, what they are made of, and None where something was not there to be measured."""

    def get(figures: Mapping[str, Mapping[str, float]], name: str, key: str) -> float | None:
        value = figures.get(name, {}).get(key, np.nan)
        return float(value) if np.isfinite(value) else None

    def compare(name: str, figures: Mapping[str, Mapping[str, float]], key: str) -> dict[str, float | None]:
        ours, published = get(figures, OURS, key), get(figures, PUBLISHED, key)
        ratio = ours / published if ours is not None and published else None
        measure, where = name.split("_")
        unit = "_mm" if key.endswith("_mm") else ""
        return {
            f"{measure}_ratio_{where}": ratio,
            f"{measure}_{where}_ours{unit}": ours,
            f"{measure}_{where}_published{unit}": published,
        }

    out: dict[str, float | None] = {"seed": SEED}
    out |= compare("ap_heldout", on_held, "ap") | compare("ap_real", on_real, "ap")
    for where, figures in (("heldout", on_held), ("real", on_real)):
        out[f"grasps_{where}"] = get(figures, OURS, "grasps")
        for key in ("ece", "ece_claimed", "nll", "precision", "recall", "f1"):
            out[f"{key}_{where}"] = get(figures, OURS, key)
            out[f"{key}_{where}_published"] = get(figures, PUBLISHED, key)
    out["variance_spearman"] = get(on_held, OURS, "spearman_contact")
    out["variance_spearman_real"] = get(on_real, OURS, "spearman_contact")
    for part in ("canonical", "joints"):
        out[f"variance_spearman_{part}"] = get(on_held, OURS, f"spearman_{part}")
    out["correspondence_median_mm"] = get(on_held, OURS, "correspondence_mm")
    out["correspondence_median_real_mm"] = get(on_real, OURS, "correspondence_mm")
    out["best_of_8_ap_gain"] = get({"": draws}, "", "gain_ambiguous")
    out |= {f"best_of_8_{name}": get({"": draws}, "", name) for name in draws if name != "gain_ambiguous"}
    out |= compare("mpjpe_real", on_real, "refined_mpjpe_mm")
    out["mpjpe_real_input_mm"] = get(on_real, OURS, "input_mpjpe_mm")
    return out | {"ms_per_grasp": speed[OURS], "ms_per_grasp_published": speed.get(PUBLISHED)}


_BEGIN, _END = "<!-- results -->", "<!-- /results -->"


def write_results(file: Path, text: str) -> None:
    """Put the tables between the two marks of a Markdown file; ``ValueError`` when it has none."""
    page = file.read_text(encoding="utf-8")
    before, found, rest = page.partition(_BEGIN)
    _, closed, after = rest.partition(_END)
    if not found or not closed:
        raise ValueError(f"{file}: has no block from {_BEGIN} to {_END} for the tables; put the marks there.")
    page = f"{before}{_BEGIN}\n{text}\n{_END}{after}"
    write_atomically(file, lambda stream: stream.write(page.encode()))


def picture_of_draws(options: argparse.Namespace) -> None:
    """Draw what the latent leaves open on held-out grasps."""
    from contact_draws import draw_sheet

    model, ours = load_hand_model("open"), load_network(options.weights)
    held = read_cases(options.held_out, NOISE, None, SEED)
    draw_sheet(ours, model, held, predict_cases(predictor(ours, model), held, BATCH), options.draws)


def make_held_out(corpus: Path, file: Path, grasps: int, objects: int) -> Path:
    """Write ``grasps`` of a corpus's held-out ones, spread over at most ``objects`` objects, families in turn."""
    cases = held_out_cases(corpus, "none")
    families = {name: k for k, name in enumerate(dict.fromkeys(cases.names))}
    kept = in_turn(torch.tensor([families[name] for name in cases.names]))[:objects]
    rows = torch.isin(cases.which, kept).nonzero()[:, 0]
    rows = rows[in_turn(cases.which[rows])[:grasps]]
    used, which = cases.which[rows].unique(return_inverse=True)
    names = tuple(cases.names[k] for k in used.tolist())
    return write_cases(replace(cases[rows], which=which, names=names, objects=cases.objects[used]), file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ours and the published one, fewer grasps")
    parser.add_argument("--weights", type=Path, help="of ours; the shipped ones")
    parser.add_argument("--architectures", type=Path, default=WEIGHTS, help="folder with the others' weights")
    parser.add_argument("--corpus", type=Path, help="take held-out grasps from this corpus")
    parser.add_argument("--count", type=int, help="how many of them; all")
    parser.add_argument("--write", type=Path, help="Markdown file whose results block the tables replace")
    parser.add_argument("--draws", type=Path, help="write pictures of latent draws, a PNG, no more")
    parser.add_argument("--make-held-out", type=Path, metavar="CORPUS", help="write the held-out grasps, no more")
    parser.add_argument("--held-out", type=Path, default=HELD_OUT, help="file with the held-out grasps")
    parser.add_argument("--held-out-grasps", type=int, default=120)
    parser.add_argument("--held-out-objects", type=int, default=90, help="at most; about 20 kB each")
    arguments = parser.parse_args()
    try:
        if arguments.make_held_out is not None:
            made = make_held_out(
                arguments.make_held_out, arguments.held_out, arguments.held_out_grasps, arguments.held_out_objects
            )
            print(f"{made}: {made.stat().st_size / 1e6:.2f} MB", file=sys.stderr)
            sys.exit(0)
        if arguments.draws is not None:
            picture_of_draws(arguments)
            sys.exit(0)
        result = benchmark(arguments)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in result.items()}))
