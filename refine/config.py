"""Options of refinement, each with its default and meaning at the field."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hand_models.solver.least_squares import Termination


@dataclass(frozen=True)
class CostConfig:
    """Weights of the optimiser's costs. Lengths in metres, angles in radians."""

    joints: float = 1.0
    """each predicted joint's share: the 21 share their errors, so they count as fewer"""
    correspondence: float = 12.0
    """how many independent observations all correspondences together are worth"""
    correspondences: int = 160
    """object points used, the most certain ones"""
    contact: float = 5.0
    """how many independent observations all touching skin is worth"""
    contact_std: float = 0.003
    """distance of touching skin from the surface that counts as one"""
    penetration_std: float = 0.0015
    """excess depth that counts as one"""
    crossing_std: float = 0.0005
    """distance that a bone has come through a thin wall that counts as one"""
    soft_tissue: float = 0.002
    """depth skin yields where the object is thick"""
    soft_share: float = 0.25
    """of the local thickness, the most that skin may sink into a thin object"""
    initial_pose: tuple[float, float, float] = (0.20, 0.10, 0.08)
    """trusted deviation of flexion, abduction and twist from the input"""
    anatomy: float = 3.0
    """standard deviations of the grasping prior that count as one"""
    limits_std: float = 0.05
    """excess over the range of motion that counts as one"""
    self_penetration_std: float = 0.001
    trust: bool = True
    """weigh each joint and correspondence by how sure the network is of it; False for all by their mean precision"""


@dataclass(frozen=True)
class RefineConfig:
    """How a grasp is refined."""

    method: Literal["regrasp", "contactopt"] = "regrasp"
    """this package's network and optimiser, or ContactOpt's published procedure on the same predictions"""
    costs: CostConfig = field(default_factory=CostConfig)
    align: Termination = field(default_factory=lambda: Termination(iterations=8, relative_decrease=1e-3))
    """first the hand is brought to where the network sees it"""
    contact: Termination = field(default_factory=lambda: Termination(iterations=15, relative_decrease=1e-3))
    """then contact is resolved"""
    gate: bool = True
    """weigh how probable it is that the hand holds and the result is better, and go as far; False always goes all the
    way"""
    holds: tuple[float, float] = (0.5, 0.8)
    """probabilities of holding: up to the first the input stays, from the second on a hand counts as holding"""
    undecided: float = 0.8
    """probability that the result is better up to which the input stays"""
    sure: float = 0.95
    """the same, from which on the result is returned; between the two the hand goes part of the way"""
    batch_size: int = 64
    """problems solved together, which bounds memory"""
    device: str = "cpu"
    """where network and optimiser run, as PyTorch calls it: "cpu", "cuda", "cuda:1" """
    skin_points: int = 350
    """how many of the hand model's contact points take part"""
    volumes: bool = True
    """compute intersection volumes (about 10 ms a grasp)"""
    weights: Path | None = None
    """network weights; None for the ones that ship"""

    def __post_init__(self) -> None:
        if self.method not in ("regrasp", "contactopt"):
            raise ValueError(f"method: got {self.method!r}; choose 'regrasp' or 'contactopt'.")
        if not 0 < self.undecided < self.sure < 1:
            raise ValueError(f"sure: got {self.sure} with undecided {self.undecided}; give 0 < undecided < sure < 1.")
        if not 0 < self.holds[0] < self.holds[1] < 1:
            raise ValueError(f"holds: got {self.holds}; give two probabilities, the smaller first.")
        for name in ("batch_size", "skin_points"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; give 1 or more.")
