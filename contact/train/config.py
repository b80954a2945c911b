"""Options of training, each with its default and meaning at the field."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..input_error import TRACKING, InputError
from ..network.contact_net import NetworkConfig
from .losses import LossWeights


@dataclass(frozen=True)
class TrainConfig:
    """How the network is trained. What made the shipped weights is in their card."""

    corpus: Path = Path("runs/corpus")
    out: Path = Path("runs/contact")
    """checkpoints, log and weights"""
    start: Path | None = None
    """weights to go on from, of a network of the same widths; None for random ones"""
    start_share: float = 0.0
    """share of those weights in what training ends with: networks fine-tuned to something new keep more of what
    they were good at when averaged with what they came from (WiSE-FT; Wortsman et al., CVPR 2022)"""
    steps: int = 2200
    """of the network without its latent; 0 trains the latent of ``start`` alone"""
    latent_steps: int = 500
    """of the latent thereafter, the rest of the network at rest"""
    batch_size: int = 32
    shards: int = 2
    """parts of a batch, worked on side by side, each on its share of the processor's cores"""
    learning_rate: float = 1.5e-3
    """of AdamW: biases, embeddings and heads"""
    matrix_rate: float = 6e-3
    """of Muon: the matrices between hidden layers; 0 leaves them to AdamW"""
    weight_decay: float = 0.01
    warmup: int = 200
    """steps over which the learning rate rises at the start of either phase, a tenth of the phase at most"""
    average: float = 0.999
    """decay of the moving average of the weights, which is what is evaluated and saved"""
    noise: tuple[str, ...] = ("camera", "contactopt", "image")
    """protocols drawn from, each scaled by a random factor"""
    noise_scale: float = 1.3
    """largest factor"""
    clean_share: float = 0.15
    """share of hands without noise, from which the network learns to leave good ones alone"""
    told_share: float = 0.5
    """share of hands whose error the network is told; of the others it has to judge"""
    apart_share: float = 0.25
    """share of hands that hold nothing, drawn off their objects"""
    tracking: InputError = TRACKING
    """error put on truth and input alike, so that the network learns to leave alone what a tracker would call right
    and does not promise to be surer than the truth it will be judged by"""
    tracking_scale: float = 1.5
    """largest factor on it: how well the truth is known differs from one data set to the next"""
    latent_rate: float = 4e-3
    """learning rate of the latent"""
    divergence: float = 0.02
    """weight of a nat that the latent says about the truth; grows to this in the first half of its steps, lest it
    learns to say nothing before it has learnt to say something (Bowman et al., CoNLL 2016)"""
    points: int = 512
    """object points a step learns from, of the 2,048: neighbours say much the same"""
    evaluate_every: int = 400
    device: str = "cpu"
    seed: int = 0
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossWeights = field(default_factory=LossWeights)
