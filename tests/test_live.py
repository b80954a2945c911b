"""The live viewer: what is in its scene, what its controls do, and that it is served to this machine alone."""

from __future__ import annotations

import io
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from test_photo import view as photographed  # noqa: F401 - a fixture
from test_render import grasp_view

from refine.commands.cli import main
from refine.commands.live import start_live
from refine.commands.view import ViewOptions, reports_of
from refine.view import live
from refine.view.appearance import contact_colours, depth_colours, linear
from refine.view.live import PAINTS, live_viewer
from refine.view.pictures import GraspView


def full_view(shift: float = 0.0) -> GraspView:
    """A grasp of which all that the viewer shows is known."""
    view = grasp_view()
    depth = np.linspace(-0.01, 0.02, len(view.after))
    far = np.linspace(0.0, 0.02, len(view.object_points))
    pose = np.eye(4)
    pose[0, 3] = shift
    return replace(
        view, truth=view.after + 0.01, object_pose=pose, title=f"at {shift}", status="refined",
        skin_distance={name: depth for name in ("before", "after", "truth")},
        object_distance={name: far for name in ("before", "after", "truth")},
    )  # fmt: skip


@pytest.fixture
def server() -> Iterator[Any]:
    pytest.importorskip("viser")
    running = live_viewer([full_view(0.0), full_view(0.1), full_view(0.2)], port=0, fps=20)
    yield running
    running.stop()


def controls(server: Any) -> dict[str, Any]:
    handles = server.gui._gui_input_handle_from_uuid.values()
    return {handle.label: handle for handle in handles if hasattr(handle, "label")}


def mesh_of(server: Any, name: str) -> trimesh.Trimesh:
    data = server.scene.get_handle_by_name(name).glb_data
    (mesh,) = trimesh.load_scene(io.BytesIO(data), file_type="glb", process=False).geometry.values()
    return mesh


def colours(server: Any, name: str) -> np.ndarray:
    return np.asarray(mesh_of(server, name).visual.vertex_attributes["color"])[:, :4].astype(float) / 255


def wait_until(server: Any, done: Any) -> None:
    for _ in range(200):
        if done():
            return
        live.time.sleep(0.02)
    raise AssertionError("nothing happened")


def test_the_scene_is_served_here_alone(server: Any) -> None:
    assert server.get_host() == "127.0.0.1"
    with urllib.request.urlopen(f"http://127.0.0.1:{server.get_port()}/", timeout=10) as answer:
        assert b"<html" in answer.read()
    assert [server.scene.get_handle_by_name(f"/hands/{name}").visible for name in ("before", "after", "truth")] == [
        False, True, False,
    ]  # fmt: skip
    hand = mesh_of(server, "/hands/after")
    np.testing.assert_allclose(hand.bounds, [full_view().after.min(0), full_view().after.max(0)], atol=1e-3)


def test_controls_change_the_scene(server: Any) -> None:
    control, hand, thing = controls(server), full_view().after, "/object"
    assert set(control) == {
        "frame",
        "play",
        "before",
        "after",
        "truth",
        "object",
        "object's opacity",
        "penetration in red",
    }
    control["truth"].value = True
    wait_until(server, lambda: server.scene.get_handle_by_name("/hands/truth").visible)
    np.testing.assert_allclose(mesh_of(server, "/hands/truth").bounds[0], hand.min(0) + 0.01, atol=1e-3)
    # Skin inside the object is red, and plain when that is switched off.
    red = colours(server, "/hands/after")[: len(hand), :3]
    np.testing.assert_allclose(red, linear(depth_colours(full_view().skin_distance["after"])), atol=0.01)
    control["penetration in red"].value = False
    wait_until(server, lambda: np.ptp(colours(server, "/hands/after"), axis=0).max() < 0.01)
    painted = colours(server, thing)[:, :3]
    assert np.abs(painted - linear(contact_colours(np.ones(1)))).sum(1).min() < 0.1  # touched somewhere
    for paint in PAINTS:
        before = painted
        control["object"].value = paint
        wait_until(server, lambda: control["object"].value == paint)  # noqa: B023
        live.time.sleep(0.3)
        painted = colours(server, thing)[:, :3]
        assert paint == PAINTS[1] or np.abs(painted - before).max() > 0.05
    control["object's opacity"].value = 0.4
    wait_until(server, lambda: abs(colours(server, thing)[0, 3] - 0.4) < 0.01)


def test_time_moves_the_object(server: Any) -> None:
    control = controls(server)
    control["frame"].value = 2
    wait_until(server, lambda: abs(server.scene.get_handle_by_name("/object").position[0] - 0.2) < 1e-6)
    control["play"].value = True
    wait_until(server, lambda: control["frame"].value == 1)
    control["play"].value = False
    live.time.sleep(0.2)
    still = control["frame"].value
    live.time.sleep(0.3)
    assert control["frame"].value == still


def test_a_photo_is_where_its_camera_was(photographed: GraspView) -> None:  # noqa: F811
    pytest.importorskip("viser")
    server = live_viewer([photographed], port=0)
    try:
        frustum = server.scene.get_handle_by_name("/photo")
        np.testing.assert_allclose(frustum.position, photographed.photo.pose[:3, 3], atol=1e-6)
        turn = trimesh.transformations.quaternion_matrix(frustum.wxyz)
        np.testing.assert_allclose(turn[:3, :3], photographed.photo.pose[:3, :3], atol=1e-6)
        assert set(controls(server)) == {"before", "after", "object", "object's opacity", "penetration in red"}
    finally:
        server.stop()


def test_without_viser_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(ImportError, match=r"viser package.*pip install 'regrasp\[viz\]'"):
        live_viewer([grasp_view()])


def test_what_cannot_be_shown_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(tmp_path), "--live"]) == 2
    assert "nothing to show live; give what result.save() wrote" in capsys.readouterr().err
    for name in ("a", "b"):
        (tmp_path / f"{name}.refined.npz").write_bytes(b"")
        (tmp_path / f"{name}.report").mkdir()
    reports = reports_of(ViewOptions(tmp_path))
    with pytest.raises(ValueError, match="holds a, b; name one"):
        start_live(tmp_path, reports, None, 0)
    with pytest.raises(ValueError, match="every grasp in it failed"):
        start_live(tmp_path / "b.refined.npz", reports_of(ViewOptions(tmp_path / "b.refined.npz")), None, 0)
    with pytest.raises(ValueError, match="empty"):
        live_viewer([])
