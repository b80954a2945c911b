"""The page in a real browser: no complaint, and every control changes what is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from browser import open_page, shot

from refine.view.page import write_page
from refine.view.pictures import GraspView


@pytest.fixture(scope="module")
def view() -> GraspView:
    """A ball as a hand, 4 mm deep in a box; all that a page can show is known."""
    ball, box = trimesh.creation.icosphere(2, 0.03), trimesh.creation.box((0.05, 0.06, 0.1))
    hands = {"before": (0.08, 0, 0.01), "after": (0.051, 0, 0), "truth": (0.053, 0.01, 0)}
    hands = {name: ball.vertices + np.array(place) for name, place in hands.items()}
    points, face = trimesh.sample.sample_surface(box, 400, seed=0)
    skin = {name: trimesh.proximity.signed_distance(box, hand) * -1.0 for name, hand in hands.items()}
    to_skin = {name: np.linalg.norm(points - hand.mean(0), axis=1) - 0.03 for name, hand in hands.items()}
    return GraspView(
        "box", box.vertices, box.faces, ball.faces, hands["before"], hands["after"], np.asarray(points),
        box.face_normals[face], np.exp(-np.maximum(to_skin["after"], 0) / 0.01), np.linspace(0, 1, len(ball.vertices)),
        np.full(len(ball.vertices), 0.004), truth=hands["truth"], skin_distance=skin, object_distance=to_skin,
        object_contact_sd=np.linspace(0, 0.5, 400), hand_contact_sd=np.linspace(0.5, 0, len(ball.vertices)),
        joints=hands["after"][:21], joint_sd=np.full(21, 0.004), status="refined", explanation="It is better.",
    )  # fmt: skip


CONTROLS = [
    "document.getElementById('sigma').click()",
    "document.getElementById('show-before').click()",
    "document.getElementById('show-truth').click()",
    *(f"pick('paintObject', '{name}')" for name in ("plain", "predicted", "sd", "both")),
    *(f"pick('paintHand', '{name}')" for name in ("distance", "predicted", "sd", "doubt")),
    "pick('clear', 0.6)",
    "pick('cut', 0.5)",
    "pick('axis', '0')",
    *(f"document.getElementById('{name}').click()" for name in ("deep", "ghostBefore", "ghostTruth")),
]
PICK = "window.pick = (id, value) => { const e = document.getElementById(id); e.value = value; \
['input', 'change'].forEach(kind => e.dispatchEvent(new Event(kind))); }; null"


def test_every_control_changes_the_picture(view: GraspView, tmp_path: Path) -> None:
    path = write_page(view, tmp_path / "page.html")
    with open_page(path.as_uri()) as (page, complaints):
        page.evaluate(PICK)
        seen = [shot(page)]
        page.mouse.move(300, 350)
        page.mouse.down()
        page.mouse.move(140, 350, steps=4)  # to where ball and box are seen to meet
        page.mouse.up()
        seen.append(shot(page))
        assert seen[0] != seen[1]
        for action in CONTROLS:
            page.evaluate(action)
            page.wait_for_timeout(600 if "show-" in action else 0)  # the hand glides
            seen.append(shot(page))
            assert seen[-1] != seen[-2], action
        assert complaints == []


def test_hovering_a_joint_tells_its_deviation(view: GraspView, tmp_path: Path) -> None:
    path = write_page(view, tmp_path / "page.html")
    with open_page(path.as_uri()) as (page, _):
        page.locator("#sigma").click()
        shot(page)
        place = page.locator("#joints circle").first.bounding_box()
        page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
        assert "± 4.0 mm (1σ)" in page.locator("#tip").inner_text()


@pytest.mark.parametrize("size", [(390, 800), (800, 380)])
def test_both_orientations_of_a_phone(view: GraspView, tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_page(view, tmp_path / "page.html")
    with open_page(path.as_uri(), size) as (page, _):
        stage, controls = (page.locator(name).bounding_box() for name in ("#stage", "aside"))
        assert stage["width"] >= 0.6 * size[0]
        assert stage["height"] >= 0.5 * size[1]
        assert controls["height"] >= 150
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_a_sequence_plays(view: GraspView, tmp_path: Path) -> None:
    frames = [replace(view, after=view.after + np.array([0.002 * step, 0, 0])) for step in range(20)]
    frames[19] = replace(frames[19], status="apart", explanation="It holds nothing.")
    path = write_page(frames, tmp_path / "page.html", fps=30)
    with open_page(path.as_uri()) as (page, complaints):
        first = shot(page)
        page.locator("#play").click()
        page.wait_for_function("document.getElementById('clock').textContent !== '1 / 20'")
        page.locator("#play").click()
        assert shot(page) != first
        assert page.locator(".said:visible").inner_text().startswith("refined")
        page.evaluate(PICK)
        page.evaluate("pick('frame', 19)")
        assert page.locator(".said:visible").inner_text().splitlines()[0] == "apart"
        assert complaints == []
