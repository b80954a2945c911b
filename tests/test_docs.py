"""The documentation does what it says: code runs, commands parse, links lead somewhere, the site builds."""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
import yaml
from PIL import Image

from contact.objects.box import box_corners
from contact.perturb import PROTOCOLS
from contact.weights import DEFAULT
from hand_models import HandPose, load_open_hand
from refine import refine_grasp
from refine.commands import cli
from refine.measure.published import PUBLISHED

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
OWN = ("refine", "regrasp", "contact", "hand_models", "pose_graph")
ELSEWHERE = {"cd", "cp", "git", "ray"}
"""Commands of other programs."""
NOT_RUN = {
    ("formats.md", "keep = "): "lines for another program's script; a test of the format runs them",
    ("cluster.md", "Execution(workers=8)"): "starts eight processes; the tests of batches run the same functions",
    ("look.md", "write_page("): "takes frames of the reader's own; the tests of pages run it",
    ("README.md", "refine_sequence("): "takes a motion of the reader's own; the tests of motions run it",
    ("sequences.md", "refine_sequence("): "as on README",
    ("sequences.md", "SequenceStream("): "as on README; the tests of streams push frames",
    ("look.md", "to_gif("): "draws three films; the tests of films do so, smaller",
}
"""Python that is compiled and whose imports are made, no more: page and what is in the block."""


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            found.append(Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2]))
    return [block for block in found if not languages or block.language in languages]


def commands() -> list[tuple[str, list[str]]]:
    """Where it stands, and the words of each command of a block, continued lines together."""
    found = []
    for block in blocks("bash"):
        for line in block.text.replace("\\\n", " ").splitlines():
            for part in re.split(r" && ", line):
                if words := shlex.split(part, comments=True):
                    found.append((str(block), words))
    return found


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def unbound(tree: ast.AST) -> set[str]:
    """Names that are used and neither assigned, imported nor built in."""
    nodes = list(ast.walk(tree))
    bound = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} | set(dir(builtins))
    bound |= {
        a.asname or a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names
    }
    bound |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    bound |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    return {n.id for n in nodes if isinstance(n, ast.Name)} - bound


def test_every_block_says_what_it_is():
    assert [page.name for page in PAGES if not page.stat().st_size] == []
    languages = {block.language for block in blocks()}
    assert languages == {"bash", "json", "python", "text", "toml"}
    assert len(blocks("python")) >= 8
    assert len(commands()) >= 25


@pytest.mark.parametrize(("where", "words"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_commands_are_understood(where, words, monkeypatch):
    program, *rest = words
    if program == "regrasp":
        monkeypatch.chdir(ROOT)
        taken = []
        for command in cli.COMMANDS.values():
            module = importlib.import_module(command.module)
            monkeypatch.setattr(module, command.run, lambda options: taken.append(options) or 0)
        assert cli.main(rest) == 0, where
        assert len(taken) == 1
    elif program == "pip":
        extras = set(re.findall(r"[a-z-]+", "".join(re.findall(r"\[(.*)\]", rest[-1]))))
        assert rest[0] == "install"
        assert extras <= set(project()["optional-dependencies"]), where
    elif program == "python":
        script = (ROOT / rest[0]).read_text(encoding="utf-8")
        assert all(f'"{word}"' in script for word in rest[1:] if word.startswith("--")), where
    elif program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), where
    else:
        assert program in ELSEWHERE, f"{where}: no check for {program}"


@pytest.mark.parametrize("line", sorted({c for command in cli.COMMANDS.values() for c in command.examples}))
def test_examples_of_the_help_are_understood(line, monkeypatch):
    test_commands_are_understood("--help", shlex.split(line), monkeypatch)


def test_scripts_named_in_running_text_are_there():
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue  # which names those of the past
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"(?<![\w/])(?:benchmarks|examples|tools)/\w+\.py", text):
            assert (ROOT / name).is_file(), f"{page.name} names {name}"
        for script, options in re.findall(
            r"python ((?:benchmarks|tools)/\w+\.py)((?: --?[\w-]+(?: [\w./-]+)?)*)", text
        ):
            source = (ROOT / script).read_text(encoding="utf-8")
            assert all(f'"{o}"' in source or f"{o} " in source for o in re.findall(r"--[\w-]+", options)), page.name


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """A folder with what pages call mug, and the names that they take for given."""
    folder = tmp_path_factory.mktemp("docs")
    mug = trimesh.creation.cylinder(0.034, 0.12, sections=32)
    for name in ("mug.obj", "mug.ply"):
        mug.export(folder / name)
    Image.new("RGB", (640, 480)).save(folder / "frame.jpg")
    bend = torch.zeros(1, 15, 3)
    bend[:, :12, 2] = 0.5
    view = np.eye(4)
    view[:3, 3] = (0.02, 0.03, 0.6)
    camera = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
    hand = HandPose("right", torch.zeros(1, 3), bend, torch.zeros(1, 10), torch.tensor([[-0.02, 0.07, 0.0]]))
    points = np.concatenate([load_open_hand().joints(hand)[0].numpy(), box_corners(mug.vertices)]) + view[:3, 3]
    pixels = points @ camera.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    arrays = {name: values[0] for name, values in hand.as_arrays().items() if name != "betas"}
    seen = arrays | {"transl": arrays["transl"] + view[:3, 3]}  # where there is an object_pose: the camera's frame
    names: dict[str, Any] = {
        "orient": arrays["global_orient"], "pose": arrays["hand_pose"], "transl": arrays["transl"], "hand": seen,
        "object_to_camera": view, "K": camera, "pixels": pixels[:21], "keypoints": pixels[None], "c": np.ones((1, 29)),
        "result": refine_grasp(arrays, folder / "mug.obj"), "true_hands": hand,
    }  # fmt: skip
    return folder, names


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_runs(block, scene, monkeypatch):
    folder, names = scene
    tree = ast.parse(block.text, str(block))
    if any(block.page.name == page and text in block.text for page, text in NOT_RUN):
        compile(tree, str(block), "exec")
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(compile(ast.Module([node], []), str(block), "exec"), {})
        return
    text = block.text
    if "refine_grasp" in unbound(tree):  # a page that goes on from its first block
        text = "from refine import refine_grasp\n" + text
    assert unbound(ast.parse(text)) <= set(names), f"{block} uses names that no reader has"
    monkeypatch.chdir(folder)
    exec(compile(text, str(block), "exec"), {"__name__": "docs", **names})


def test_a_format_of_the_docs_reads(tmp_path):
    (block,) = [b for b in blocks("python") if b.page.name == "formats.md" and "FORMAT = " in b.text]
    space: dict[str, Any] = {"__name__": "docs"}
    exec(compile(block.text, str(block), "exec"), space)
    np.save(tmp_path / "a.npy", np.full((2, 21, 3), 40.0))
    read = space["FORMAT"].read(tmp_path / "a.npy", object_id="mug", metres=0.001)
    np.testing.assert_allclose(read.column("keypoints_3d"), 0.04)
    assert read.object_id.tolist() == ["mug", "mug"]


def test_json_and_toml_are_well_formed():
    import json

    for block in blocks("json", "toml"):
        assert (json if block.language == "json" else tomllib).loads(block.text), str(block)


def anchors(page: Path) -> set[str]:
    """Headings as links name them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    plain = (re.sub(r"[^\w\s-]", "", line.lower()).strip() for line in re.findall(r"^#+ (.+)$", text, re.MULTILINE))
    return {re.sub(r"\s+", "-", line) for line in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        found = page.parent / name if name else page
        assert found.exists(), f"{page.name} links to {target}"
        if page.parent == DOCS:
            assert found.resolve().is_relative_to(DOCS), f"{page.name} links out of the site: {target}"
        if anchor:
            assert anchor in anchors(found), f"{page.name} links to {target}; there are {sorted(anchors(found))}"


def site() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def test_every_page_is_in_the_site():
    def leaves(nav: Any) -> list[str]:
        if isinstance(nav, str):
            return [nav]
        return [leaf for entry in (nav.values() if isinstance(nav, dict) else nav) for leaf in leaves(entry)]

    assert sorted(leaves(site()["nav"])) == sorted(path.name for path in DOCS.glob("*.md"))
    assert site()["theme"]["font"] is False


def test_names_of_the_reference_exist():
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE)
    for name in listed:
        module, _, attribute = name.rpartition(".")
        assert getattr(importlib.import_module(module), attribute).__doc__, name
    import hand_models
    import refine

    missing = {*refine.__all__, "HandModel", "fit_joints"} - {name.rpartition(".")[2] for name in listed}
    assert missing == set(), f"docs/api.md leaves out {missing} of {refine.__name__} or {hand_models.__name__}"


def test_the_comparison_has_every_published_figure():
    page = (DOCS / "comparison.md").read_text(encoding="utf-8")
    for figure in PUBLISHED:
        (row,) = [line for line in page.splitlines() if f"| {figure.before} → {figure.after} |" in line]
        assert f"| {figure.data} |" in row
        assert f"`{figure.noise}`" in row or not figure.noise
        assert figure.paper in page


def test_the_protocols_are_those_of_the_code():
    page = (DOCS / "protocols.md").read_text(encoding="utf-8")
    rows = [re.split(r" *\| *", line)[1:] for line in page.splitlines() if line.startswith("| `")]
    assert [row[0].strip("`") for row in rows] == list(PROTOCOLS)
    for row in rows:
        noise = PROTOCOLS[row[0].strip("`")]
        if row[1] != "the same":
            along = [] if noise.along is None else [1000 * noise.along]
            assert [float(n) for n in re.findall(r"[\d.]+", row[1])] == pytest.approx(
                [1000 * noise.translation, *along]
            )
            assert (float(row[2]), float(row[3])) == pytest.approx((noise.rotation, noise.pose))


def test_the_origin_of_every_binary_is_said():
    page = (DOCS / "licences.md").read_text(encoding="utf-8")
    shipped = [p for folder in (*OWN, "benchmarks", "docs") for p in (ROOT / folder).rglob("*")]
    binary = {p.relative_to(ROOT) for p in shipped if p.suffix in (".npz", ".safetensors", ".png", ".gif", ".mp4")}
    assert binary
    assert {str(path) for path in binary if f"{path.name}`" not in page} == set()


def test_the_picture_of_the_readme_was_made_from_the_weights_that_ship():
    """Else: make demo, look at it, and copy demo_out/before_after.png to docs/."""
    made_from = Image.open(DOCS / "before_after.png").info["weights"]
    assert made_from == hashlib.sha256(DEFAULT.read_bytes()).hexdigest()


def test_citation_and_issue_forms_are_well_formed():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == project()["version"]
    assert citation["license"] == project()["license"]
    assert set(citation) >= {"cff-version", "message", "title", "authors"}
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= set(form)
        ids = [field["id"] for field in form["body"]]
        assert len(ids) == len(set(ids)) > 0


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocstrings_handlers.python")
    pytest.importorskip("material")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'id="refine.api.refine_grasp"' in (tmp_path / "api.html").read_text(encoding="utf-8")
    for page in tmp_path.glob("*.html"):
        fetched = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"(https?://[^\"]+)", page.read_text("utf-8"))
        assert fetched == [], page.name
