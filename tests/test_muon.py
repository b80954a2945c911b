"""Muon: orthogonal steps, as PyTorch's own makes them in bfloat16."""

from __future__ import annotations

import pytest
import torch

from contact.train.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)])
def test_an_orthogonalised_matrix_turns_as_the_matrix_does(shape):
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    u, values, vh = torch.linalg.svd(matrices, full_matrices=False)
    found = u.transpose(1, 2) @ orthogonalise(matrices) @ vh.transpose(1, 2)
    diagonal = torch.diagonal(found, dim1=1, dim2=2)
    torch.testing.assert_close(found, torch.diag_embed(diagonal), atol=1e-8, rtol=0)  # the same directions
    steep = values > 0.05 * values[:, :1]
    assert diagonal[steep].min() > 0.6  # of nearly one length
    assert diagonal.max() < 1.3


def test_a_zero_gradient_moves_nothing():
    assert (orthogonalise(torch.zeros(1, 8, 9)) == 0).all()


def test_steps_are_those_of_torch():
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(24, 40, generator=generator), torch.randn(40, 24, generator=generator)]
    ours, theirs = ([torch.nn.Parameter(p.clone()) for p in start] for _ in range(2))
    mine = Muon(ours, lr=0.02, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        mine.step()
        reference.step()
    for a, b, before in zip(ours, theirs, start, strict=True):
        moved = (b - before).norm()
        assert (a - b).norm() < 0.02 * moved  # bfloat16 rounds to 0.4 %


def test_a_parameter_without_gradient_stays():
    p = torch.nn.Parameter(torch.ones(8, 8))
    Muon([p], lr=1.0).step()
    assert (p == 1).all()
