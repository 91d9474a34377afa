"""Write a model folder from a checkpoint of `scripts/embed train`, except for the model card.

Usage: scripts/embed ship {music,piano} CHECKPOINT [FOLDER]
"""

import pickle
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from transformers import EncodecFeatureExtractor

from executor.models.folders import DEFAULTS, SHIPPED
from schemas.errors import HeliumError
from scripts import arguments, one_line
from scripts.models.common.train import CAPTION_STAGE, CHECKPOINT
from scripts.models.music.codec import codec_config, write_codec
from scripts.models.music.dataset import ATTRIBUTE_HEAD
from scripts.models.music.instruments import SAMPLING_RATE
from scripts.models.music.model import build_music_model, build_tokenizer, generation_config
from scripts.models.piano.model import ONSET_HEAD, build_piano_model, save_piano_model

# Parts of names of weights that stay float32. The lengths of weight-normed rows cancel against
# their directions, and the LSTM's biases against those of the codec.
FLOAT32_PARTS: Final = ("original0", "bias")
WEIGHTS: Final = "model.safetensors"
MODELS: Final = dict(zip(("music", "piano"), DEFAULTS, strict=True))
# Prefixes of parameters that only training needs.
TRAINING_ONLY: Final = (ATTRIBUTE_HEAD, ONSET_HEAD)


class NotACheckpoint(HeliumError):
    """The file is no checkpoint, or one of another model."""


def export_music(checkpoint: Path, folder: Path) -> None:
    """Write the music model's folder: the codec's computed weights and the trained rest."""
    model = build_music_model(len(build_tokenizer()), codec_config()).eval()
    write_codec(model.audio_encoder)
    load_weights(model, checkpoint)
    model.generation_config = generation_config()
    model.save_pretrained(folder)
    _store_float16(folder / WEIGHTS)
    build_tokenizer().save_pretrained(folder)
    EncodecFeatureExtractor(
        feature_size=1, sampling_rate=SAMPLING_RATE, padding_side="left"
    ).save_pretrained(folder)


def export_piano(checkpoint: Path, folder: Path) -> None:
    """Write the piano model's folder."""
    model = build_piano_model().eval()
    load_weights(model, checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    save_piano_model(model, folder)
    _store_float16(folder / WEIGHTS)


def load_weights(model: Any, checkpoint: Path) -> None:
    """Load the weights of a checkpoint and of its first stage into a model.

    Raises NotACheckpoint, also if the weights are of another model.
    """
    for path in (checkpoint.parent / CAPTION_STAGE / CHECKPOINT, checkpoint):
        if path == checkpoint or path.exists():
            try:
                weights = torch.load(path, map_location="cpu", weights_only=True)["model"]
            except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError):
                raise NotACheckpoint(f"{path} is none of scripts/embed train") from None
            try:
                unexpected = model.load_state_dict(weights, strict=False).unexpected_keys
            except (RuntimeError, TypeError) as error:  # other shapes; no weights at all
                raise NotACheckpoint(f"{path} has weights of another model: {error}") from None
            if any(not name.startswith(TRAINING_ONLY) for name in unexpected):
                raise NotACheckpoint(f"{path} has weights of another model: {unexpected}")


def _store_float16(path: Path) -> None:
    """Convert a file's weights to float16, except for those that must be exact."""
    tensors = load_file(path)
    for name, tensor in tensors.items():
        keep_float32 = "audio_encoder" in name and any(part in name for part in FLOAT32_PARTS)
        if tensor.dtype == torch.float32 and not keep_float32:
            tensors[name] = tensor.half()
            if not torch.isfinite(tensors[name]).all():
                raise ValueError(f"{name} does not fit into 16 bits")
    save_file(tensors, path, metadata={"format": "pt"})


def main() -> None:
    assert __doc__
    parser = arguments.Parser("scripts/embed ship", __doc__.split("\n")[0])
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=arguments.file)
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        type=arguments.new_folder,
        help="default: the model's place in executor/shipped",
    )
    options = parser.parse_args()
    folder = options.folder or SHIPPED / MODELS[options.model]
    try:
        {"music": export_music, "piano": export_piano}[options.model](options.checkpoint, folder)
    except NotACheckpoint as error:
        parser.error(f"CHECKPOINT: {error}")
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size:>9}  {path.name}")


if __name__ == "__main__":
    one_line.run(main)
