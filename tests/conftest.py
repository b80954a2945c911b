"""Shared test set-up: two threads, fixed seeds, a grid cache of its own, the validation folder."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mano_file import write_mano

torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "2")))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same global seeds, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - seeds third-party code that draws from the global generator
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Distance grids are cached in a folder of this run, so that tests neither use nor leave user files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGRASP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def mano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a right hand of MANO's form; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("mano")
    write_mano(folder)
    return folder


@pytest.fixture(scope="session")
def validation_folder() -> Path:
    """Folder with `dexycb_val.npz` and `ycb/*.ply`: human grasps to measure with, never shipped."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "real"
    folder = Path(os.environ.get("REGRASP_REAL_DATA") or beside)
    if not (folder / "dexycb_val.npz").is_file():
        pytest.skip("the validation folder is absent (set REGRASP_REAL_DATA to it)")
    return folder
