"""Refine one grasp: a rough guess of a hand round a can becomes a grasp that touches it.

    python examples/01_refine_one_grasp.py

Writes refined_can/ with the result, a page to turn in a browser (page.html) and a picture (picture.png).
"""

from __future__ import annotations

from pathlib import Path

import trimesh

from hand_models import HandPose
from refine import refine_grasp
from refine.view.pictures import Row, before_after_sheet

OUT = Path("refined_can")

# Any mesh will do: a path, a trimesh, or (vertices, faces), in metres.
can = trimesh.creation.cylinder(radius=0.034, height=0.12, sections=96)

# A hand in the can's frame: fingers along -x, palm facing -y, 2 cm off the can, half closed.
# hand_pose is axis-angle as in MANO: 15 joints (index, middle, pinky, ring, thumb); +z bends a finger.
guess = HandPose.zeros(1)
guess.hand_pose[:, :12, 2] = 0.5
guess.transl[:] = guess.transl.new_tensor([-0.02, 0.075, 0.0])

result = refine_grasp(guess, can)

print(f"status: {result.status[0].value}")
for name in ("penetration_mm", "volume_cm3", "contact_ratio"):
    before, after = result.metrics[f"{name}_before"][0], result.metrics[f"{name}_after"][0]
    print(f"{name:>15}: {before:7.2f} -> {after:.2f}")
print(f"    uncertainty: {1e3 * float(result.uncertainty[0].mean()):.1f} mm per joint, one standard deviation")

result.save(OUT)
result.to_html(OUT / "page.html")
before, after = result.view(title="can").pictures(size=(640, 480))
before_after_sheet([Row("can", before, after)], OUT / "picture.png")
print(f"written: {OUT}/")
