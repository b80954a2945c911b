"""Films: what their frames show, and that the files hold them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_render import grasp_view

from refine.view.film import playing, solving, turntable, write_film, write_gif, write_mp4
from refine.view.pictures import GraspView
from refine.view.viewable import Viewable

SIZE = (48, 36)


def test_a_turntable_comes_round_and_cuts_nothing_off() -> None:
    frames = list(turntable(grasp_view(), 4, SIZE, samples=1))
    assert {frame.shape for frame in frames} == {(36, 48, 3)}
    for one, other in zip(frames, [*frames[1:], frames[0]], strict=True):
        assert (one != other).any()
    again = list(turntable(grasp_view(), 2, SIZE, samples=1))
    assert (again[1] == frames[2]).mean() > 0.98
    for frame in frames:  # the rim is background and its soft shadow, both without colour
        rim = np.concatenate([frame[0], frame[-1], frame[:, 0], frame[:, -1]]).astype(int)
        assert (np.ptp(rim, axis=1) < 8).all()


def test_the_way_goes_from_before_to_after() -> None:
    view = grasp_view()
    frames = list(solving(view, 3, SIZE, hold=2, samples=1))
    before, after = view.pictures(SIZE, samples=1)
    assert len(frames) == 7
    assert (frames[0] == frames[1]).all()
    assert (frames[0] == before).all()
    assert (frames[-1] == after).all()
    assert (frames[3] != before).any()


def test_a_sequence_shows_before_beside_after() -> None:
    frames = list(playing([grasp_view(), grasp_view(title="next")], SIZE, samples=1))
    assert {frame.shape for frame in frames} == {(36, 96, 3)}
    assert (frames[0][:, :48] != frames[0][:, 48:]).any()
    assert next(playing([grasp_view()], SIZE, before=False, samples=1)).shape == (36, 48, 3)
    with pytest.raises(ValueError, match="none given"):
        next(playing([]))


def squares(count: int) -> list[np.ndarray]:
    """A white square that moves over black."""
    frames = np.zeros((count, 32, 48, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[8:24, 4 * number : 4 * number + 12] = 255
    return list(frames)


def test_a_gif_holds_its_frames(tmp_path: Path) -> None:
    frames = squares(6)
    with Image.open(write_gif(frames, tmp_path / "new" / "a.gif", fps=10)) as film:
        assert film.n_frames == 6
        assert film.info["duration"] == 100
        assert film.info["loop"] == 0
        for number, frame in enumerate(frames):
            film.seek(number)
            assert np.abs(np.asarray(film.convert("RGB")).astype(int) - frame).max() < 8


def test_an_mp4_holds_its_frames(tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = write_mp4([frame[:, :-1] for frame in squares(6)], tmp_path / "a.mp4", fps=10)
    reader = ffmpeg.read_frames(str(path))
    about = next(reader)
    assert about["size"] == (46, 32)
    shown = [np.frombuffer(frame, np.uint8).reshape(32, 46, 3) for frame in reader]
    assert len(shown) == 6
    centres = [np.flatnonzero(frame[16, :, 0] > 128).mean() for frame in shown]
    np.testing.assert_allclose(np.diff(centres), 4, atol=0.6)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_an_mp4_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match=r"pip install 'regrasp\[film\]'"):
        write_mp4(squares(1), tmp_path / "a.mp4")


def test_wrong_films_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither \.gif nor \.mp4"):
        write_film(squares(1), tmp_path / "a.avi")
    with pytest.raises(ValueError, match="none given"):
        write_gif([], tmp_path / "a.gif")
    with pytest.raises(ValueError, match="number 1 is uint8"):
        write_gif([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], tmp_path / "a.gif")
    with pytest.raises(ValueError, match="fps"):
        write_gif(squares(1), tmp_path / "a.gif", fps=0)


class Shown(Viewable):
    def view(self, index: int = 0, *, title: str | None = None, truth: object = None) -> GraspView:
        return grasp_view(title=title or "")


def test_what_has_a_view_has_films_and_pages(tmp_path: Path) -> None:
    thing = Shown()
    assert thing.to_html(tmp_path / "a.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert thing.to_gif(tmp_path / "a.gif", size=(32, 24)).read_bytes()[:3] == b"GIF"
    with pytest.raises(ValueError, match="solve, turntable"):
        thing.to_gif(tmp_path / "b.gif", film="loop")  # type: ignore[arg-type]
    assert not (tmp_path / "b.gif").exists()
