"""Rotations against scipy and finite differences, at generic angles and where the formulas turn over."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from hand_models.rotations import exp_so3, left_jacobian, log_so3, mirror_axis_angle, skew

# Zero, both sides of every switch between series and closed form, and the neighbourhood of a half turn.
ANGLES = (0.0, 1e-12, 1e-8, 9.9e-5, 1.01e-4, 1e-3, 0.02, 0.0999, 0.1001, 1.0, 2.5, math.pi - 1e-3, math.pi - 1e-7)
BEYOND = (math.pi, 4.0, 2 * math.pi + 0.1)


def axes(count: int = 40) -> Tensor:
    """Unit vectors, the coordinate axes among them."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(count - 6, 3, generator=generator, dtype=torch.float64)
    drawn = drawn / drawn.norm(dim=1, keepdim=True)
    return torch.cat([torch.eye(3, dtype=torch.float64), -torch.eye(3, dtype=torch.float64), drawn])


def vectors(limit: float = 10.0) -> st.SearchStrategy[Tensor]:
    number = st.floats(-limit, limit, allow_nan=False)
    return st.tuples(number, number, number).map(lambda v: torch.tensor(v, dtype=torch.float64))


def close(actual: Tensor, expected: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


@pytest.mark.parametrize("angle", ANGLES + BEYOND)
def test_exp_is_scipys(angle: float) -> None:
    aa = angle * axes()
    expected = torch.from_numpy(Rotation.from_rotvec(aa.numpy()).as_matrix())
    close(exp_so3(aa), expected)
    assert (exp_so3(aa.float()).double() - expected).abs().max() < 1.5e-6


@pytest.mark.parametrize("angle", ANGLES)
def test_log_undoes_exp(angle: float) -> None:
    aa = angle * axes()
    close(log_so3(exp_so3(aa)), aa, atol=1e-9 if angle > 3 else 1e-12)
    if angle < math.pi - 1e-5:  # nearer to it, rounding to single precision may pass a half turn
        assert (log_so3(exp_so3(aa.float())).double() - aa).abs().max() < 3e-6


@pytest.mark.parametrize("angle", [*ANGLES, math.pi])
def test_log_is_scipys(angle: float) -> None:
    matrix = Rotation.from_rotvec(angle * axes().numpy()).as_matrix()
    ours, theirs = (log_so3(torch.from_numpy(matrix)), torch.from_numpy(Rotation.from_matrix(matrix).as_rotvec()))
    if angle == math.pi:  # either axis of a half turn will do
        theirs = theirs * (ours * theirs).sum(1, keepdim=True).sign()
    close(ours, theirs, atol=1e-8)


def test_log_stays_within_half_a_turn() -> None:
    matrix = torch.from_numpy(Rotation.random(2000, random_state=np.random.RandomState(0)).as_matrix())
    aa = log_so3(matrix)
    assert aa.norm(dim=1).max() <= math.pi + 1e-12
    close(exp_so3(aa), matrix)
    wound = log_so3(exp_so3(5.0 * axes()))
    close(wound, (5.0 - 2 * math.pi) * axes())


@pytest.mark.parametrize("angle", ANGLES)
def test_left_jacobian_is_the_derivative_of_exp(angle: float) -> None:
    aa, step = angle * axes(), 1e-5
    columns = []
    for direction in torch.eye(3, dtype=torch.float64):
        forward, back = (exp_so3(aa + sign * step * direction) for sign in (1, -1))
        columns.append(log_so3(forward @ back.transpose(1, 2)) / (2 * step))
    close(left_jacobian(aa), torch.stack(columns, -1), atol=3e-9)


@pytest.mark.parametrize("angle", [0.0, 1.01e-4, 3e-4, 1e-3, 0.01, 0.1, 0.3, 1.0, 3.0])
def test_single_precision_is_enough(angle: float) -> None:
    """The closed forms cancel at small angles; single precision must not notice."""
    aa = (angle * axes()).float()
    for function in (exp_so3, left_jacobian):
        assert (function(aa).double() - function(aa.double())).abs().max() < 1e-6


@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.05, 0.5, 2.0])
def test_derivatives_exist(angle: float) -> None:
    """By autograd against finite differences, at zero too, where quotients are 0 / 0."""
    aa = (angle * axes(8)).requires_grad_()
    assert torch.autograd.gradcheck(exp_so3, aa, atol=1e-7)
    assert torch.autograd.gradcheck(left_jacobian, aa, atol=1e-7)
    assert torch.autograd.gradcheck(lambda v: log_so3(exp_so3(v)), aa, atol=1e-7)
    back = torch.autograd.functional.jacobian(lambda v: log_so3(exp_so3(v)).sum(0), aa.detach())
    close(back, torch.eye(3, dtype=torch.float64)[:, None].expand(3, len(aa), 3), atol=1e-7)


def test_skew_is_the_cross_product() -> None:
    v, x = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    close((skew(v) @ x[..., None])[..., 0], torch.linalg.cross(v, x))


@given(vectors(), vectors())
@settings(max_examples=100, deadline=None)
def test_group(a: Tensor, b: Tensor) -> None:
    """Rotations are closed under product, inverse is transpose, and log picks one vector per rotation."""
    first, second = exp_so3(a), exp_so3(b)
    product = first @ second
    close(product @ product.T, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(product) > 0.5
    close(exp_so3(-a), first.T)
    close(exp_so3(log_so3(product)), product)
    close(first @ exp_so3(b) @ first.T, exp_so3(first @ b))  # adjoint


@given(vectors(3.0))
@settings(max_examples=100, deadline=None)
def test_left_jacobian_identities(a: Tensor) -> None:
    jacobian = left_jacobian(a)
    close(jacobian @ a, a)  # the axis does not turn
    close(jacobian, exp_so3(a) @ left_jacobian(-a))
    close(exp_so3(a) - torch.eye(3, dtype=torch.float64), skew(a) @ jacobian)


@given(vectors())
@settings(max_examples=50, deadline=None)
def test_mirror(a: Tensor) -> None:
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    close(exp_so3(mirror_axis_angle(a)), mirror @ exp_so3(a) @ mirror)
    close(mirror_axis_angle(mirror_axis_angle(a)), a, atol=0)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 5, 3), (0, 3)])
def test_batch_dimensions(shape: tuple[int, ...]) -> None:
    aa = torch.randn(shape, dtype=torch.float64)
    matrix = exp_so3(aa)
    assert matrix.shape == left_jacobian(aa).shape == (*shape, 3)
    close(log_so3(matrix), log_so3(matrix.reshape(-1, 3, 3)).reshape(shape))
    assert log_so3(matrix).shape == shape
    close(matrix.reshape(-1, 3, 3), exp_so3(aa.reshape(-1, 3)))
