"""GELU in its tanh form, with the slope computed beside the value."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def gelu_tanh(hidden: Tensor) -> Tensor:
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) (Hendrycks and Gimpel 2016, section 2)."""
    return F.gelu(hidden, approximate="tanh")
