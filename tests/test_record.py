"""`Record`: the tensors of a dataclass selected, joined, chosen between and moved as one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from hand_models.record import Record, shared


@dataclass(frozen=True)
class Inner(Record):
    value: Tensor


@dataclass(frozen=True)
class Outer(Record):
    name: str
    rows: Tensor
    inner: Inner
    missing: Tensor | None = None
    radius: Tensor = shared(default_factory=lambda: torch.ones(2))
    ids: Tensor = shared(default_factory=lambda: torch.tensor([4097]))


def made(count: int, start: int = 0) -> Outer:
    values = torch.arange(start, start + count).float()
    return Outer("a", values[:, None].expand(-1, 3), Inner(values))


def test_rows_are_selected_together():
    record = made(5)
    assert len(record) == 5
    for index in (3, np.int64(3), torch.tensor(3), [3], (3,), slice(3, 4), torch.tensor([3])):
        part = record[index]
        assert part.rows.tolist() == [[3, 3, 3]]
        assert part.inner.value.tolist() == [3]
        assert part.radius is record.radius
        assert part.missing is None
    assert record[torch.tensor([True, False, True, False, False])].inner.value.tolist() == [0, 2]


def test_joining_undoes_selecting():
    record = made(5)
    again = Outer.cat([record[:2], record[2:]])
    assert torch.equal(again.rows, record.rows)
    assert torch.equal(again.inner.value, record.inner.value)
    with pytest.raises(ValueError, match="parts: none given"):
        Outer.cat([])


def test_choosing_and_replacing_agree():
    one, other = made(4), made(4, start=10)
    mask = torch.tensor([True, False, False, True])
    rows = (~mask).nonzero()[:, 0]
    chosen, filled = one.where(mask, other), one.fill(rows, other[rows])
    assert chosen.inner.value.tolist() == filled.inner.value.tolist() == [0, 11, 12, 3]
    assert torch.equal(chosen.rows, filled.rows)


def test_casting_reaches_shared_tensors_and_spares_integers():
    record = made(2).to(torch.float16)
    assert record.rows.dtype == record.inner.value.dtype == record.radius.dtype == torch.float16
    assert record.ids.tolist() == [4097]
