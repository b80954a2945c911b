"""Weight files: round trip, what is missing or broken, and that nothing in them is ever executed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from contact.network import ContactNet, NetworkConfig
from contact.weights import card_path, load_network, save_weights

SMALL = NetworkConfig(fine=8, middle=8, token=16, layers=1, heads=2)
CARD = {"corpus_sha256": "0" * 64, "seed": 3, "held_out": {"contactopt": {"after_mm": 12.5}}, "out": Path("runs")}


@pytest.fixture
def network() -> ContactNet:
    return ContactNet(SMALL)


@pytest.fixture
def saved(network: ContactNet, tmp_path: Path) -> Path:
    return save_weights(network, CARD, tmp_path / "small.safetensors")


def test_round_trip(network: ContactNet, saved: Path) -> None:
    for path in (saved, str(saved)):
        again = load_network(path)
        assert again.config == SMALL
        assert again.state_dict().keys() == network.state_dict().keys()
        for name, value in network.state_dict().items():
            assert torch.equal(again.state_dict()[name], value)
        assert not again.training
        assert not any(p.requires_grad for p in again.parameters())


def test_card(saved: Path) -> None:
    card = json.loads(card_path(saved).read_text(encoding="utf-8"))
    assert card_path(saved) == saved.with_suffix(".json")
    assert card["network"] == {"fine": 8, "middle": 8, "token": 16, "layers": 1, "heads": 2, "latent": 8}
    assert card["corpus_sha256"] == CARD["corpus_sha256"]
    assert card["held_out"]["contactopt"]["after_mm"] == 12.5
    assert card["out"] == "runs"


def test_saving_leaves_two_files_and_makes_the_folder(network: ContactNet, tmp_path: Path) -> None:
    path = save_weights(network, CARD, str(tmp_path / "new" / "folder" / "net.safetensors"))
    assert path == tmp_path / "new" / "folder" / "net.safetensors"
    assert sorted(p.name for p in path.parent.iterdir()) == ["net.json", "net.safetensors"]
    save_weights(ContactNet(SMALL), CARD, path)  # over the old ones
    assert sorted(p.name for p in path.parent.iterdir()) == ["net.json", "net.safetensors"]
    load_network(path)


def test_saving_refuses_what_could_not_be_used(network: ContactNet, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    with pytest.raises(ValueError, match="card: 'network'"):
        save_weights(network, {"network": "mine"}, path)
    with torch.no_grad():
        network.point_head.bias[2] = torch.nan
    with pytest.raises(ValueError, match=r"point_head\.bias.*diverged"):
        save_weights(network, CARD, path)
    assert not path.exists()


def test_missing_files(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"weights: .*absent\.safetensors.*regrasp train"):
        load_network(tmp_path / "absent.safetensors")
    card_path(saved).unlink()
    with pytest.raises(FileNotFoundError, match=r"small\.json"):
        load_network(saved)


@pytest.mark.parametrize(
    "text",
    ["", "not json", "[]", "{}", '{"network": {"width": 3}}', '{"network": {"heads": "two"}}', '{"network": null}'],
)
def test_broken_card(saved: Path, text: str) -> None:
    card_path(saved).write_text(text)
    with pytest.raises(ValueError, match=r"weights: .*small\.safetensors"):
        load_network(saved)


def test_card_of_another_network(saved: Path) -> None:
    card = json.loads(card_path(saved).read_text())
    card["network"]["token"] = 32
    card_path(saved).write_text(json.dumps(card))
    with pytest.raises(ValueError, match="does not hold this network"):
        load_network(saved)


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.999])
def test_truncated_file(saved: Path, kept: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(kept if kept >= 1 else kept * len(data))])
    with pytest.raises(ValueError, match=r"weights: .*does not hold this network"):
        load_network(saved)


def test_missing_and_foreign_tensors(saved: Path) -> None:
    state = load_file(saved)
    save_file({k: v for k, v in state.items() if k != "joint_name"}, saved)
    with pytest.raises(ValueError, match="joint_name"):
        load_network(saved)
    save_file({**state, "extra": torch.zeros(1)}, saved)
    with pytest.raises(ValueError, match="extra"):
        load_network(saved)
    save_file({**state, "joint_name": torch.zeros(20, 16)}, saved)
    with pytest.raises(ValueError, match="joint_name"):
        load_network(saved)


class _Tripwire:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("style", ["pickle", "torch"])
def test_pickles_are_refused_unread(saved: Path, tmp_path: Path, style: str) -> None:
    sprung = tmp_path / "sprung"
    if style == "pickle":
        saved.write_bytes(pickle.dumps({"point.0.weight": _Tripwire(sprung)}))
    else:
        torch.save({"point.0.weight": _Tripwire(sprung)}, saved)
    with pytest.raises(ValueError, match="does not hold this network"):
        load_network(saved)
    assert not sprung.exists()
    pickle.loads(pickle.dumps(_Tripwire(sprung)))  # the wire does work
    assert sprung.exists()
