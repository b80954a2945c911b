"""Draw docs/conventions.png: the 21 joints, MANO's 16, and the frames of hand, object and camera.

    python tools/draw_conventions.py            # writes docs/conventions.png; needs regrasp[plots]

Run from the repository's root. Everything is read from the open hand and `hand_models.skeleton`, so that the
picture cannot say anything else than the code does.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from hand_models import HandPose, load_open_hand
from hand_models.skeleton import JOINT_NAMES, ORDERS, PARENT_NAMES

TARGET = Path("docs/conventions.png")
SKIN, BONE, INK = "#e9d3c3", "#8d7466", "#22262b"
AXES = {"x": "#c8372d", "y": "#2f8f3e", "z": "#2b5fb8"}
_HALO = [effects.withStroke(linewidth=3, foreground="white")]


def seen_from_the_palm(points: np.ndarray) -> np.ndarray:
    """Rest frame to the page, looking along +y: fingers (−x) up, thumb (+z) to the right."""
    return np.stack([points[..., 2], -points[..., 0]], -1) * 1000


def seen_aslant(points: np.ndarray) -> np.ndarray:
    """Camera frame (x right, y down, z forward) to the page, looking down from the left behind the camera."""
    turn, tilt = np.radians(38), np.radians(24)
    x, y, z = np.moveaxis(points, -1, 0)
    across, into = np.cos(turn) * x + np.sin(turn) * z, -np.sin(turn) * x + np.cos(turn) * z
    return np.stack([across, -np.cos(tilt) * y + np.sin(tilt) * into], -1)


def draw_hand(axes: Axes, skin: np.ndarray, faces: np.ndarray, joints: np.ndarray, order: tuple[str, ...]) -> None:
    """Hand and skeleton from the palm, each joint of ``order`` with its number."""
    axes.add_collection(PolyCollection(seen_from_the_palm(skin)[faces], facecolor=SKIN, edgecolor=SKIN, lw=0.3))
    place = dict(zip(JOINT_NAMES, seen_from_the_palm(joints), strict=True))
    for name in order:
        parent = PARENT_NAMES[name]
        if parent is not None:
            axes.plot(*zip(place[parent], place[name], strict=True), color=BONE, lw=1.6, zorder=3)
    for number, name in enumerate(order):
        axes.plot(*place[name], "o", color=BONE, ms=4, zorder=4)
        axes.annotate(str(number), place[name], (4, 3), textcoords="offset points", fontsize=10, color=INK,
                      weight="bold", path_effects=_HALO, zorder=5)  # fmt: skip
    axes.set_aspect("equal")
    axes.axis("off")


def arrow(axes: Axes, start: np.ndarray, end: np.ndarray, text: str, colour: str) -> None:
    """An arrow on the page with its name at the tip."""
    axes.plot(*(end + 0.2 * (end - start)), alpha=0)  # annotations alone would lie outside the axes
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2}, zorder=6)
    axes.annotate(text, end + 0.13 * (end - start), color=colour, fontsize=11, weight="bold", ha="center", va="center",
                  path_effects=_HALO, zorder=7)  # fmt: skip


def draw_rest_axes(axes: Axes, wrist: np.ndarray) -> None:
    """The rest frame's axes beside the wrist; y points away from who looks."""
    start = seen_from_the_palm(wrist) + np.array([50.0, 2.0])
    for name, column in (("x", 0), ("z", 2)):
        arrow(axes, start, start + seen_from_the_palm(np.eye(3)[column] * 0.026), name, AXES[name])
    axes.plot(*start, "o", ms=11, mfc="white", mec=AXES["y"], mew=2, zorder=8)
    axes.plot(*start, "x", ms=6, color=AXES["y"], mew=2, zorder=9)
    axes.annotate("y, into the page", start, (9, -18), textcoords="offset points", color=AXES["y"], fontsize=10,
                  weight="bold", path_effects=_HALO)  # fmt: skip


def draw_frames(axes: Axes, skin: np.ndarray, faces: np.ndarray) -> None:
    """A camera, an object with its frame, and a hand, in the camera's frame."""
    object_pose = np.eye(4)
    angle = np.radians(25)
    object_pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    object_pose[:3, 3] = (0.05, 0.02, 0.62)
    corner = 0.07 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (1, 0.75)
    picture = np.column_stack([corner, np.full(4, 0.14)])
    axes.add_collection(_polygon(seen_aslant(picture), "#eef2f6", "#98a2ad"))
    for point in picture:
        axes.plot(*seen_aslant(np.stack([np.zeros(3), point])).T, color="#98a2ad", lw=0.9)
    size = np.array([0.05, 0.08, 0.05])
    signs = np.array([(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)])
    box = signs * size / 1.6
    corners = seen_aslant(box @ object_pose[:3, :3].T + object_pose[:3, 3])
    for a in range(8):
        for b in range(a):
            if (signs[a] != signs[b]).sum() == 1:
                axes.plot(*corners[[a, b]].T, color="#7b858f", lw=1.2)
    # The hand, palm towards the box, wrist below it.
    upright = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    middle = skin.mean(0)
    hand = (skin - middle) @ upright.T + object_pose[:3, 3] + (-0.085, 0.03, 0.0)
    axes.add_collection(PolyCollection(seen_aslant(hand)[faces], facecolor=SKIN, edgecolor=SKIN, lw=0.2, zorder=2))
    for frame, length in ((np.eye(4), 0.12), (object_pose, 0.1)):
        start = seen_aslant(frame[:3, 3])
        for column, name in enumerate("xyz"):
            arrow(axes, start, seen_aslant(frame[:3, 3] + length * frame[:3, column]), name, AXES[name])
    start, end = seen_aslant(np.array([0.0, 0.0, 0.0])), seen_aslant(object_pose[:3, 3])
    axes.annotate("", end, start, zorder=5, arrowprops={
        "arrowstyle": "-|>", "color": INK, "ls": "--", "lw": 1.2, "connectionstyle": "arc3,rad=-0.25",
        "shrinkA": 8, "shrinkB": 6})  # fmt: skip
    axes.annotate("object_pose: x_camera = object_pose · [x_object, 1]", (start + end) / 2, (-70, 62), fontsize=10.5,
                  textcoords="offset points", ha="center", color=INK, path_effects=_HALO)  # fmt: skip
    axes.annotate("camera frame\nx right, y down, z forward", start, (-14, 14), textcoords="offset points", fontsize=10,
                  ha="right", color=INK)  # fmt: skip
    axes.annotate("object frame: its mesh file's", end, (-30, -92), textcoords="offset points", fontsize=10, color=INK,
                  path_effects=_HALO)  # fmt: skip
    axes.annotate("with an object_pose the hand is in the camera frame, without one in the object frame", (0.5, -0.06),
                  xycoords="axes fraction", ha="center", fontsize=10, color=INK)  # fmt: skip
    axes.set_aspect("equal")
    axes.margins(0.12)
    axes.axis("off")


def _polygon(points: np.ndarray, face: str, edge: str) -> PolyCollection:
    return PolyCollection([points], facecolor=face, edgecolor=edge, lw=1)


def main() -> None:
    """Write the picture."""
    model = load_open_hand()
    rest = model(HandPose.zeros(1))
    skin, joints, faces = rest.vertices[0].numpy(), rest.joints[0].numpy(), model.faces.numpy()
    figure = Figure(figsize=(15, 5.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.5])
    draw_hand(left, skin, faces, joints, JOINT_NAMES)
    draw_rest_axes(left, joints[0])
    left.set_title("21 joints, OpenPose order\nright hand at rest, palm towards you")
    draw_hand(middle, skin, faces, joints, ORDERS["mano16"].joints)
    middle.set_title("16 joints and parts, MANO's order\nhand_pose[k] turns joint k + 1")
    draw_frames(right, skin, faces)
    right.set_title("Frames")
    figure.savefig(TARGET, dpi=110)


if __name__ == "__main__":
    main()
