"""Weights without training: the same on every machine."""

import random
from typing import Any

import torch


def fill(model: Any, seed: int) -> None:
    """Draw every matrix of `model` anew, uniform with the variance 1 / inputs; vectors stay.

    Python's Mersenne Twister and one multiplication are exact everywhere; torch's own
    initialisation is not.
    """
    draws = random.Random(seed)
    for parameter in model.parameters():
        if parameter.dim() < 2:
            continue
        scale = (12 / parameter[0].numel()) ** 0.5
        values = [scale * (draws.random() - 0.5) for _ in range(parameter.numel())]
        parameter.data = torch.tensor(values).reshape(parameter.shape)
