"""The page of a grasp: self-contained, well-formed, and holding the meshes it was given."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from contact.field import ContactField
from contact.objects import ObjectMesh
from refine.files.status import Status
from refine.result import RefineResult
from refine.view.packing import pack, unpack
from refine.view.page import LARGEST, grasp_page, write_page
from refine.view.pictures import GraspView

VOID = {"meta", "link", "input", "br", "img"}


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


def test_a_packed_array_comes_back(tmp_path) -> None:
    steps = np.random.default_rng(0).integers(0, 1 << 16, (5, 7, 3)).astype("<u2")
    assert (unpack(pack(steps, over_time=True)).reshape(steps.shape) == steps).all()
    assert (unpack(pack(steps)).reshape(steps.shape) == steps).all()


def points_of(data: dict, packed: dict, box: str) -> np.ndarray:
    steps = unpack(packed).reshape(-1, 3) / data["handSteps"]
    low, high = np.array(data[box])
    return low + steps * (high - low)


def test_page_holds_the_meshes_with_z_turned_upwards(page: str, view: GraspView) -> None:
    data = data_of(page)
    arrays = data["arrays"]
    before, after = (points_of(data, arrays["hands"][name], "handBox") for name in ("before", "after"))
    assert before.shape == after.shape == view.after.shape
    twins, edges = unpack(arrays["hand"]["twins"]), unpack(arrays["hand"]["edges"])
    assert unpack(arrays["hand"]["faces"]).max() == len(after) + len(edges) // 2 + len(twins) - 1
    np.testing.assert_allclose(after[:, 1], view.after[:, 2], atol=1e-5)
    np.testing.assert_allclose(
        np.linalg.norm(after - after[0], axis=1), np.linalg.norm(view.after - view.after[0], axis=1), atol=1e-5
    )
    thing = points_of(data, arrays["objectPoints"], "objectBox")
    pose = unpack(arrays["objectPose"]).reshape(4, 4).T
    np.testing.assert_allclose(pose[1], (0, 0, 1, 0), atol=1e-6)
    normals, index = unpack(arrays["objectNormals"]), unpack(arrays["spread"]["index"])
    assert len(thing) == len(normals) / 3 == len(index) / data["neighbours"]
    assert np.ptp(thing, axis=0)[2] == pytest.approx(0.1, abs=1e-4)


def test_contact_as_it_is_stands_beside_contact_as_predicted(view: GraspView) -> None:
    apart = {name: np.full(len(view.object_points), metres) for name, metres in (("before", 0.005), ("after", -0.001))}
    deep = {"before": np.full(len(view.after), 0.02), "after": np.linspace(-0.004, 0.01, len(view.after))}
    data = data_of(grasp_page(replace(view, object_distance=apart, skin_distance=deep)))
    painted, hand = data["arrays"]["object"], data["arrays"]["handFields"]
    assert np.unique(unpack(painted["distance"]["before"])) == [128]  # half of 10 mm
    assert np.unique(unpack(painted["distance"]["after"])) == [255]
    np.testing.assert_array_equal(unpack(painted["predicted"]), np.round(view.object_contact * 255))
    assert (data["depthFull"], data["doubtFull"]) == (5, 5)  # the next round number above 4 mm
    surface = np.interp(0.0, deep["after"], unpack(hand["depth"]["after"])[:, None].ravel())
    assert surface == pytest.approx(127.5, abs=1)
    assert unpack(hand["depth"]["after"])[0] / 127.5 - 1 == pytest.approx(0.8, abs=0.01)


def test_frames_of_a_sequence_share_a_page(view: GraspView) -> None:
    frames = []
    for step in range(4):
        pose = np.eye(4)
        pose[:3, 3] = (0, 0, 0.01 * step)
        frames.append(replace(view, object_pose=pose, before=view.before + 0.01 * step, after=view.after))
    data = data_of(grasp_page(frames, fps=10))
    assert (data["frames"], data["fps"]) == (4, 10)
    before = points_of(data, data["arrays"]["hands"]["before"], "handBox").reshape(4, -1, 3)
    np.testing.assert_allclose(before[3] - before[0], np.full_like(before[0], 0.03), atol=1.1e-4)
    poses = unpack(data["arrays"]["objectPose"]).reshape(4, 4, 4)
    np.testing.assert_allclose(poses[:, 3, 1], (0, 0.01, 0.02, 0.03), atol=1e-6)
    still = data_of(grasp_page(view))
    far = [view, *[replace(view, before=view.before + 0.3, after=view.after + 0.3)]]
    assert data_of(grasp_page(far))["away"] > 1.5 * still["away"]  # all of it is in the first view
    with pytest.raises(ValueError, match="empty list"):
        grasp_page([])
    with pytest.raises(ValueError, match="frame 1 has another hand"):
        grasp_page([view, replace(view, truth=view.after)])


def test_page_of_a_fine_mesh_stays_small(view: GraspView) -> None:
    ball = trimesh.creation.icosphere(7, 0.05)
    assert len(ball.faces) > 300_000
    fine = replace(view, object_vertices=np.asarray(ball.vertices), object_faces=np.asarray(ball.faces))
    assert len(grasp_page(fine)) <= LARGEST


def test_first_view_is_the_pictures_view(page: str, view: GraspView) -> None:
    data, camera = data_of(page), view.camera()
    height = data["target"][1] + data["away"] * np.sin(data["pitch"])
    assert height == pytest.approx(camera.pose[2, 3], abs=1e-4)


def test_page_without_embreex(monkeypatch: pytest.MonkeyPatch, view: GraspView) -> None:
    monkeypatch.setitem(sys.modules, "embreex", None)
    data = data_of(grasp_page(view))
    assert data["arrays"]["open"] is None
    assert data["away"] > 0.1


def test_page_without_contact_or_metrics() -> None:
    box = trimesh.creation.box((0.05, 0.06, 0.1))
    bare = GraspView("", box.vertices, box.faces, box.faces, box.vertices + 0.05, box.vertices + 0.06, up=(0, 1, 0))
    data = data_of(grasp_page(bare))
    assert data["arrays"]["object"] is data["arrays"]["joints"] is None
    assert set(data["arrays"]["handFields"].values()) == {None}


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
    mesh = ObjectMesh.from_any((view.object_vertices, view.object_faces), name="box", n_points=512)
    n, p = len(mesh.points), len(ids)
    field = ContactField(
        contact=torch.rand(2, n), contact_var=torch.full((2, n), 0.04), part=torch.full((2, n, 16), 1 / 16),
        canonical=torch.zeros(2, n, 3), canonical_var=torch.zeros(2, n), gap=torch.zeros(2, n),
        gap_var=torch.zeros(2, n), near=torch.zeros(2, n), hand_contact=torch.rand(2, p),
        hand_contact_var=torch.full((2, p), 0.09),
    )  # fmt: skip
    shown: dict[str, Any] = {
        "object": mesh, "contact": field,
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
        holding=np.ones(2), score_before=np.zeros(2), score_after=np.ones(2), uncertainty=np.full((2, 21), 0.003),
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
    np.testing.assert_allclose(seen.object_contact_sd, 0.2, rtol=1e-5)
    np.testing.assert_allclose(seen.hand_contact_sd, 0.3, rtol=1e-5)
    assert seen.explanation == Status.KEPT.explanation
    to_ball = np.linalg.norm(seen.object_points - (0.065, 0.01, 0.01), axis=1) - 0.03
    np.testing.assert_allclose(seen.object_distance["after"], to_ball, atol=1.5e-3)
    assert (seen.skin_distance["before"] > seen.skin_distance["after"]).mean() > 0.5
    path = result.to_html(tmp_path / "new" / "page.html")
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert write_page(seen, tmp_path / "again.html").stat().st_size > 10_000
    with pytest.raises(IndexError, match="2 grasps"):
        result.view(2)
