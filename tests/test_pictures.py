"""The pictures of README and docs are of the weights that ship."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OF_NO_WEIGHTS = {"conventions.png"}


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools")
    return import_module("build_look_pictures")


def test_no_picture_is_older_than_the_weights(tool: ModuleType) -> None:
    made = json.loads((DOCS / "pictures.json").read_text(encoding="utf-8"))
    now = tool.weights_in_use()
    old = [kind for kind, names in tool.KINDS.items() if any(made.get(name) != now for name in names)]
    assert old == [], f"run: python tools/build_look_pictures.py {' '.join(old)}"


def test_every_picture_is_made_by_a_command(tool: ModuleType) -> None:
    shown = {path.name for path in DOCS.iterdir() if path.suffix in (".png", ".gif")}
    assert shown - OF_NO_WEIGHTS == {name for names in tool.KINDS.values() for name in names}
    assert max((DOCS / name).stat().st_size for name in shown) < 2_000_000


def test_weights_are_known_by_what_is_fitted_to_them_too(tool: ModuleType, monkeypatch, tmp_path: Path) -> None:
    folder = tmp_path / "contact" / "weights"
    folder.mkdir(parents=True)
    (folder / "contact.safetensors").write_bytes(b"some")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    seen = []
    for card in ({"score": {"bias": 1}}, {"score": {"bias": 1}, "command": "other"}, {"score": {"bias": 2}}):
        (folder / "contact.json").write_text(json.dumps(card))
        seen.append(tool.weights_in_use())
    (folder / "contact.safetensors").write_bytes(b"others")
    seen.append(tool.weights_in_use())
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3
