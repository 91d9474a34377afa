"""Large matrices times a few rows: the bits that transformers gets, sooner.

With guidance MusicGen takes its steps two rows at a time, and most of its time goes into
`x @ W.T`. MKL is quicker at `W @ x.T`, and for four rows adds up in the same order, under the
profile; so rows are filled up to four with zeros, which no other row's sum knows of. Measured on
one thread, two rows: 0.6 to 0.9 of the time within the bounds below, and more than all of it
outside them. Only where a matrix's height is no multiple of four do the bits differ.
"""

from typing import Any

import torch
from torch.nn.functional import pad

ROWS = 4
NARROW, WIDE = 512, 1536  # numbers in a row of a matrix


class FastLinear(torch.nn.Linear):  # type: ignore[misc]
    """A linear layer without bias that multiplies the other way round where that is quicker."""

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """`(…, in)` to `(…, out)`, contiguous."""
        rows = given.numel() // self.in_features
        if not (1 < rows <= ROWS and given.is_contiguous()):
            return super().forward(given)
        filled = pad(given.view(rows, -1), (0, 0, 0, ROWS - rows))
        product = torch.mm(self.weight, filled.t())[:, :rows]
        return product.t().contiguous().view(*given.shape[:-1], self.out_features)


def replace_linears(model: Any) -> None:
    """Turn all layers of a model for which it pays; plain float32 ones, and no subclass's."""
    for part in model.modules():
        if type(part) is torch.nn.Linear and fits(part):
            part.__class__ = FastLinear


def fits(layer: torch.nn.Linear) -> bool:
    """Whether a layer is one whose products are quicker turned, and equal."""
    high, wide = layer.weight.shape
    plain = layer.bias is None and layer.weight.dtype == torch.float32
    return plain and high % ROWS == 0 and NARROW <= wide <= min(high, WIDE)
