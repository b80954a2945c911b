"""Use a hand of your own: MANO where you have it, or the open hand scaled to a child's.

    python examples/03_your_own_hand_model.py [FOLDER WITH MANO]

A hand is one `HandModel`: arrays for a template, shapes, skin weights and joints. Everything else (contact,
optimiser, pictures) takes whichever is handed in.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import trimesh

from hand_models import HandModel, HandPose
from hand_models.mano import MissingManoError, load_mano
from hand_models.open_hand import load_open_hand
from refine import refine_grasp


def scaled(model: HandModel, factor: float, name: str) -> HandModel:
    """The same hand at another size; weights, joints and vertex ids do not depend on it."""
    return replace(
        model,
        name=name,
        template=model.template * factor,
        shapedirs=model.shapedirs * factor,
        posedirs=None if model.posedirs is None else model.posedirs * factor,
    )


hands = {"open hand": load_open_hand()}
hands["child"] = scaled(hands["open hand"], 0.75, "child")
try:
    hands["MANO"] = load_mano(sys.argv[1] if len(sys.argv) > 1 else None)
except MissingManoError:
    print("MANO was not found and is left out; give its folder as the argument.")

bottle = trimesh.creation.cylinder(radius=0.026, height=0.14, sections=96)
for name, model in hands.items():
    guess = HandPose.zeros(1)
    guess.hand_pose[:, :12, 2] = 0.6
    guess.transl[:] = -model.root(guess)  # the wrist to the origin, then beside the bottle
    length = float((model.joints(guess)[0, 12] - model.joints(guess)[0, 0]).norm())
    guess.transl[:] += guess.transl.new_tensor([0.60 * length, 0.10, 0.02])

    result = refine_grasp(guess, bottle, hand_model=model)
    depth = result.metrics["penetration_mm_after"][0]
    page = Path("own_hands") / f"{name.replace(' ', '_')}.html"
    result.to_html(page)
    print(f"{name:>10}: {result.status[0].value}, penetration {depth:.1f} mm, {page}")
