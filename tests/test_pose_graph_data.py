"""The corpus and FHAB-like annotations as 29 points, the command, and pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import trimesh

from contact.corpus import Corpus
from contact.corpus.held_out import read_held_out, write_held_out
from contact.objects.box import box_corners
from hand_models import HandPose, load_hand_model
from hand_models.skeleton import convert
from pose_graph.graph import NODES
from pose_graph.weights import load_network
from refine.commands.cli import main
from refine.evidence.graph_data import corpus_points, read_split, split_of
from refine.files.formats import fhab

FRAMES = 6


@pytest.fixture(scope="module")
def model():
    return load_hand_model("open")


# Corpus ---------------------------------------------------------------------------------------------


def write_corpus(folder, objects=22, grasps=3):
    """A corpus in miniature: the columns that are read, of objects of two families."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(objects):
        mesh = trimesh.creation.box(rng.uniform(0.03, 0.1, 3))
        points, face = trimesh.sample.sample_surface(mesh, 600, seed=k)
        arrays = {
            "family": np.array("box" if k % 2 else "can"), "vertices": mesh.vertices.astype(np.float32),
            "faces": mesh.faces.astype(np.int32), "points": points.astype(np.float32),
            "normals": mesh.face_normals[face].astype(np.float32),
        }  # fmt: skip
        if k != 5:  # an object that nobody could grasp
            arrays |= {
                "global_orient": rng.normal(0, 1, (grasps, 3)), "hand_pose": rng.normal(0, 0.2, (grasps, 15, 3)),
                "betas": np.zeros((grasps, 10)), "transl": rng.normal(0, 0.05, (grasps, 3)),
            }  # fmt: skip
        np.savez(folder / f"object_{k:05d}.npz", **arrays)
    return folder


def test_corpus_points_are_the_grasps_and_held_out_objects_are_the_corpus_own(tmp_path, model):
    folder = write_corpus(tmp_path / "corpus")
    training, held_out = corpus_points(folder, model, variants=2)
    families = tuple("box" if k % 2 else "can" for k in range(22) if k != 5)
    which = torch.repeat_interleave(torch.arange(21), 3)
    fields = {name: None for name in Corpus.__dataclass_fields__} | {"families": families, "which": which}
    expected_train, expected_test = Corpus(**fields).split()
    assert len(training) == 2 * len(expected_train)
    assert len(held_out) == len(expected_test) > 0
    assert set(held_out.which.tolist()) == set(which[expected_test].tolist())
    first = np.load(folder / "object_00000.npz")
    pose = HandPose.from_arrays({n: first[n] for n in ("global_orient", "hand_pose", "betas", "transl")})
    torch.testing.assert_close(training.points[:3, :21], model.joints(pose))
    np.testing.assert_allclose(training.points[0, 21:], box_corners(first["vertices"]), atol=1e-6)
    moved = (training.points[3:6, :21] - training.points[:3, :21]).norm(dim=-1).mean()
    assert 0 < moved < 0.05
    torch.testing.assert_close(training.box[0], training.points[0, 28] - training.points[0, 21])


def test_held_out_grasps_make_the_journey(tmp_path):
    folder = write_corpus(tmp_path / "corpus")
    held = read_held_out(write_held_out(folder, tmp_path / "held.npz", grasps=2))
    assert held.which.tolist() == [0, 0, 1, 1]
    assert sorted(held.families) == ["box", "can"]
    source = {"can": 18, "box": 21}  # the tenth can; the tenth box that could be grasped
    for k, family in enumerate(held.families):
        with np.load(folder / f"object_{source[family]:05d}.npz") as data:
            np.testing.assert_array_equal(held.meshes[k][0], data["vertices"])
            np.testing.assert_array_equal(held.meshes[k][1], data["faces"])
            np.testing.assert_allclose(held.pose.transl[2 * k : 2 * k + 2], data["transl"][:2], atol=1e-6)


def test_no_corpus(tmp_path, model):
    with pytest.raises(FileNotFoundError, match="regrasp corpus"):
        corpus_points(tmp_path, model)


# FHAB in miniature ----------------------------------------------------------------------------------


@pytest.fixture
def fhab_tree(tmp_path, model):
    """Three subjects' sequences of the milk carton, written as the data set is: millimetres, world frame."""
    rng = np.random.default_rng(1)
    carton = trimesh.creation.box((0.07, 0.08, 0.2))
    carton.apply_translation((0.01, 0.02, 0.1))
    (tmp_path / "models").mkdir()
    carton.export(tmp_path / "models" / "milk.ply")
    to_world = np.linalg.inv(fhab.WORLD_TO_CAMERA)
    truth = {}
    for subject, repetition in (("Subject_1", "1"), ("Subject_1", "2"), ("Subject_2", "1")):
        names = (subject, "pour_milk", repetition)
        folder = tmp_path / "Hand_pose_annotation_v1" / "/".join(names)
        other = tmp_path / "Object_6D_pose_annotation_v1" / "/".join(names)
        folder.mkdir(parents=True)
        other.mkdir(parents=True)
        hands, objects = [], []
        for frame in range(FRAMES):
            pose = trimesh.transformations.euler_matrix(*rng.uniform(-1, 1, 3))
            pose[:3, 3] = rng.uniform([-0.1, -0.1, 0.4], [0.1, 0.1, 0.6])
            joints = model.joints(HandPose.zeros(1))[0].numpy().astype(np.float64) + pose[:3, 3]
            world = joints @ to_world[:3, :3].T + to_world[:3, 3]
            in_world = to_world @ pose
            in_world[:3, 3] *= 1000
            hands.append([frame, *(1000 * convert(world, source="openpose", target="fhab")).ravel()])
            objects.append([frame, *in_world.T.ravel()])
            truth[f"{'/'.join(names)}/{frame}"] = (joints, box_corners(carton.vertices, pose[None])[0])
        for path, rows in ((folder / "skeleton.txt", hands), (other / "object_pose.txt", objects)):
            path.write_text("\n".join(" ".join([str(int(r[0])), *(f"{v:.6f}" for v in r[1:])]) for r in rows) + "\n")
    return tmp_path, truth


def test_splits_of_an_fhab_tree_and_training_on_them(fhab_tree, capsys):
    root, truth = fhab_tree
    command = ["pose-graph", "splits", str(root / "Hand_pose_annotation_v1"), "--from", "fhab"]
    command += ["--objects", str(root / "models"), "--out", str(root / "splits"), "--val-every", "2"]
    assert main(command) == 0
    assert f"{FRAMES} train, {FRAMES} val, {FRAMES} test" in capsys.readouterr().out
    for split, subject in (("train", "Subject_1"), ("val", "Subject_1"), ("test", "Subject_2")):
        loaded = {
            name: np.load(root / "splits" / f"{name}-{split}.npy", allow_pickle=False)
            for name in ("points3d", "points2d", "frame", "camera")
        }
        for k, frame in enumerate(loaded["frame"].tolist()):
            assert frame.startswith(subject)
            joints, corners = truth[frame]
            np.testing.assert_allclose(loaded["points3d"][k, :21], joints, atol=2e-5)
            np.testing.assert_allclose(loaded["points3d"][k, 21:], corners, atol=2e-5)
            image = loaded["points3d"][k] @ fhab.CAMERA.T
            np.testing.assert_allclose(loaded["points2d"][k], image[:, :2] / image[:, 2:], atol=0.05)
    data = read_split(root / "splits", "train")
    assert len(data) == FRAMES
    torch.testing.assert_close(data.box, torch.tensor([0.07, 0.08, 0.2]).expand(FRAMES, 3), atol=1e-5, rtol=0)

    command = ["pose-graph", "train", "--splits", str(root / "splits"), "--out", str(root / "run"), "--kinds", "mlp"]
    command += ["--steps", "30", "--batch-size", "8"]
    assert main(command) == 0
    network = load_network(root / "run" / "mlp.safetensors")
    assert network.config.kind == "mlp"
    card = json.loads((root / "run" / "mlp.json").read_text())
    assert card["grasps"] == FRAMES
    assert card["held_out"]["mpjpe_mm"] > 0


def test_a_sequence_is_in_one_split_only():
    names = [f"Subject_{s}/pour/{k}" for s in (1, 2, 3) for k in range(10)]
    kinds = split_of(names * 2, ("Subject_2",), val_every=5)
    by_name = {name: {kinds[k] for k in range(60) if (names * 2)[k] == name} for name in names}
    assert all(len(kind) == 1 for kind in by_name.values())
    assert {next(iter(by_name[n])) for n in names if n.startswith("Subject_2")} == {"test"}
    assert sum(next(iter(kind)) == "val" for kind in by_name.values()) == 4
    # A folder's whole name counts, not a part of it.
    assert split_of(["Subject_21/x/1"], ("Subject_2",)).tolist() == ["train"]


def test_splits_in_millimetres_are_refused(tmp_path):
    np.save(tmp_path / "points3d-train.npy", np.random.default_rng(0).normal(0, 60, (5, 29, 3)))
    with pytest.raises(ValueError, match="divide millimetres"):
        read_split(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match="pose-graph splits"):
        read_split(tmp_path, "val")


# Command --------------------------------------------------------------------------------------------


def test_training_on_a_corpus_by_command(tmp_path, capsys):
    folder = write_corpus(tmp_path / "corpus")
    command = ["pose-graph", "train", "--corpus", str(folder), "--out", str(tmp_path / "run"), "--kinds", "mlp"]
    assert main([*command, "--steps", "10", "--batch-size", "8"]) == 0
    assert "mpjpe_mm" in capsys.readouterr().out
    assert (tmp_path / "run" / "held_out.npz").is_file()
    card = json.loads((tmp_path / "run" / "mlp.json").read_text())
    assert len(card["corpus_sha256"]) == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--out", "x"], "either a corpus or --splits"),
        (["train", "--out", "x", "--corpus", "y", "--kinds", "gcn"], "choose from context"),
        (["draw", "--out", "x", "--weights", "nothing"], "no lifting network"),
    ],
)
def test_wrong_options(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["pose-graph", *arguments]) == 2
    assert message in capsys.readouterr().err


# Pictures -------------------------------------------------------------------------------------------


def test_pictures_become_points_and_are_learned_from():
    pytest.importorskip("transformers")
    from pose_graph.image import ImageConfig, ImageLift, image_loss
    from pose_graph.network import LiftConfig

    lift = LiftConfig(width=8, readout=16, dropout=0.0)
    network = ImageLift(ImageConfig(hidden_sizes=(8, 8, 16, 16), features=8, lift=lift))
    camera = torch.tensor([[200.0, 0, 32], [0, 200, 24], [0, 0, 1]])
    pictures = torch.rand(3, 3, 48, 64)
    seen = network(pictures, camera)
    assert seen.first.shape == seen.keypoints.shape == (3, NODES, 2)
    assert seen.points.shape == (3, NODES, 3)
    assert seen.points.isfinite().all()
    truth = torch.randn(3, NODES, 3) * 0.05 + torch.tensor([0, 0, 0.5])
    flat = truth @ camera.T
    keypoints = flat[..., :2] / flat[..., 2:]
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = image_loss(network(pictures, camera), keypoints, truth, 10.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    with pytest.raises(ValueError, match="expected"):
        network(pictures[:, :1], camera)


def test_without_transformers_the_error_says_what_to_install(monkeypatch):
    import sys

    from pose_graph.image import ImageLift

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"regrasp\[image\]"):
        ImageLift()
