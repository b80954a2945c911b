"""A real browser without a window, for tests of pages; those are skipped where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
# Sandboxes are not to be had in most containers; the last two draw WebGL without a graphics card.
_FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@contextmanager
def open_page(url: str, size: tuple[int, int] = (1000, 700)) -> Iterator[tuple[Any, list[str]]]:
    """The page at ``url``, ready, and the list of what it complains of, which goes on growing."""
    api = pytest.importorskip("playwright.sync_api")
    program = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_FLAGS)
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        page.wait_for_function("document.body.dataset.ready === 'yes'")
        yield page, complaints
        browser.close()


def shot(page: Any, selector: str = "#stage") -> bytes:
    """What is seen there when all is drawn."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page.locator(selector).screenshot()
