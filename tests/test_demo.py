"""`regrasp demo` leaves what it says, and its options change what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from hand_models import HandPose, load_open_hand
from refine.commands import demo
from refine.commands.cli import main


def test_level_and_protocol_scale_the_noise() -> None:
    clean, model = HandPose.zeros(4), load_open_hand()
    off = {
        level: demo.noisy(clean, demo.DemoOptions(protocol="toch-t1", level=level), 3, model).transl - clean.transl
        for level in (0.0, 1.0, 2.5)
    }
    assert (off[0.0] == 0).all()
    assert off[1.0].norm() > 0
    torch.testing.assert_close(off[2.5], 2.5 * off[1.0])


def test_a_motion_is_refined_and_filmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "FRAMES", 16)
    assert main(["demo", "--motion", "--film", "apple", "--out", str(tmp_path), "--width", "48"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"motion.html", "motion.gif"}
    with Image.open(tmp_path / "motion.gif") as film:
        assert film.size == (64, 24)  # before beside after
        assert film.n_frames == 8
    printed = capsys.readouterr().out
    pairs = [(float(a), float(b)) for a, b in re.findall(r"([\d.]+) → +([\d.]+)", printed)]
    assert len(pairs) == 3
    assert all(after < before for before, after in pairs), printed


def test_what_cannot_be_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["demo", "--level", "-1", "--out", str(tmp_path)]) == 2
    assert "--level: got -1.0; give a factor of 0 or more" in capsys.readouterr().err
    assert main(["demo", "--motion", "--method", "contactopt", "--out", str(tmp_path)]) == 2
    assert "motions are refined by 'regrasp' alone" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demonstration_leaves_a_sheet_a_film_and_pages(tmp_path: Path) -> None:
    assert main(["demo", "--protocol", "contactopt", "--level", "0.5", "--out", str(tmp_path), "--width", "48"]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    pages = {f"{name}.html" for name in ("mug", "bottle", "box", "apple", "screwdriver", "bowl")}
    assert names == pages | {"before_after.png", "solving.gif"}
