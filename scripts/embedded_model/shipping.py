"""From a checkpoint to a model folder, in 16-bit numbers where those are enough."""

from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from transformers import EncodecFeatureExtractor

from executor.models.folders import DEFAULTS
from scripts.embedded_model import codec, cover, hearing, language, words
from scripts.embedded_model.percussion import SAMPLING_RATE
from scripts.embedded_model.tokenizer import tokenizer
from scripts.embedded_model.training import CHECKPOINT, WORDS

# What must be exact: the lengths of weight-normed rows, which cancel against their directions, and
# the LSTM's biases, which cancel against the codec's own.
EXACT: Final = ("original0", "bias")
WEIGHTS: Final = "model.safetensors"
MODELS: Final = dict(zip(("music", "piano"), DEFAULTS, strict=True))
UNSHIPPED: Final = (words.HEAD, hearing.HEAD)  # names that what only training needs begins with


def music(checkpoint: Path, folder: Path) -> None:
    """Write the text-to-music model: the codec as written, the language half as trained."""
    model = language.untrained(len(tokenizer()), codec.configuration()).eval()
    codec.write(model.audio_encoder)
    taken(model, checkpoint)
    model.generation_config = language.generation()
    model.save_pretrained(folder)
    shortened(folder / WEIGHTS)
    tokenizer().save_pretrained(folder)
    EncodecFeatureExtractor(
        feature_size=1, sampling_rate=SAMPLING_RATE, padding_side="left"
    ).save_pretrained(folder)


def piano(checkpoint: Path, folder: Path) -> None:
    """Write the cover model."""
    model = cover.untrained().eval()
    taken(model, checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    cover.save(model, folder)
    shortened(folder / WEIGHTS)


def taken(model: Any, checkpoint: Path) -> None:
    """Give a model a checkpoint's weights, and those learned before it in the folder `WORDS`.

    Raises `ValueError` for the weights of another model.
    """
    for path in (checkpoint.parent / WORDS / CHECKPOINT, checkpoint):
        if path == checkpoint or path.exists():
            weights = torch.load(path, map_location="cpu", weights_only=True)["model"]
            unknown = model.load_state_dict(weights, strict=False).unexpected_keys
            if any(not name.startswith(UNSHIPPED) for name in unknown):
                raise ValueError(f"{path} has weights of another model: {unknown}")


def shortened(path: Path) -> None:
    """Store a file's numbers in 16 bits, all but those that must be exact."""
    tensors = load_file(path)
    for name, tensor in tensors.items():
        exact = "audio_encoder" in name and any(part in name for part in EXACT)
        if tensor.dtype == torch.float32 and not exact:
            tensors[name] = tensor.half()
            if not torch.isfinite(tensors[name]).all():
                raise ValueError(f"{name} does not fit into 16 bits")
    save_file(tensors, path, metadata={"format": "pt"})
