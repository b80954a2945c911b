"""The page of a grasp: self-contained, well-formed, and holding the meshes it was given."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from refine.files.status import Status
from refine.result import RefineResult
from refine.view.page import grasp_page, write_page
from refine.view.pictures import GraspView

VOID = {"meta", "link", "input", "br"}


class Checker(HTMLParser):
    """Collects data and attributes and checks that every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        if self.open and self.open[-1] in ("td", "span", "h1"):
            self.cells.append(data)


@pytest.fixture(scope="module")
def view() -> GraspView:
    hand = trimesh.creation.icosphere(2, 0.03)
    box = trimesh.creation.box((0.05, 0.06, 0.1))
    after = hand.vertices + np.array([0.055, 0, 0])
    points, face = trimesh.sample.sample_surface(box, 400, seed=0)
    return GraspView(
        "mug <script>alert(1)</script>", box.vertices, box.faces, hand.faces, after + np.array([0.02, 0, 0]), after,
        np.asarray(points), box.face_normals[face], np.linspace(0, 1, 400),
        np.linspace(0, 1, len(after)), np.full(len(after), 0.004),
        open_faces=len(hand.faces) - 20, metrics={"penetration depth (mm)": (12.34, float("nan"))}, status="refined",
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(view: GraspView) -> str:
    return grasp_page(view)


def test_page_is_well_formed_and_fetches_nothing(page: str) -> None:
    checked = Checker(page)
    assert checked.open == []
    assert re.search(r"https?:|url\(|@import|fetch\(|XMLHttpRequest|import\(", page) is None
    links = [value for name, value in checked.attributes if name in ("src", "href", "srcset", "action")]
    assert all(value.startswith("data:") for value in links)
    assert "@@" not in page


def test_title_is_escaped_and_metrics_are_shown(page: str) -> None:
    checked = Checker(page)
    assert "mug <script>alert(1)</script>" in checked.cells
    assert "<script>alert" not in page
    assert {"refined", "penetration depth (mm)", "12.3", "–"} <= set(checked.cells)


def data_of(page: str) -> dict:
    return json.loads(Checker(page).scripts[0])


def points_of(data: dict, key: str) -> np.ndarray:
    steps = np.frombuffer(base64.b64decode(data[key]), "<u2").reshape(-1, 3) / 65535
    return np.array(data["low"]) + steps * (np.array(data["high"]) - data["low"])


def test_page_holds_the_meshes_with_z_turned_upwards(page: str, view: GraspView) -> None:
    data = data_of(page)
    faces = np.frombuffer(base64.b64decode(data["handFaces"]), "<u4")
    before, after = points_of(data, "before"), points_of(data, "after")
    assert before.shape == after.shape
    assert faces.max() == len(after) - 1
    turned = after[: len(view.after)]
    np.testing.assert_allclose(turned[:, 1], view.after[:, 2], atol=1e-5)
    np.testing.assert_allclose(
        np.linalg.norm(turned - turned[0], axis=1), np.linalg.norm(view.after - view.after[0], axis=1), atol=1e-5
    )
    thing = points_of(data, "object")
    normals = np.frombuffer(base64.b64decode(data["objectNormals"]), np.int8)
    heat = np.frombuffer(base64.b64decode(data["objectHeat"]), np.uint8)
    assert len(thing) == len(heat) == len(normals) / 3
    assert np.ptp(thing, axis=0)[1] == pytest.approx(0.1, abs=1e-4)


def test_first_view_is_the_pictures_view(page: str, view: GraspView) -> None:
    data, camera = data_of(page), view.camera()
    height = data["target"][1] + data["away"] * np.sin(data["pitch"])
    assert height == pytest.approx(camera.pose[2, 3], abs=1e-4)


def test_page_without_embreex(monkeypatch: pytest.MonkeyPatch, view: GraspView) -> None:
    monkeypatch.setitem(sys.modules, "embreex", None)
    data = data_of(grasp_page(view))
    assert data["open"] is None
    assert data["away"] > 0.1


def test_page_without_contact_or_metrics() -> None:
    box = trimesh.creation.box((0.05, 0.06, 0.1))
    bare = GraspView("", box.vertices, box.faces, box.faces, box.vertices + 0.05, box.vertices + 0.06, up=(0, 1, 0))
    data = data_of(grasp_page(bare))
    assert data["objectHeat"] is data["handHeat"] is data["handDoubt"] is None


def test_script_parses(page: str, tmp_path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    path = tmp_path / "viewer.js"
    path.write_text(Checker(page).scripts[1], encoding="utf-8")
    subprocess.run([node, "--check", str(path)], check=True, capture_output=True)


def result_of(view: GraspView) -> RefineResult:
    """A result of two hands, as far as the page looks at it."""
    tensor = torch.as_tensor
    after = tensor(np.stack([view.after, view.after + 0.01]), dtype=torch.float32)
    ids = torch.arange(0, after.shape[1], 2)
    shown: dict[str, Any] = {
        "object": SimpleNamespace(
            name="box", vertices=tensor(view.object_vertices), faces=tensor(view.object_faces),
            points=tensor(view.object_points), normals=tensor(view.object_normals),
        ),
        "contact": SimpleNamespace(
            contact=torch.rand(2, len(view.object_points)), hand_contact=torch.rand(2, len(ids))
        ),
        "hand_model": SimpleNamespace(
            faces=tensor(view.hand_faces[:-20]), contact_points=ids, template=after[0],
            part_of_vertex=torch.zeros(after.shape[1], dtype=torch.int64),
        ),
    }  # fmt: skip
    none: Any = None
    return RefineResult(
        pose=none, initial_pose=none, vertices_before=after + 0.02, vertices_after=after,
        joints_before=after[:, :21], joints_after=after[:, :21], status=[Status.REFINED, Status.KEPT], reason=["", ""],
        metrics={"penetration_mm_before": np.array([9.0, 8.0]), "penetration_mm_after": np.array([1.0, 2.0])},
        score_before=np.zeros(2), score_after=np.ones(2), uncertainty=np.full((2, 21), 0.003),
        steps=np.zeros(2, np.int64), object_pose=None, faces=view.hand_faces, **shown,
    )  # fmt: skip


def test_view_of_a_result(view: GraspView, tmp_path) -> None:
    result = result_of(view)
    seen = result.view(1)
    assert seen.title == "box · grasp 1"
    assert seen.status == "kept"
    assert seen.metrics["penetration depth (mm)"] == (8.0, 2.0)
    assert seen.hand_contact.shape == (len(view.after),)
    np.testing.assert_allclose(seen.uncertainty, 0.003, rtol=1e-5)
    path = result.to_html(tmp_path / "new" / "page.html")
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert write_page(seen, tmp_path / "again.html").stat().st_size > 10_000
    with pytest.raises(IndexError, match="2 grasps"):
        result.view(2)
