"""Contact on the hand's own map: the map unfolds the skin once, and the images hold what the points say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from contact.field import ContactField
from hand_models.hand_map import open_hand_uv
from hand_models.open_hand import load_open_hand
from refine.view.texture import contact_texture


@pytest.fixture(scope="module")
def model():
    return load_open_hand()


def areas(corners: np.ndarray) -> np.ndarray:
    edges = corners[:, 1:] - corners[:, :1]
    return np.linalg.det(edges) / 2


def field_of(values: torch.Tensor, variance: float = 0.01) -> ContactField:
    b, none = len(values), torch.zeros(len(values), 1)
    return ContactField(
        none, none, torch.zeros(b, 1, 16), torch.zeros(b, 1, 3), none, none, none, none, values,
        torch.full_like(values, variance),
    )  # fmt: skip


def test_the_map_unfolds_the_skin_true_to_its_areas(model) -> None:
    uv, faces = open_hand_uv().astype(np.float64), model.faces.numpy()
    assert uv.shape == (len(faces), 3, 2)
    assert uv.min() >= 0
    assert uv.max() <= 1
    flat = areas(uv * (2, 1))
    assert (flat > 0).all()  # none turned over: each is seen from outside
    vertices = model.template.double().numpy()
    corners = vertices[faces]
    solid = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    ratio = flat / solid
    ratio /= np.median(ratio)
    assert np.percentile(ratio, 5) > 0.8
    assert np.percentile(ratio, 95) < 1.25
    palm = uv[:, :, 0].mean(1) < 0.5
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normals[palm, 1] < 0).mean() > 0.9
    assert (normals[~palm, 1] > 0).mean() > 0.9


def test_no_two_triangles_lie_on_each_other() -> None:
    """Random places of the map are inside one triangle at most, but for slivers at folds."""
    uv = open_hand_uv().astype(np.float64)
    points = np.random.default_rng(0).random((3000, 2))
    a, b, c = uv[:, 0], uv[:, 1], uv[:, 2]

    def left(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        edge, to = (q - p)[None], points[:, None] - p[None]
        return edge[..., 0] * to[..., 1] - edge[..., 1] * to[..., 0] > 0

    within = (left(a, b) & left(b, c) & left(c, a)).sum(1)
    assert (within == 1).sum() > 900
    assert (within > 1).sum() <= 6


def test_images_hold_what_the_points_say(model) -> None:
    points = len(model.contact_points)
    ramp = (model.template[model.contact_points, 0] - model.template[:, 0].min()) / 0.25
    texture = contact_texture(model, field_of(torch.stack([torch.full((points,), 0.3), ramp])), 64)
    assert texture.mean.shape == texture.variance.shape == (2, 64, 128)
    skin = ~np.isnan(texture.mean[0])
    assert 0.25 < skin.mean() < 0.5
    np.testing.assert_allclose(texture.mean[0][skin], 0.3, atol=1e-5)
    np.testing.assert_allclose(texture.variance[0][skin], 0.01, atol=1e-6)
    # fingers run along -x at rest and point upwards on the map
    rows = np.nanmean(texture.mean[1], axis=1)
    known = rows[~np.isnan(rows)]
    assert known[0] < 0.2
    assert known[-1] > 0.7
    assert texture.picture(1).shape == (128, 128, 3)
    assert (texture.picture(1)[0, 0] == 255).all()


def test_a_left_hand_is_drawn_on_the_same_map(model) -> None:
    values = torch.rand(1, len(model.contact_points), generator=torch.Generator().manual_seed(0))
    right, left = (contact_texture(hand, field_of(values), 48) for hand in (model, model.mirrored()))
    np.testing.assert_allclose(left.mean, right.mean, atol=1e-5)


def test_other_hands_bring_their_own_map(model) -> None:
    other, field = replace(model, name="mano"), field_of(torch.zeros(1, len(model.contact_points)))
    with pytest.raises(ValueError, match="pass uv="):
        contact_texture(other, field)
    assert contact_texture(other, field, 16, open_hand_uv()).mean.shape == (1, 16, 32)
    with pytest.raises(ValueError, match="uv: must be finite"):
        contact_texture(model, field, 16, np.zeros((3, 3, 2)))
    with pytest.raises(ValueError, match="8 pixels"):
        contact_texture(model, field, 4)
