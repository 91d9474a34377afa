"""Faster products of large matrices with a few rows, bit for bit those of `torch.nn.Linear`.

With guidance, MusicGen computes its steps two rows at a time, and `x @ W.T` takes most of the time.
MKL computes `W @ x.T` faster. For four rows it sums in the same order under the numeric profile, so
the rows are padded to four with zeros, which change no other row's sums. Measured on one thread
with two rows, it takes 0.6 to 0.9 of the time within the bounds below, and more outside them. The
bits differ only where a matrix's number of outputs is no multiple of four.
"""

from typing import Any

import torch
from torch.nn.functional import pad

ROWS = 4
# Inputs of the layers for which it pays.
MIN_INPUTS, MAX_INPUTS = 512, 1536


class FastLinear(torch.nn.Linear):  # type: ignore[misc]
    """A linear layer without bias that computes `W @ x.T` for two to four rows."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map `(…, in)` to `(…, out)`, contiguous."""
        rows = inputs.numel() // self.in_features
        if not (1 < rows <= ROWS and inputs.is_contiguous()):
            return super().forward(inputs)
        padded = pad(inputs.view(rows, -1), (0, 0, 0, ROWS - rows))
        product = torch.mm(self.weight, padded.t())[:, :rows]
        return product.t().contiguous().view(*inputs.shape[:-1], self.out_features)


def replace_linears(model: Any) -> None:
    """Make each layer that `fits` a `FastLinear`; layers of a subclass stay as they are."""
    for part in model.modules():
        if type(part) is torch.nn.Linear and fits(part):
            part.__class__ = FastLinear


def fits(layer: torch.nn.Linear) -> bool:
    """Return whether a layer is faster as a `FastLinear`, with equal bits."""
    outputs, inputs = layer.weight.shape
    is_plain = layer.bias is None and layer.weight.dtype == torch.float32
    return is_plain and outputs % ROWS == 0 and MIN_INPUTS <= inputs <= min(outputs, MAX_INPUTS)
