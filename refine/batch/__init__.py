"""Prediction files of any number and size through a refiner."""

from __future__ import annotations

from .run import Execution, FileOutcome, refine_files

__all__ = ["Execution", "FileOutcome", "refine_files"]
