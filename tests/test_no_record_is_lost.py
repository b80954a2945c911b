"""One damaged record of many: the file is refused by one of our errors, or has as many rows as it had records."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from record_forms import Form, content, forms, mano_read_once, reads, with_damage

from hand_models import MissingManoError
from refine.files.predictions import row_problems

OUR_ERRORS = (ValueError, FileNotFoundError, MissingManoError)
NAMES = (
    "hamer, hands", "hamer, frames", "hamer, images", "mediapipe, tasks", "mediapipe, legacy", "joints, records",
    "joints, arrays", "pose48", "interhand", "oakink2", "hot3d", "fhab, fits", "hawor", "contactopt", "grasp",
)  # fmt: skip
ODD = [
    True, -1, 10**30, float("nan"), "", "x" * 300, "../../etc/passwd", [1, 2], [[1, 2], [3]], {"a": 1}, [0.0] * 45,
    [0.0] * 48, [[[0.0] * 3] * 21], np.zeros(0), np.zeros((0, 3)), np.zeros((2, 3, 4)), np.full(3, np.nan),
    np.full((1, 48), np.inf), np.array(["a", "b"]), np.ones((3, 3), bool), 1 + 2j, [float("nan")] * 3, [1e308] * 3,
]  # fmt: skip


@pytest.fixture(scope="module")
def all_forms(tmp_path_factory) -> Iterator[dict[str, Form]]:
    """The forms; MANO is read once, since it is not what is damaged."""
    with mano_read_once():
        yield forms(tmp_path_factory.mktemp("forms"))


def check(form: Form, raw: bytes, folder: Path) -> str:
    """Read a file: "read", "partly" (some rows are reported), or the kind of our error."""
    path = folder / f"file{form.suffix}"
    path.write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            rows = reads(form)(path)
        except OUR_ERRORS as error:
            unforeseen = error.__cause__ is not None and not isinstance(error.__cause__, OUR_ERRORS)
            return f"nobody thought of {error.__cause__!r}" if unforeseen else type(error).__name__
    assert len(rows) == form.rows
    placed = replace(rows, object_id=np.full(len(rows), "mug"), object_pose=None)
    return "partly" if row_problems(placed) else "read"


@pytest.mark.parametrize("name", NAMES)
def test_the_forms_are_valid(all_forms, tmp_path, name):
    assert set(all_forms) == set(NAMES)
    assert check(all_forms[name], content(all_forms[name], all_forms[name].tree), tmp_path) == "read"


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_record_is_reported(all_forms, tmp_path, name):
    form, rng, kinds = all_forms[name], np.random.default_rng(NAMES.index(name)), []
    for _ in range(12):
        tree = with_damage(form, rng, copy.deepcopy(ODD[int(rng.integers(len(ODD)))]))
        try:
            damaged = content(form, tree)
        except ValueError:  # numpy cannot write it
            continue
        kinds.append(check(form, damaged, tmp_path))
    assert len(kinds) >= 6
    assert not [kind for kind in kinds if kind.startswith("nobody")]
    assert set(kinds) - {"read"}
