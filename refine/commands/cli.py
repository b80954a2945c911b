"""The command line, `regrasp COMMAND ...`.

Each command is a frozen dataclass of its options and a function that takes it and returns the exit status:
0 all well, 1 some rows failed (or, for `doctor`, something needed is missing), 2 the input or an option is
wrong, 130 interrupted. Commands are imported when they are asked for, so that `regrasp --help` is instant.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

OK, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True)
class Command:
    """Where a command is implemented, and what `--help` says about it."""

    module: str
    options: str
    """name of the dataclass of options in `module`"""
    run: str
    """name of the function in `module` that takes it"""
    summary: str
    examples: tuple[str, ...]
    goes_on: str = ""
    """what to do when it was interrupted"""


COMMANDS = {
    "demo": Command(
        "refine.commands.demo", "DemoOptions", "demo",
        "Refine noisy grasps on six objects, or a motion: a table, a picture sheet, a film, a web page each.",
        ("regrasp demo", "regrasp demo --protocol contactopt --seed 1 --level 0.5", "regrasp demo --motion"),
    ),
    "refine": Command(
        "refine.commands.refine", "RefineOptions", "refine",
        "Refine every row of prediction files: one, a folder, a glob; carries on where it was stopped.",
        ("regrasp refine predictions.npz --objects meshes/ --out refined/",
         "regrasp refine sequences/ --objects meshes/ --out refined/ --workers 8",
         "regrasp refine pred.json --from ho3d --objects meshes/ --out refined/ --mano-dir mano_v1_2",
         "regrasp refine hamer.npz --from hamer --camera 615,615,320,240 --object-id mug --object-poses poses.json "
         "--objects meshes/ --out refined/",
         "regrasp refine predictions.npz --objects meshes/ --out refined/ --report",
         "regrasp refine predictions.json --objects meshes/objects.json --out refined/ --method contactopt"),
        "the same command, without --overwrite, goes on where it was",
    ),
    "view": Command(
        "refine.commands.view", "ViewOptions", "view",
        "Look at a run in the browser: gallery, table, histograms, a page of every grasp.",
        ("regrasp view refined/",
         "regrasp view refined/predictions.refined.npz --live",
         "regrasp view refined/ --reference truth.npz --objects meshes/"),
    ),
    "convert": Command(
        "refine.commands.convert", "ConvertOptions", "convert",
        "Convert other people's prediction files to grasp/1, or to what a challenge asks for.",
        ("regrasp convert IN OUT.npz",
         "regrasp convert HO3D_v3/train/ABF10 abf10.npz --from ho3d --to grasp",
         "regrasp convert refined.npz pred.json --to ho3d --mano-dir mano_v1_2"),
    ),
    "eval": Command(
        "refine.commands.eval", "EvalOptions", "evaluate",
        "Measure predictions against reference grasps.",
        ("regrasp eval refined/predictions.refined.npz --reference truth.npz --objects meshes/",
         "regrasp eval contact --corpus runs/corpus"),
    ),
    "eval contact": Command(
        "refine.commands.eval", "ContactEvalOptions", "evaluate_contact",
        "Measure a contact network on held-out objects of a corpus, and on human grasps.",
        ("regrasp eval contact --corpus runs/corpus",
         "regrasp eval contact --weights runs/contact/weights.safetensors --corpus runs/corpus --real real/"),
    ),
    "doctor": Command(
        "refine.commands.doctor", "DoctorOptions", "doctor",
        "Say what is installed, and which hand models and weights are found.",
        ("regrasp doctor",),
    ),
    "corpus": Command(
        "refine.commands.corpus", "CorpusConfig", "corpus",
        "Synthesise the grasps that ContactNet is trained on.",
        ("regrasp corpus --out runs/corpus --objects 400 --workers 2",),
        "the same command goes on where it was",
    ),
    "train": Command(
        "refine.commands.train", "TrainConfig", "train",
        "Train ContactNet on a corpus.",
        ("regrasp train --corpus runs/corpus",),
    ),
    "pose-graph": Command(
        "refine.commands.pose_graph", "PoseGraphOptions", "pose_graph",
        "Train the networks that lift graph keypoints, make .npy splits, draw learned adjacencies.",
        ("regrasp pose-graph train --corpus runs/corpus --out runs/pose_graph",
         "regrasp pose-graph splits FHAB/Hand_pose_annotation_v1 --from fhab --objects models/ --out splits/",
         "regrasp pose-graph train --splits splits/ --out runs/fhab"),
    ),
}  # fmt: skip


def overview() -> str:
    """The text of `regrasp --help`."""
    width = max(map(len, COMMANDS))
    lines = ["usage: regrasp COMMAND [OPTIONS]", "", "Makes noisy hand-object grasps touch right.", "", "commands:"]
    lines += [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    lines += ["", "examples:"]
    lines += [f"  {COMMANDS[name].examples[0]}" for name in ("demo", "refine", "doctor")]
    lines += ["", "regrasp COMMAND --help explains one; regrasp --version prints the version."]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `regrasp` with ``arguments`` (the process's own when None) and return the exit status."""
    try:
        status = _dispatch(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has gone, as in `regrasp doctor | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    return status


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview(), file=sys.stdout if arguments else sys.stderr)
        return OK if arguments else BAD_INPUT
    name, *rest = arguments
    if name in ("--version", "version"):
        from importlib.metadata import version

        print(f"regrasp {version('regrasp')}")
        return OK
    if rest and f"{name} {rest[0]}" in COMMANDS:
        name, rest = f"{name} {rest[0]}", rest[1:]
    if name not in COMMANDS:
        print(f"regrasp: error: no command {name!r}; the commands are {', '.join(COMMANDS)}.", file=sys.stderr)
        return BAD_INPUT
    return _run(name, rest)


def _run(name: str, arguments: list[str]) -> int:
    import tyro

    command = COMMANDS[name]
    try:
        module = importlib.import_module(command.module)
        examples = "\n\nExamples:\n" + "\n".join(f"  {line}" for line in command.examples)
        options = tyro.cli(
            getattr(module, command.options),
            prog=f"regrasp {name}",
            description=command.summary + examples,
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("once", UserWarning)  # each as one line, without the source line that raised it
            warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
            return getattr(module, command.run)(options)
    except KeyboardInterrupt:
        print(f"regrasp {name}: interrupted{command.goes_on and '; '}{command.goes_on}.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("REGRASP_DEBUG"):
            traceback.print_exc()
        print(f"regrasp {name}: error: {error}", file=sys.stderr)
        return BAD_INPUT
