"""Training: a few steps run, an interrupted run ends where an uninterrupted one does, the weights load."""

from __future__ import annotations

import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from contact.corpus import Corpus, CorpusConfig, corpus_hash, load_corpus
from contact.corpus.corpus import build_object
from contact.corpus.placement import SynthesisConfig
from contact.network import ContactNet, NetworkConfig
from contact.network.features import LENGTH
from contact.perturb import PROTOCOLS
from contact.train import TrainConfig, evaluate, train
from contact.train import training as module
from contact.train.batches import draw_grasps, make_batch, varied
from contact.train.curves import write_curves
from contact.weights import card_path, load_network
from hand_models import HandModel, load_open_hand

TINY = NetworkConfig(fine=8, middle=8, token=16, layers=1, heads=2)


@pytest.fixture(scope="module")
def corpus_folder(tmp_path_factory) -> Path:
    """Two objects with a few grasps."""
    folder = tmp_path_factory.mktemp("corpus")
    threads = torch.get_num_threads()
    config = CorpusConfig(out=folder, resolution=24, grasps_per_object=4, synthesis=SynthesisConfig(candidates=10))
    assert min(build_object(config, index) for index in range(2)) >= 1
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def corpus(corpus_folder) -> Corpus:
    return load_corpus(corpus_folder)


@pytest.fixture(scope="module")
def model() -> HandModel:
    return load_open_hand()


@pytest.fixture
def config(corpus_folder, tmp_path) -> TrainConfig:
    return TrainConfig(
        corpus=corpus_folder,
        out=tmp_path / "run",
        steps=4,
        latent_steps=2,
        batch_size=2,
        warmup=2,
        evaluate_every=2,
        network=TINY,
    )


def same_weights(first: Path, second: Path) -> bool:
    a, b = load_network(first).state_dict(), load_network(second).state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_short_run_writes_weights_card_and_log(config, model):
    path = train(config, model)
    assert path == config.out / "weights.safetensors"
    network = load_network(path)
    assert network.config == TINY
    torch.manual_seed(config.seed)
    start = ContactNet(TINY).state_dict()
    assert any(not torch.equal(start[k], v) for k, v in network.state_dict().items())
    card = json.loads(card_path(path).read_text())
    assert card["corpus_sha256"] == corpus_hash(config.corpus)
    assert card["objects"] == 2
    assert card["hand_model"] == model.name
    assert card["config"]["seed"] == config.seed
    assert str(config.corpus.parent) not in card_path(path).read_text()  # no paths of the machine
    lines = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    with open(config.out / "curves.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["step"]) for row in table] == [2, 4, 6]
    assert not list(config.out.glob("*.partial"))


def test_curves_show_what_the_log_says(tmp_path):
    lines = [{"step": s, "image": {"after_mm": 30.0 / s}, "none": {"after_mm": 2.0}} for s in (1, 2, 4)]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    table, picture = write_curves(log)
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["image.after_mm"]) for row in rows] == [30.0, 15.0, 7.5]
    with Image.open(picture) as image:
        colours = {colour for _, colour in image.getcolors(1 << 20)}
    assert {(31, 119, 180), (214, 39, 40)} <= colours  # a line for each protocol
    log.write_text("")
    with pytest.raises(ValueError, match="no lines yet"):
        write_curves(log)


def test_training_goes_on_from_weights_and_keeps_a_share_of_them(config, model, tmp_path):
    first = train(replace(config, latent_steps=0), model)
    further = replace(config, start=first, latent_steps=0)
    ends = {
        share: load_network(train(replace(further, out=tmp_path / str(share), start_share=share), model))
        for share in (0.0, 0.5, 1.0)
    }
    began = load_network(first).state_dict()
    alone, half, none = (ends[share].state_dict() for share in (0.0, 0.5, 1.0))
    assert any(not torch.equal(began[k], alone[k]) for k in began)
    for k, value in began.items():
        assert torch.allclose(half[k], (value + alone[k]) / 2, atol=1e-6)
        assert torch.allclose(none[k], value, atol=1e-6)
    assert str(tmp_path) not in card_path(tmp_path / "0.5" / "weights.safetensors").read_text()


def test_weights_of_other_widths_are_no_start(config, model, tmp_path):
    first = train(replace(config, latent_steps=0), model)
    wider = replace(config, start=first, out=tmp_path / "wider", network=replace(TINY, fine=TINY.fine * 2))
    with pytest.raises(ValueError, match=r"start: .* other widths"):
        train(wider, model)


def test_equal_seeds_give_equal_weights(config, model, tmp_path):
    first = train(config, model)
    second = train(replace(config, out=tmp_path / "again"), model)
    other = train(replace(config, out=tmp_path / "other", seed=1), model)
    assert same_weights(first, second)
    assert not same_weights(first, other)


def test_without_muon_adamw_learns_all(config, model, tmp_path, monkeypatch):
    with_muon = train(config, model)
    monkeypatch.setattr(module, "Muon", None)  # not called
    alone = train(replace(config, out=tmp_path / "alone", matrix_rate=0.0), model)
    assert not same_weights(with_muon, alone)


def test_the_latent_learns_last_and_leaves_the_rest_as_it_is(config, model, tmp_path):
    before = load_network(train(replace(config, latent_steps=0), model)).state_dict()
    after = load_network(train(replace(config, out=tmp_path / "more"), model)).state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"latent"}
    end = config.out / "weights.safetensors"  # of the network; now the latent on its own
    alone = load_network(train(replace(config, start=end, out=tmp_path / "alone", steps=0), model)).state_dict()
    assert {n.split(".")[0] for n in before if not torch.equal(before[n], alone[n])} == {"latent"}


@pytest.mark.parametrize("step", [4, 6])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(config, model, tmp_path, monkeypatch, step):
    config = replace(config, latent_steps=4)
    whole = train(config, model)
    cut = replace(config, out=tmp_path / "cut")
    real, calls = module.total, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == step:  # after a checkpoint, in the middle of the next stretch
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, "total", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(cut, model)
    assert not (cut.out / "weights.safetensors").exists()
    monkeypatch.setattr(module, "total", real)
    assert same_weights(whole, train(cut, model))


def test_training_lowers_the_loss_on_what_it_sees(config, corpus, model):
    path = train(replace(config, steps=40, latent_steps=0, evaluate_every=40, learning_rate=5e-3, average=0.5), model)
    everything = torch.arange(len(corpus))
    torch.manual_seed(config.seed)
    start = evaluate(ContactNet(TINY).eval(), model, corpus, everything, "image")
    end = evaluate(load_network(path), model, corpus, everything, "image")
    assert end["before_mm"] == pytest.approx(start["before_mm"])
    assert end["near"] < start["near"]
    assert end["hand_contact"] < start["hand_contact"]
    assert end["joints"] < start["joints"]


def test_a_batch_without_noise_shows_the_truth(corpus, model):
    index = torch.arange(3)
    batch = make_batch(model, corpus, index, "contactopt", torch.zeros(3), torch.Generator().manual_seed(0))
    torch.testing.assert_close(batch.observation.joint_positions, batch.joints, atol=1e-6, rtol=0)
    torch.testing.assert_close(batch.truth.contact, corpus.contact[index].float() / 255)


def test_the_truth_of_a_batch_is_where_the_clean_hand_is(corpus, model):
    index = torch.arange(len(corpus))
    generator = torch.Generator().manual_seed(3)
    batch = make_batch(model, corpus, index, "image", torch.ones(len(corpus)), generator)
    back = batch.joints @ batch.observation.rotation.transpose(1, 2) + batch.observation.origin[:, None]
    torch.testing.assert_close(back, model.joints(corpus.pose[index]), atol=1e-5, rtol=0)
    moved = (batch.observation.joint_positions - batch.joints).norm(dim=-1).mean()
    assert 0.01 < moved < 0.08


def test_what_a_batch_is_told_is_the_error_of_its_hands(corpus, model):
    """Scaled as the noise is; nothing where nothing is told; exact where there is none."""
    index = torch.tensor([0, 1, 2, 0])
    told, scale = torch.tensor([True, False, True, True]), torch.tensor([1.0, 1.0, 0.5, 0.0])
    batch = make_batch(model, corpus, index, "image", scale, torch.Generator().manual_seed(0), told=told)
    assert batch.observation.told.tolist() == [1, 0, 1, 1]
    variance = batch.observation.spread[:, 0] @ batch.observation.spread[:, 0]  # of the wrist, which turns about itself
    expected = (PROTOCOLS["image"].translation * scale * told) ** 2
    torch.testing.assert_close(variance, expected[:, None, None] * torch.eye(3), atol=1e-7, rtol=1e-2)
    assert (batch.observation.spread[3] == 0).all()
    torch.testing.assert_close(batch.observation.joint_positions[3], batch.joints[3], atol=1e-5, rtol=0)


def test_hands_of_a_batch_that_are_apart_hold_nothing(corpus, model):
    index = torch.arange(3).repeat(8)
    apart = torch.arange(24) % 2 == 0
    batch = make_batch(
        model, corpus, index, "contactopt", torch.zeros(24), torch.Generator().manual_seed(0), apart=apart
    )
    assert (batch.holding[~apart] == 1).all()
    drawn = batch.holding == 0
    assert drawn.sum() > 8
    nearest = (batch.observation.objects[..., 7:10] * LENGTH).norm(dim=-1).amin(1)
    assert (nearest[drawn] > 0.001).all()
    assert nearest[drawn].max() > 0.1
    # The joints are those of the hand where it is now.
    torch.testing.assert_close(batch.observation.joint_positions, batch.joints, atol=1e-5, rtol=0)


def test_noise_of_another_make_differs_in_each_of_its_parts():
    generator = torch.Generator().manual_seed(0)
    for name in ("camera", "image"):
        usual = PROTOCOLS[name]
        drawn = [varied(usual, generator) for _ in range(200)]
        for part in ("rotation", "pose", *(("along", "picture") if name == "camera" else ("translation",))):
            factors = torch.tensor([getattr(noise, part) / getattr(usual, part) for noise in drawn])
            assert 0.4 <= factors.min() < 0.5
            assert 1.5 < factors.max() <= 1.6
    assert varied(PROTOCOLS["image"], generator).along is None


def test_without_held_out_objects_there_is_nothing_to_evaluate(corpus, model):
    assert evaluate(ContactNet(TINY), model, corpus, torch.zeros(0, dtype=torch.long), "image") == {}


def test_evaluation_does_not_depend_on_how_it_is_cut(corpus, model):
    network = ContactNet(TINY).eval()
    index = torch.arange(len(corpus)).repeat(20)[:80]  # two chunks
    scores = evaluate(network, model, corpus, index, "none")
    assert scores["before_mm"] < 1e-3
    again = evaluate(network, model, corpus, index[:64], "none")
    rest = evaluate(network, model, corpus, index[64:], "none")
    assert scores["after_mm"] == pytest.approx(0.8 * again["after_mm"] + 0.2 * rest["after_mm"], rel=1e-4)


def test_a_checkpoint_of_another_network_is_refused(config, model):
    train(replace(config, steps=2), model)
    with pytest.raises(ValueError, match=r"another network or configuration .*; choose another folder"):
        train(replace(config, network=replace(TINY, token=24)), model)


@pytest.mark.parametrize("change", [{"learning_rate": 1e-4}, {"noise": ("none",)}, {"seed": 1}, {"steps": 8}])
def test_a_run_does_not_go_on_under_other_options(config, model, change):
    train(config, model)
    (name, value), *_ = change.items()
    with pytest.raises(ValueError, match=rf"out: .*\({name} .*, now .*\)"):
        train(replace(config, **change), model)
    assert getattr(config, name) != value


def test_a_run_does_not_go_on_with_another_corpus(config, corpus_folder, model, tmp_path):
    train(config, model)
    moved = shutil.copytree(corpus_folder, tmp_path / "moved")
    train(replace(config, corpus=moved, evaluate_every=3), model)  # the same grasps elsewhere
    (moved / "object_00001.npz").unlink()
    with pytest.raises(ValueError, match="corpus_sha256"):
        train(replace(config, corpus=moved), model)


def test_what_is_random_in_a_step_comes_from_streams_of_their_own(config, corpus):
    """Neither the object points nor the latent's noise follow from what draws the grasps and their noise."""
    among, count = torch.arange(len(corpus)), corpus.objects.points.shape[1]

    def of_the_grasps(step: int) -> torch.Generator:
        *_, generator = draw_grasps(corpus, among, config.batch_size, config, step)
        return torch.Generator().manual_seed(generator.initial_seed())

    for step in range(3):
        points, latent = module._some_points(corpus, config, step), module._latent_noise(config, step)
        assert not torch.equal(points, torch.randperm(count, generator=of_the_grasps(step))[: len(points)])
        assert not torch.equal(latent, torch.randn(latent.shape, generator=of_the_grasps(step)))
        again = module._some_points(corpus, config, step)
        assert torch.equal(points, again)  # but step and seed alone decide


def test_an_absent_corpus_is_named(config, model, tmp_path):
    with pytest.raises(FileNotFoundError, match="regrasp corpus"):
        train(replace(config, corpus=tmp_path / "nothing"), model)


def test_weights_of_another_network_are_refused(config, model):
    path = train(replace(config, steps=2), model)
    card = json.loads(card_path(path).read_text())
    card["network"]["token"] = 32
    card_path(path).write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"(?s)weights: .* train it again"):
        load_network(path)
    card_path(path).unlink()
    with pytest.raises(FileNotFoundError, match="regrasp train"):
        load_network(path)


def test_gradients_of_shards_are_those_of_the_whole_batch(config, corpus, model):
    network = ContactNet(TINY)
    config = replace(config, batch_size=5, shards=2)
    values = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return (network.joint_name.sum(0) * rows).square().sum(1).mean()

    with ThreadPoolExecutor(2) as pool:
        module._descend(network, pool, loss, (values,), config)
    (expected,) = torch.autograd.grad(loss(values), [network.joint_name])
    expected = expected / expected.norm().clamp_min(1)  # gradients are clipped
    torch.testing.assert_close(network.joint_name.grad, expected, rtol=1e-4, atol=1e-6)
    assert network.part_centre.grad is None
