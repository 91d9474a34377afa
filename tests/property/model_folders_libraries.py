"""What the examination of a model folder imports; the parent of all its processes does it once."""

import torch

from executor.tasks import pop2piano, text_to_music
from tests.property import model_folders

__all__ = ["model_folders", "pop2piano", "text_to_music"]

torch.set_num_threads(1)
