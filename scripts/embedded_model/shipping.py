"""From a checkpoint to a model folder, in 16-bit numbers where those are enough."""

from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from transformers import EncodecFeatureExtractor

from embedded_model import codec, language
from embedded_model.percussion import SAMPLING_RATE
from embedded_model.tokenizer import tokenizer

# What must be exact: the lengths of weight-normed rows, which cancel against their directions, and
# the LSTM's biases, which cancel against the codec's own.
EXACT: Final = ("original0", "bias")
WEIGHTS: Final = "model.safetensors"


def model(checkpoint: Path | None) -> Any:
    """The whole model: the codec as written, the language half of a checkpoint, or untrained."""
    torch.manual_seed(0)
    made = language.untrained(len(tokenizer()), codec.configuration()).eval()
    codec.write(made.audio_encoder)
    if checkpoint:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        unexpected = made.load_state_dict(state["model"], strict=False).unexpected_keys
        if unexpected:
            raise ValueError(f"{checkpoint} has weights of another model: {unexpected}")
    return made


def ship(checkpoint: Path | None, folder: Path) -> None:
    """Write the model folder, all but its card."""
    made = model(checkpoint)
    made.generation_config = language.generation()
    made.save_pretrained(folder)
    shortened(folder / WEIGHTS)
    tokenizer().save_pretrained(folder)
    EncodecFeatureExtractor(
        feature_size=1, sampling_rate=SAMPLING_RATE, padding_side="left"
    ).save_pretrained(folder)


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


def listing(folder: Path) -> str:
    """The folder's files and sizes, one a line."""
    return "\n".join(f"{p.stat().st_size:>9}  {p.name}" for p in sorted(folder.iterdir()))


