"""Measures of contact fields against their definitions, and the cases they are measured on."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from scipy.stats import beta, spearmanr
from torch import Tensor

from contact.cases import Cases, draw_contact, held_out_cases, in_turn, predict_cases, predictor, real_cases
from contact.corpus import load_corpus
from contact.evaluate import (
    ambiguous_half,
    average_precision,
    best_of_draws,
    calibration_error,
    grasp_average_precision,
    measure_field,
    negative_log_likelihood,
    precision_recall_f1,
    spearman,
    touch_probability,
)
from contact.field import ContactField
from contact.network import ContactNet, NetworkConfig
from contact.objects import ObjectMesh
from contact.objects.object_set import ObjectSet
from contact.weights import save_weights
from hand_models import HandModel, HandPose, load_open_hand
from refine.commands import cli
from refine.commands.eval import contact_table

SMALL = NetworkConfig(fine=8, middle=8, token=16, layers=2, heads=2, latent=4)


def brute_force_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """Sum over every threshold of precision times the recall gained."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(score.tolist()), reverse=True):
        said = score >= threshold
        recall = positive[said].sum() / positive.sum()
        total += (recall - before) * positive[said].mean()
        before = recall
    return total


def make_field(contact: Tensor, variance: Tensor | float = 0.0, **columns: Tensor) -> ContactField:
    """A field with this contact; correspondence everywhere unless given."""
    b, n = contact.shape
    zero = torch.zeros(b, n)
    values = {
        "contact": contact, "contact_var": zero + variance, "part": torch.full((b, n, 16), 1 / 16),
        "canonical": torch.zeros(b, n, 3), "canonical_var": zero, "gap": zero, "gap_var": zero,
        "near": zero + 1, "hand_contact": torch.zeros(b, 5), "hand_contact_var": torch.zeros(b, 5),
    }  # fmt: skip
    return ContactField(**(values | columns))


# ------------------------------------------------------------------ numbers


@pytest.mark.parametrize("levels", [3, 10, 1000])
def test_average_precision_is_its_definition(levels):
    rng = np.random.default_rng(levels)
    for _ in range(5):
        score = rng.integers(0, levels, 200) / levels
        positive = rng.random(200) < 0.2 + 0.5 * score
        assert average_precision(score, positive) == pytest.approx(brute_force_precision(score, positive))


def test_average_precision_by_hand():
    score, positive = [0.9, 0.8, 0.7, 0.6], [True, False, True, False]
    assert average_precision(np.array(score), np.array(positive)) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision(torch.tensor(score), torch.tensor([True, True, False, False])) == 1
    assert average_precision(np.zeros(8), np.arange(8) < 2) == pytest.approx(0.25)  # all tied: the share
    assert np.isnan(average_precision(np.array(score), np.zeros(4, bool)))


def test_order_of_points_does_not_matter():
    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 4, 100), rng.random(100) < 0.3
    order = rng.permutation(100)
    assert average_precision(score, positive) == average_precision(score[order], positive[order])


def test_malformed_scores_are_refused():
    with pytest.raises(ValueError, match="score: NaN"):
        average_precision(np.array([0.1, np.nan]), np.array([True, False]))
    with pytest.raises(ValueError, match="differ"):
        average_precision(np.zeros(3), np.zeros(4, bool))
    with pytest.raises(ValueError, match="outside"):
        calibration_error(np.array([1.2]), np.array([True]))


def test_precision_recall_f1():
    predicted, positive = torch.tensor([1, 1, 1, 0, 0]).bool(), torch.tensor([1, 0, 1, 1, 1]).bool()
    assert precision_recall_f1(predicted, positive) == pytest.approx((2 / 3, 2 / 4, 4 / 7))
    nothing = torch.zeros(5, dtype=torch.bool)
    precision, recall, f1 = precision_recall_f1(nothing, positive)
    assert np.isnan(precision)
    assert (recall, f1) == (0, 0)


def test_probability_is_the_beta_tail():
    mean, variance = np.array([0.3, 0.5, 0.05]), np.array([0.02, 0.1, 0.001])
    size = mean * (1 - mean) / variance - 1
    expected = beta(mean * size, (1 - mean) * size).sf(0.4)
    np.testing.assert_allclose(touch_probability(mean, variance), expected, rtol=1e-6)


def test_probability_at_the_ends():
    assert touch_probability(np.array([0.39, 0.41]), np.zeros(2)).tolist() == [0, 1]
    # Too wide for [0, 1]: either end, so the mean is the probability.
    np.testing.assert_allclose(touch_probability(np.array([0.2, 0.7]), np.ones(2)), [0.2, 0.7], atol=1e-4)
    p = touch_probability(np.linspace(0.1, 0.8, 71), np.full(71, 0.01))
    assert (np.diff(p) > 0).all()
    assert p[0] < 0.03
    assert p[-1] > 0.99


def test_calibration_of_honest_and_of_boastful_predictions():
    rng = np.random.default_rng(0)
    probability = rng.random(50_000)
    event = rng.random(50_000) < probability
    assert calibration_error(probability, event) < 0.01
    assert calibration_error(np.full(50_000, 0.8), event) == pytest.approx(0.8 - event.mean())
    # By hand: bins of a half; |0.2 − 1/2| over two points, |0.7 − 1| over one.
    by_hand = calibration_error(np.array([0.1, 0.3, 0.7]), np.array([True, False, True]), bins=2)
    assert by_hand == pytest.approx((2 * 0.3 + 0.3) / 3)
    assert calibration_error(np.array([0.1, 0.3, 1.0]), np.array([True, False, False]), 2, skip=1) == pytest.approx(1)


def test_likelihood_of_an_event():
    got = negative_log_likelihood(np.array([0.8, 0.1]), np.array([True, False]))
    assert got == pytest.approx(-(np.log(0.8) + np.log(0.9)) / 2)
    assert np.isfinite(negative_log_likelihood(np.array([0.0]), np.array([True])))


def test_spearman_is_scipys():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 9, 300)
    b = a + rng.normal(0, 3, 300).round()
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert np.isnan(spearman(np.ones(4), np.arange(4)))


# ------------------------------------------------------------------ fields


def test_the_truth_itself_is_perfect():
    contact = torch.rand(3, 200, generator=torch.Generator().manual_seed(0))
    truth = make_field(contact, canonical=torch.rand(3, 200, 3))
    joints = torch.rand(3, 21, 3)
    figures = measure_field(replace(truth, joints=joints, joints_var=torch.ones(3, 21)), truth, joints)
    for name in ("precision", "recall", "f1", "ap", "ap_grasp"):
        assert figures[name] == 1
    for name in ("ece", "correspondence_mm", "mpjpe_mm"):
        assert figures[name] == 0
    assert figures["nll"] < 1e-5


def test_joint_error_along_and_across_the_closing_line():
    generator = torch.Generator().manual_seed(1)
    joints = torch.rand(2, 21, 3, generator=generator)
    closing = torch.nn.functional.normalize(joints[:, 4] - joints[:, [8, 12]].mean(1), dim=-1)
    across = torch.linalg.cross(closing, torch.tensor([[0.0, 0, 1]]).expand(2, -1))
    across = torch.nn.functional.normalize(across, dim=-1)
    truth = make_field(torch.rand(2, 9, generator=generator))
    moved = joints + (0.005 * closing + torch.tensor([[0.003], [-0.001]]) * across)[:, None]
    figures = measure_field(replace(truth, joints=moved), truth, joints)
    assert figures["grip_mm"] == pytest.approx(5, abs=1e-3)
    assert figures["slide_mm"] == pytest.approx(2, abs=1e-3)


def test_correspondence_counts_where_contact_is_true():
    truth = make_field(torch.tensor([[0.9, 0.9, 0.9, 0.0, 0.9]]), near=torch.tensor([[1.0, 1, 1, 1, 0]]))
    off = torch.zeros(1, 5, 3)
    off[0, :, 0] = torch.tensor([0.001, 0.002, 0.010, 1.0, 9.0])
    figures = measure_field(replace(truth, canonical=off), truth)
    assert figures["correspondence_mm"] == pytest.approx(2)


def test_variance_that_knows_its_error():
    generator = torch.Generator().manual_seed(0)
    truth = make_field(torch.rand(2, 300, generator=generator))
    error = torch.rand(2, 300, generator=generator) * 0.1
    off = torch.stack([error, torch.zeros_like(error), torch.zeros_like(error)], -1)
    predicted = replace(truth, canonical=off, canonical_var=error**2, contact=truth.contact - error)
    figures = measure_field(replace(predicted, contact_var=1 - error), truth)
    assert figures["spearman_canonical"] == pytest.approx(1)
    assert figures["spearman_contact"] == pytest.approx(-1)
    assert np.isnan(figures["spearman_joints"])


def test_fields_of_other_points_are_refused():
    with pytest.raises(ValueError, match="predicted"):
        measure_field(make_field(torch.zeros(1, 4)), make_field(torch.zeros(1, 5)))


def test_best_draw_is_found_per_grasp():
    """Each grasp touches in one of two places; every draw is right for one grasp of the ambiguous pair."""
    left, right = torch.tensor([1.0, 1, 0, 0]), torch.tensor([0, 0, 1.0, 1])
    truth = make_field(torch.stack([left, right, left, left]))
    var = torch.tensor([0.1, 0.1, 0.001, 0.001])[:, None].expand(4, 21)
    mean = make_field(torch.full((4, 4), 0.5), joints=torch.zeros(4, 21, 3), joints_var=var)
    mean = replace(mean, contact=torch.stack([mean.contact[0], mean.contact[1], left, left]))
    assert ambiguous_half(mean).tolist() == [True, True, False, False]
    drawn = torch.stack([left.expand(4, 4), torch.stack([right, right, left, left])])
    figures = best_of_draws(mean, drawn, truth)
    assert figures["ap_mean_ambiguous"] == pytest.approx(0.5)
    assert figures["ap_best_ambiguous"] == 1
    assert figures["gain_ambiguous"] == pytest.approx(1)
    assert figures["gain_sure"] == 0
    worst = average_precision(left.numpy(), right.numpy() > 0)
    assert figures["ap_one_ambiguous"] == pytest.approx((1 + worst) / 2)
    with pytest.raises(ValueError, match="joints_var"):
        ambiguous_half(truth)


def test_a_grasp_that_touches_nowhere_is_left_out():
    truth = make_field(torch.tensor([[0.0, 0.1], [0.9, 0.1]]))
    values = grasp_average_precision(torch.tensor([[0.5, 0.5], [0.6, 0.5]]), truth)
    assert np.isnan(values[0])
    assert values[1] == 1


# ------------------------------------------------------------------ cases


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture(scope="module")
def cases() -> Cases:
    """Three hands near two objects."""
    solids = (trimesh.creation.box([0.05, 0.07, 0.12]), trimesh.creation.capsule(height=0.1, radius=0.03))
    objects = [ObjectMesh.from_any(s, resolution=16, cache=False) for s in solids]
    generator = torch.Generator().manual_seed(0)
    pose = HandPose("right", torch.randn(3, 3, generator=generator), torch.zeros(3, 15, 3), torch.zeros(3, 10),
                    0.05 * torch.randn(3, 3, generator=generator))  # fmt: skip
    truth = make_field((torch.rand(3, 2048, generator=generator) > 0.9).float())
    return Cases(pose, pose, torch.tensor([1, 0, 1]), ObjectSet.of(objects), truth, ("box", "capsule"))


def test_order_in_turn():
    assert in_turn(torch.tensor([0, 0, 0, 1, 1, 2])).tolist() == [0, 3, 5, 1, 4, 2]


def test_batches_do_not_matter(cases, model):
    torch.manual_seed(0)
    network = ContactNet(SMALL).eval()
    together, apart = (predict_cases(predictor(network, model), cases, batch) for batch in (3, 1))
    torch.testing.assert_close(together.contact, apart.contact, atol=1e-5, rtol=1e-4)
    assert len(together) == 3
    drawn, again = (draw_contact(network, model, cases, 4, batch=batch) for batch in (2, 3))
    assert drawn.shape == (4, 3, 2048)
    torch.testing.assert_close(drawn, again, atol=1e-5, rtol=1e-4)


def test_held_out_grasps_are_those_of_the_split(cases, model, tmp_path):
    """A corpus of eleven objects of one family, five of another; only the tenth of the first is held out."""
    rng = np.random.default_rng(0)
    for k in range(16):
        count = 0 if k == 3 else 2 + k % 3  # an object without grasps does not count
        item = {"family": np.array("box" if k < 12 else "can")}
        item |= {name: getattr(cases.objects, name)[k % 2].numpy() for name in ("points", "normals", "thickness")}
        if count:
            contact = rng.integers(0, 256, (count, 2048)).astype(np.uint8)
            item |= {n: v.astype(np.float32) for n, v in HandPose.zeros(count).as_arrays().items() if n != "side"}
            item |= {"transl": rng.normal(size=(count, 3)).astype(np.float32), "contact": contact}
            item |= {"hand_contact": contact[:, :700], "part": contact % 16, "near": contact > 99}
            item |= {"gap": contact.astype(np.float16), "kind": np.zeros(count, int)}
            item["canonical"] = rng.normal(size=(count, 2048, 3)).astype(np.float16)
        np.savez(tmp_path / f"object_{k:05d}.npz", **item)
    corpus = load_corpus(tmp_path)
    index = corpus.split()[1]
    assert {corpus.numbers[k] for k in corpus.which[index].tolist()} == {10}
    found = held_out_cases(tmp_path, "image", seed=1)
    assert len(found) == len(index) > 0
    torch.testing.assert_close(found.pose.transl, corpus.pose.transl[index])
    assert found.names == tuple(corpus.families[k] for k in corpus.which[index].unique())
    truth = corpus.truth(index)
    for name in ("contact", "near", "canonical", "part", "gap", "hand_contact"):
        torch.testing.assert_close(getattr(found.truth, name), getattr(truth, name))
    first = held_out_cases(tmp_path, "image", 1, seed=1)
    torch.testing.assert_close(first.noisy.transl, found.noisy.transl[:1])
    camera = held_out_cases(tmp_path, "camera", 1, seed=1, model=model)
    assert (camera.noisy.transl - camera.pose.transl).norm() > 1e-3
    with pytest.raises(ValueError, match="model: missing"):
        held_out_cases(tmp_path, "camera", 1, seed=1)


def test_file_of_cases(cases, tmp_path, monkeypatch):
    """Nothing but rounding is lost; the noise of a grasp does not depend on how many are read."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    from held_out_cases import read_cases, write_cases

    canonical = torch.rand(3, 2048, 3) * 0.1 * (cases.truth.contact > 0.4)[..., None]
    near = (cases.truth.contact > 0.4).float()
    written = replace(cases, truth=replace(cases.truth, near=near, canonical=canonical))
    file = write_cases(written, tmp_path / "cases.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["cases.npz"]
    found = read_cases(file, "image", seed=3)
    assert found.names == ("box", "capsule")
    torch.testing.assert_close(found.which, cases.which)
    torch.testing.assert_close(found.pose.transl, cases.pose.transl)
    torch.testing.assert_close(found.objects.points, cases.objects.points, atol=3e-6, rtol=0)
    torch.testing.assert_close(found.objects.thickness, cases.objects.thickness, atol=1e-6, rtol=0)
    assert (found.objects.normals * cases.objects.normals).sum(-1).min() > np.cos(np.deg2rad(0.5))
    torch.testing.assert_close(found.truth.contact, cases.truth.contact)
    torch.testing.assert_close(found.truth.canonical, canonical, atol=1e-4, rtol=0)
    first = read_cases(file, "image", 1, seed=3)
    assert first.names == ("capsule",)
    assert first.which.tolist() == [0]
    torch.testing.assert_close(first.noisy.transl, found.noisy.transl[:1])
    torch.testing.assert_close(first.objects.points[0], found.objects.points[1])
    assert not torch.allclose(first.noisy.transl, first.pose.transl)
    with pytest.raises(FileNotFoundError, match="gone"):
        read_cases(tmp_path / "gone.npz", "none")


def test_command_on_real_grasps(tmp_path, model, capsys):
    """A folder laid out as the human grasps are: two hands around a box."""
    trimesh.creation.box([0.05, 0.05, 0.12]).export(_made(tmp_path / "ycb") / "box.ply")
    rest = model.joints(HandPose.zeros(2)).numpy()
    joints = rest - rest[:, [9]] + np.array([0.0, 0.03, 0.0])
    np.savez(tmp_path / "dexycb_val.npz", object_id=np.array(["box", "box"]), joints=joints.astype(np.float32))
    cases, meshes = real_cases(tmp_path, model, "none", resolution=16)
    assert [m.name for m in meshes] == ["box"]
    torch.testing.assert_close(model.joints(cases.noisy), torch.from_numpy(joints).float(), atol=0.01, rtol=0)
    torch.manual_seed(0)
    weights = save_weights(ContactNet(SMALL), {}, tmp_path / "w.safetensors")
    arguments = ["eval", "contact", "--weights", str(weights), "--real", str(tmp_path), "--draws", "2"]
    assert cli.main([*arguments, "--out", str(tmp_path / "figures.json")]) == 0
    assert "average precision" in capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["human grasps"]["grasps"] == 2
    assert cli.main([*arguments[:-2], "--noise", "camera", "--out", str(tmp_path / "figures.json")]) == 0
    assert json.loads((tmp_path / "figures.json").read_text())["noise"] == "camera"


def test_camera_noise_is_along_the_line_of_sight_that_the_grasps_come_with(tmp_path, model):
    count = 40
    trimesh.creation.box([0.05, 0.05, 0.12]).export(_made(tmp_path / "ycb") / "box.ply")
    joints = model.joints(HandPose.zeros(count)).numpy()
    pose = np.tile(np.eye(4), (count, 1, 1))
    pose[:, :3, :3] = [[0, 1, 0], [0, 0, 1], [1, 0, 0]]  # the camera looks along x, from a metre away
    pose[:, 2, 3] = 1.0
    np.savez(tmp_path / "dexycb_val.npz", object_id=np.array(["box"] * count), joints=joints, object_pose=pose)
    cases, _ = real_cases(tmp_path, model, "camera", resolution=16)
    off = (model.joints(cases.noisy) - model.joints(cases.pose)).mean(1).abs().mean(0)
    assert off[0] > 5 * off[1:].max()


def _made(folder):
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--corpus"),
        (["--corpus", "gone"], "no grasps in gone"),
        (["--real", "gone"], "dexycb_val.npz"),
        (["--real", "gone", "--draws", "1"], "--draws"),
        (["--real", "gone", "--noise", "loud"], "choose one of"),
        (["--real", "gone", "--weights", "gone.safetensors"], "gone.safetensors"),
    ],
)
def test_wrong_options_are_named(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["eval", "contact", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_table_shows_what_there_is():
    text = contact_table({"a": {"ap": 0.5, "grasps": 3.0}, "b": {"ap": float("nan"), "grasps": 4.0}})
    assert "0.500" in text
    assert " -" in text
    assert "ambiguous" not in text


# ------------------------------------------------------------------ the benchmark


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    return importlib.import_module("contact_network")


FIGURES = {
    "grasps": 5.0, "positives": 0.1, "ap": 0.5, "ece": 0.02, "ece_claimed": 0.1, "nll": 0.2, "precision": 0.5,
    "recall": 0.4, "f1": 0.45, "spearman_contact": 0.8, "correspondence_mm": 12.0, "refined_mpjpe_mm": 20.0,
    "input_mpjpe_mm": 80.0,
}  # fmt: skip
DRAWS = {f"{k}_{half}": 0.25 for k in ("ap_mean", "ap_one", "ap_best", "gain") for half in ("ambiguous", "sure")}


def test_ratios_of_the_last_line(benchmark):
    worse = FIGURES | {"ap": 0.4, "refined_mpjpe_mm": 25.0}
    both = {benchmark.OURS: FIGURES, benchmark.PUBLISHED: worse}
    line = benchmark.summary(both, both, DRAWS, {benchmark.OURS: 10.0, benchmark.PUBLISHED: 30.0})
    assert line["ap_ratio_heldout"] == pytest.approx(1.25)
    assert line["ap_ratio_real"] == pytest.approx(1.25)
    assert line["mpjpe_ratio_real"] == pytest.approx(0.8)
    assert line["best_of_8_ap_gain"] == 0.25
    assert line["variance_spearman"] == 0.8
    assert line["correspondence_median_mm"] == 12


def test_what_is_not_there_is_null(benchmark):
    line = benchmark.summary({benchmark.OURS: FIGURES}, {}, DRAWS, {benchmark.OURS: 10.0})
    nulls = ("ap_ratio_heldout", "ap_ratio_real", "ece_real", "mpjpe_ratio_real", "mpjpe_real_ours_mm")
    assert [line[name] for name in nulls] == [None] * 5
    assert line["ece_heldout"] == 0.02


def test_results_go_between_their_marks(benchmark, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    both = {benchmark.OURS: FIGURES}
    text = benchmark.tables({benchmark.OURS: 7}, {benchmark.OURS: 1.0}, both, both, DRAWS)
    for _ in range(2):
        benchmark.write_results(page, text)
    assert page.read_text() == f"before\n<!-- results -->\n{text}\n<!-- /results -->\nafter\n"
    assert "| average precision | 0.500 |" in text
    page.write_text("no marks")
    with pytest.raises(ValueError, match="no block"):
        benchmark.write_results(page, text)
