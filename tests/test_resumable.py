"""Checkpoints come back whole and only to the run they are of; streams of random numbers are each their own."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from torch import nn

from hand_models.resumable import Checkpoint, approach, schedule, stream


def run(path: Path, **recipe: object) -> tuple[Checkpoint, nn.Linear, torch.optim.Optimizer]:
    layer = nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(layer.parameters())
    return Checkpoint(path, recipe, {"layer": layer, "optimiser": optimiser}), layer, optimiser


def test_a_run_comes_back(tmp_path: Path) -> None:
    checkpoint, layer, optimiser = run(tmp_path / "a.checkpoint", sizes=(1, 2), out=tmp_path)
    assert checkpoint.resume() == {}
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    checkpoint.save(step=3, seconds=1.5)
    again, other, its = run(tmp_path / "a.checkpoint", sizes=[1, 2], out=tmp_path)
    assert again.resume() == {"step": 3, "seconds": 1.5}
    assert torch.equal(other.weight, layer.weight)
    assert its.state_dict()["state"][0]["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.checkpoint"]


def test_a_run_with_other_options_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "a.checkpoint", rate=0.1, steps=4)[0].save(step=3)
    changed, layer, _ = run(tmp_path / "a.checkpoint", rate=0.2, steps=4)
    before = layer.weight.clone()
    with pytest.raises(ValueError, match=r"out: .*configuration \(rate 0\.1, now 0\.2\); choose another folder"):
        changed.resume()
    assert torch.equal(layer.weight, before)
    with pytest.raises(ValueError, match=r"steps 4, now None"):
        run(tmp_path / "a.checkpoint", rate=0.1)[0].resume()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.checkpoint").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"out: .*a\.checkpoint is no checkpoint"):
        run(tmp_path / "a.checkpoint")[0].resume()


def test_streams_are_their_own() -> None:
    keys = list(product((-1, 0, 1), (0, 1, 1_000_003), ("points", "latent", "")))
    drawn = {tuple(torch.rand(4, generator=stream(*key)).tolist()) for key in keys}
    assert len(drawn) == len(keys)
    assert torch.equal(torch.rand(4, generator=stream(*keys[0])), torch.rand(4, generator=stream(*keys[0])))


def test_rate_rises_evenly_and_falls_to_a_hundredth():
    rates = [schedule(step, 1000, 10) for step in range(1001)]
    assert rates[4] == pytest.approx(0.5, rel=1e-3)
    assert all(a > b for a, b in pairwise(rates[9:]))
    assert rates[500] == pytest.approx((1 + 0.01) / 2)
    assert rates[1000] == pytest.approx(0.01)


def test_averages_approach_a_network_by_a_share():
    mean, network = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    expected = 0.75 * mean.weight.detach() + 0.25 * network.weight.detach()
    kept = network.weight.detach().clone()
    approach(mean.requires_grad_(False), network, 0.25)
    torch.testing.assert_close(mean.weight, expected)
    assert torch.equal(network.weight, kept)
