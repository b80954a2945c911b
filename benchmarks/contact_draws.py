"""Pictures of what the latent of the contact network leaves open, for `benchmarks/contact_network.py --draws`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from contact.cases import Cases
from contact.field import ContactField
from contact.network import ContactNet
from hand_models import HandModel, fit_joints
from hand_models.atomic import write_atomically
from refine.view.appearance import GHOST, contact_colours
from refine.view.camera import Camera
from refine.view.render import render
from refine.view.scene import Item, auto_camera

DRAWS = 4
SIZE = (300, 300)
_HEXAGON = np.stack([np.cos(np.arange(6) * np.pi / 3), np.sin(np.arange(6) * np.pi / 3)], 1)


def draw_sheet(
    network: ContactNet, model: HandModel, cases: Cases, mean: ContactField, file: Path, seed: int = 0
) -> None:
    """Write a sheet of three observations: what was seen, the truth, the mean prediction and a few draws.

    A round object whose grasp the network is least sure of, because the hand may sit anywhere along and around it; the
    same grasp seen without noise, where draws ought to agree; and the least sure grasp on an object of another kind.

    Args:
        cases: to choose from.
        mean: the network's mean prediction for all of them.
        seed: of the draws.
    """
    assert mean.joints_var is not None
    spread = mean.joints_var.mean(1)
    names = [cases.names[k] for k in cases.which.tolist()]
    first = _largest(spread, [name in ("can", "bottle", "cup") for name in names])
    other = _largest(spread, [name != names[first] for name in names])
    alone = cases[first : first + 1]
    observations = [
        (f"{names[first]}, noisy hand", alone),
        (f"{names[first]}, the same hand without noise", replace(alone, noisy=alone.pose)),
        (f"{names[other]}, noisy hand", cases[other : other + 1]),
    ]
    rows = [(title, _row(network, model, one, seed)) for title, one in observations]
    _write(rows, file)


def _largest(values: torch.Tensor, allowed: list[bool]) -> int:
    mask = torch.tensor(allowed)
    if not mask.any():
        mask = torch.ones_like(mask)
    return int(values.masked_fill(~mask, -torch.inf).argmax())


def _predict(network: ContactNet, model: HandModel, cases: Cases, noise: torch.Tensor | None = None) -> ContactField:
    return network.predict(model, cases.observation(model), cases.objects.hierarchy[cases.which], noise)


def _row(network: ContactNet, model: HandModel, one: Cases, seed: int) -> list[np.ndarray]:
    """Pictures of one observation from one camera."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(DRAWS, 1, network.config.latent, generator=generator)
    mean, drawn = _predict(network, model, one), _predict(network, model, one, noise)
    object_index = int(one.which[0])
    points, normals = (t[object_index].numpy() for t in (one.objects.points, one.objects.normals))
    contact = [one.truth.contact[0], mean.contact[0], *drawn.contact]
    top = max(float(torch.cat([mean.contact, drawn.contact]).max()), 1e-6)
    # Predictions of noisy hands are cautious: their colours show where contact is, on one scale a row, not how much.
    scale = [1.0, *[1 / top] * (1 + DRAWS)]
    seen = model(one.noisy).vertices[0].numpy()
    hands = [model(one.pose).vertices[0].numpy()]
    for joints in (mean.joints, drawn.joints):
        assert joints is not None
        fitted = fit_joints(joints, model)
        hands += list(model(fitted).vertices.numpy())
    plain = surfels(points, normals, np.zeros(len(points)))
    # A view that shows where contact is, or may be.
    shown = torch.stack(contact) > 0.5 * torch.tensor([1.0, *[top] * (1 + DRAWS)])[:, None]
    groups = shown.any(0).long().repeat_interleave(6).numpy()
    camera = auto_camera([replace(plain, groups=groups)], size=SIZE, extra=hands[0])
    pictures = [_see_through(plain, seen, model, camera)]
    for values, vertices, factor in zip(contact, hands, scale, strict=True):
        item = surfels(points, normals, (values * factor).clamp(0, 1).numpy())
        pictures.append(_see_through(item, vertices, model, camera))
    return pictures


def _see_through(item: Item, hand: np.ndarray, model: HandModel, camera: Camera) -> np.ndarray:
    """Picture of an object with a hand ``(V, 3)`` before it that does not hide it."""
    both = [item, Item(hand, model.closed_faces.numpy(), GHOST)]
    alone, behind = (render(items, camera, SIZE, 2, ground=False) for items in ([item], both))
    return np.round(0.75 * alone + 0.25 * behind).astype(np.uint8)


def surfels(points: np.ndarray, normals: np.ndarray, contact: np.ndarray) -> Item:
    """Surface points ``(n, 3)`` as overlapping discs that cover the object, coloured by contact ``(n,)``."""
    from scipy.spatial import cKDTree

    radius = 2.3 * np.median(cKDTree(points).query(points, 2)[0][:, 1])
    helper = np.where(np.abs(normals[:, :1]) < 0.7, [[1.0, 0, 0]], [[0, 1.0, 0]])
    side = np.cross(normals, helper)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    frame = np.stack([side, np.cross(normals, side)], 1)  # (n, 2, 3)
    rim = points[:, None] + radius * np.einsum("hk,nkx->nhx", _HEXAGON, frame)
    n = len(points)
    vertices = np.concatenate([points, rim.reshape(-1, 3)])
    corner = n + 6 * np.arange(n)[:, None] + np.arange(6)
    faces = np.stack([np.arange(n)[:, None].repeat(6, 1), corner, np.roll(corner, -1, 1)], -1).reshape(-1, 3)
    colour = contact_colours(contact)
    shading = np.repeat(normals, 6, 0)[:, None].repeat(3, 1)
    return Item(vertices, faces, np.concatenate([colour, np.repeat(colour, 6, 0)]), normals=shading, gloss=0.1)


def _write(rows: list[tuple[str, list[np.ndarray]]], file: Path) -> None:
    from PIL import Image, ImageDraw, ImageFont

    heads = ["as seen", "truth", "mean", *(f"draw {k + 1}" for k in range(DRAWS))]
    width, height = SIZE
    band = 26
    sheet = Image.new("RGB", (width * len(heads), (height + band) * len(rows) + band), (255, 255, 255))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for k, head in enumerate(heads):
        draw.text((width * k + width / 2, band / 2), head, (40, 44, 52), font, anchor="mm")
    for r, (title, pictures) in enumerate(rows):
        top = band + r * (height + band)
        draw.text((8, top + band / 2), title, (96, 104, 116), font, anchor="lm")
        for k, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (width * k, top + band))
    write_atomically(file, lambda stream: sheet.save(stream, format="PNG"))
