"""`Record`: frozen dataclasses of tensors that are selected, joined, chosen between and moved as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

R = TypeVar("R", bound="Record")
D = TypeVar("D")
Index = int | slice | Sequence[int] | Tensor | np.ndarray


def as_index(index: Index) -> Any:
    """What selects rows ``index`` of a tensor; of an integer a batch of one."""
    if isinstance(index, int | np.integer) or getattr(index, "shape", None) == ():
        return [int(index)]  # type: ignore[arg-type]
    return list(index) if isinstance(index, Sequence) else index  # a tuple would select along several dimensions


def shared(**options: Any) -> Any:
    """A dataclass field that all rows of a `Record` have in common."""
    return field(metadata={"shared": True}, **options)


def move(value: D, *args: Any, **kwargs: Any) -> D:
    """The dataclass ``value`` with all its tensors moved or cast as ``torch.Tensor.to``; integers keep their type."""

    def one(member: Any) -> Any:
        if isinstance(member, Record):
            return member.to(*args, **kwargs)
        moved = member.to(*args, **kwargs)
        # Not through the floating type and back: half precision cannot hold indices above 2048.
        return moved if member.is_floating_point() else member.to(moved.device)

    members = {f.name: getattr(value, f.name) for f in fields(value)}  # type: ignore[arg-type]
    return replace(  # type: ignore[type-var]
        value, **{name: one(member) for name, member in members.items() if isinstance(member, Tensor | Record)}
    )


class Record:
    """Base of frozen dataclasses whose tensors hold one row for each of ``B`` problems.

    Rows are the first dimension of every field that is a tensor or itself a record; fields made by `shared`,
    and whatever is neither, are common to all rows. ``None`` stands for a field that is not there.
    """

    def _rows(self) -> dict[str, Any]:
        return {
            f.name: value
            for f in fields(self)  # type: ignore[arg-type]
            if "shared" not in f.metadata and isinstance(value := getattr(self, f.name), Tensor | Record)
        }

    def _with(self: R, values: dict[str, Any]) -> R:
        return replace(self, **values)  # type: ignore[type-var]

    def __len__(self) -> int:
        return len(next(iter(self._rows().values())))

    def map(self: R, function: Callable[[Tensor], Tensor]) -> R:
        """With ``function`` of every tensor of rows."""
        return self._with(
            {k: v.map(function) if isinstance(v, Record) else function(v) for k, v in self._rows().items()}
        )

    def __getitem__(self: R, index: Index) -> R:
        """Some of the rows; an integer keeps a batch of one."""
        rows = as_index(index)
        return self._with({name: value[rows] for name, value in self._rows().items()})

    @classmethod
    def cat(cls: type[R], parts: Sequence[R]) -> R:
        """Join rows; what they share is taken from the first. Raises ``ValueError`` when there are none."""
        if not parts:
            raise ValueError("parts: none given; join at least one batch.")
        if len(parts) == 1:
            return parts[0]
        joined = {}
        for name, first in parts[0]._rows().items():
            values = [getattr(part, name) for part in parts]
            joined[name] = type(first).cat(values) if isinstance(first, Record) else torch.cat(values)
        return parts[0]._with(joined)

    def where(self: R, mask: Tensor, other: R) -> R:
        """Row by row this one where ``mask (B,)`` holds, else ``other``."""

        def pick(mine: Any, theirs: Any) -> Any:
            if isinstance(mine, Record):
                return mine.where(mask, theirs)
            return torch.where(mask.view(-1, *[1] * (mine.ndim - 1)), mine, theirs)

        return self._with({name: pick(value, getattr(other, name)) for name, value in self._rows().items()})

    def fill(self: R, rows: Tensor, new: R) -> R:
        """With the rows ``rows (n,)`` replaced by those of ``new``."""

        def put(mine: Any, theirs: Any) -> Any:
            return mine.fill(rows, theirs) if isinstance(mine, Record) else mine.index_copy(0, rows, theirs)

        return self._with({name: put(value, getattr(new, name)) for name, value in self._rows().items()})

    def to(self: R, *args: Any, **kwargs: Any) -> R:
        """Move or cast every tensor, shared ones too, as ``torch.Tensor.to``; integers keep their type."""
        return move(self, *args, **kwargs)

    def detach(self: R) -> R:
        """Cut from the autograd graph."""
        return self.map(torch.Tensor.detach)

    def repeat_interleave(self: R, repeats: int) -> R:
        """Each row ``repeats`` times in a row."""
        return self.map(lambda t: t.repeat_interleave(repeats, 0))


class Common:
    """Base of frozen dataclasses that are the same for all problems: there are no rows to select or to count."""

    def __getitem__(self: D, index: Any) -> D:
        return self

    def to(self: D, *args: Any, **kwargs: Any) -> D:
        """Move or cast every tensor, as `Record.to`."""
        return move(self, *args, **kwargs)
