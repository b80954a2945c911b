"""A cost of your own: the hand stays above the table that the object stands on.

A term says what a state costs: residuals in units of their standard deviation, and their derivative. It is handed
to `refine_grasp`, or to the solver itself, beside the terms that are there; nothing in the packages changes.

    python examples/06_your_own_term.py
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import trimesh
from torch import Tensor

from contact.terms import penetration
from hand_models import HandPose, load_open_hand
from hand_models.record import Record
from hand_models.solver.least_squares import minimize
from hand_models.solver.point_forces import PointForces
from hand_models.solver.states import HandState
from hand_models.solver.terms import AnglePrior, PointTargets
from refine import RefineConfig, refine_grasp


@dataclass(frozen=True, eq=False)
class AboveTable(Record):
    """No skin below the height of the table, z up in the object's frame."""

    height: Tensor
    """(B,) metres, one for each hand"""
    std: float = 0.001
    """metres of depth that count as one"""

    def linearize(self, state: HandState) -> list[PointForces]:
        distance = state.skin.points[..., 2] - self.height[:, None]  # (B, P)
        up = torch.zeros_like(state.skin.points)
        up[..., 2] = 1.0
        return [PointForces.along(state.skin, up, penetration(distance, 0.0, self.std))]

    def mirrored(self) -> AboveTable:
        """Left hands are refined in a mirror that flips x: up stays up."""
        return self


def main() -> None:
    model, table = load_open_hand(), AboveTable(torch.tensor([-0.03]))

    def lowest(vertices: Tensor) -> float:
        return 1000 * (float(vertices[..., 2].min()) - float(table.height))

    # In a refinement: a bottle cap that stands on the table, and a hand that is 2 cm off.
    cap = trimesh.creation.cylinder(radius=0.035, height=0.06)
    hand = {"global_orient": [0.0, 0.0, 0.0], "hand_pose": model.anatomy.from_anatomical(model.anatomy.mean).flatten()}
    knuckles = model.joints(HandPose.from_arrays(hand))[0, [5, 9, 13, 17]].mean(0)
    hand["transl"] = torch.tensor([-0.02, 0.055, 0.0]) - knuckles
    for name, terms in (("as it is", []), ("with the table", [table])):
        result = refine_grasp(hand, cap, terms=terms, config=RefineConfig(gate=False))
        print(f"refined {name}: lowest skin {lowest(result.vertices_after):+.1f} mm from the table")

    # By itself, with the solver: fingertips to four points, one of them below the table.
    given = HandPose.from_arrays(hand)
    target = model.joints(given).clone()
    target[:, 8::4, 2] = torch.tensor([0.0, -0.01, -0.02, -0.05])
    weight = torch.zeros(1, 21)
    weight[:, 8::4] = 1.0
    tips = PointTargets(target, weight, torch.full((1, 21), 0.005), points="joints")
    usual = AnglePrior.grasping(model.anatomy, 1)
    for name, terms in (("alone", [tips, usual]), ("above the table", [tips, usual, table])):
        found = minimize(HandState.of(given, model, model.contact_points), terms).state
        print(f"four fingertips {name}: lowest skin {lowest(model(found.pose).vertices):+.1f} mm from the table")


if __name__ == "__main__":
    main()
