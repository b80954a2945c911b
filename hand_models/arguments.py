"""Arguments that users give as arrays of any kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_floats(name: str, value: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    """An array, tensor or list of real numbers as a tensor; raises ``ValueError`` that calls it ``name``."""
    try:
        tensor = torch.as_tensor(value if isinstance(value, Tensor) else np.asarray(value))
        if tensor.is_complex():
            raise TypeError("complex numbers")
        return tensor.detach().to(dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: not an array of numbers ({error}).") from None
