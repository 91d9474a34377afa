"""A checked model folder in memory: the model, what turns text into its input, its vocoder.

The weights must be exactly what the architecture wants, and nothing is looked for outside the
folder. What a family wants besides is in `families`.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import (
    AutoModelForTextToSpectrogram,
    AutoModelForTextToWaveform,
    AutoProcessor,
    AutoTokenizer,
    BitsAndBytesConfig,
    FastSpeech2ConformerHifiGan,
    SpeechT5HifiGan,
    TextToAudioPipeline,
)

from executor.determinism import profile
from executor.errors import ModelRefused, TaskFailed, is_memory_error
from executor.models.config import describe, own_dtype
from executor.models.families import FAMILIES, Family, objection, refusal
from executor.models.file_checks import VOCODER, configuration
from executor.tasks.fast_linear import replace_linears

LOCAL: Mapping[str, bool] = MappingProxyType({"local_files_only": True, "trust_remote_code": False})
VOCODERS: Mapping[str, Any] = MappingProxyType(
    {"speecht5": SpeechT5HifiGan, "fastspeech2_conformer": FastSpeech2ConformerHifiGan}
)
# What transformers makes of a configuration or weights that it cannot use.
UNLOADABLE = (
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
# The CPU kernels of bitsandbytes for 4 bits, where a CPU has them, want whole blocks: of a matrix's
# (out, in) features. Demanded everywhere, so that all members of a class come to the same.
BLOCKS = (32, 64)
# What a tokenizer may want beyond the class's libraries: it would fetch or run things of its own.
FOREIGN_TEXT = (("phonemize", "phonemizer and espeak"), ("is_uroman", "uroman"))


@dataclass(frozen=True, slots=True)
class LoadedPipeline:
    """A model in memory.

    `own` are its generation settings, None if it has none; `parts` those of each part that has any,
    as loaded. Several models' generate writes into them, and so into the next task: `fresh` undoes
    it.
    """

    pipeline: Any
    family: Family
    own: Any
    parts: tuple[tuple[Any, Any], ...]

    def fresh(self) -> None:
        """Give every part a copy of the settings with which it was loaded."""
        for part, own in self.parts:
            part.generation_config = copy.deepcopy(own)


def load(
    folder: Path, dtype: str, bits: int | None, device: profile.Device = "cpu"
) -> LoadedPipeline:
    """Load a checked model folder. `dtype` is a name of torch's or "auto"; `bits` 4, 8 or None.

    Raises `ModelRefused` for what transformers cannot load, or not completely, and
    `TaskFailed("generation-rejected")` for a precision that models of its family do not compute in.
    """
    config = configuration(folder, "config.json")
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        raise ModelRefused(refusal(config.get("model_type")))
    precision = own_dtype(config) if dtype == "auto" else dtype
    if why := objection(family, {"dtype": precision, "quantize_bits": bits}):
        raise TaskFailed("generation-rejected", why)
    try:
        pipeline = assembled(folder, family, getattr(torch, precision), bits, device)
    except UNLOADABLE as error:
        if is_memory_error(error):
            raise
        raise ModelRefused(f"{type(error).__name__}: {error}") from error
    if device == "cpu" and bits is None:
        replace_linears(pipeline.model)
    own = copy.deepcopy(getattr(pipeline.model, "generation_config", None))
    return LoadedPipeline(pipeline, family, own, tuple(settings(pipeline.model)))


def assembled(
    folder: Path, family: Family, precision: torch.dtype, bits: int | None, device: profile.Device
) -> Any:
    """The pipeline around the model, with its vocoder if it is of a family that wants one."""
    half = configuration(folder / VOCODER, "config.json")
    rate = describe(configuration(folder, "config.json"), {}, half).get("sampling_rate")
    voice = vocoder(folder, family, precision) if family.vocoder else None
    if voice is not None:
        voice.config.sampling_rate = rate  # where the pipeline looks; not all of them say it
        voice.to(device)
    model = load_weights(folder, family, precision, bits)
    if bits == 4:
        demand_blocks(model)
    tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
    for setting, wanted in FOREIGN_TEXT:
        if getattr(tokenizer, setting, False):
            raise ModelRefused(f"its tokenizer sets {setting}: that takes {wanted}")
    processor = AutoProcessor.from_pretrained(folder, **LOCAL) if family.processor else None
    return TextToAudioPipeline(
        model=model,
        tokenizer=tokenizer,
        processor=processor,
        vocoder=voice,
        sampling_rate=rate,
        device=torch.device(device),
    )


def load_weights(folder: Path, family: Family, precision: torch.dtype, bits: int | None) -> Any:
    """The model itself, in evaluation mode. Raises `ModelRefused` for weights that do not fit."""
    kind = AutoModelForTextToSpectrogram if family.vocoder else AutoModelForTextToWaveform
    return complete(
        kind.from_pretrained(
            folder,
            dtype=precision,
            use_safetensors=True,
            output_loading_info=True,
            attn_implementation=dict(profile.ATTENTION),
            **quantization(precision, bits),
            **LOCAL,
        )
    )


def vocoder(folder: Path, family: Family, precision: torch.dtype) -> Any:
    """The other half of a model that makes spectrograms. Raises `ModelRefused` if it is missing."""
    half = folder / VOCODER
    if not (half / "config.json").exists():
        raise ModelRefused(
            f"{family.name} makes spectrograms: its vocoder, a HiFi-GAN, must be in the model's "
            f"folder as {VOCODER}/config.json and {VOCODER}/model.safetensors"
        )
    return complete(
        VOCODERS[family.name].from_pretrained(
            half, dtype=precision, use_safetensors=True, output_loading_info=True, **LOCAL
        )
    )


def complete(loaded: tuple[Any, Mapping[str, Any]]) -> Any:
    """The model of a loading report, in evaluation mode.

    Raises `ModelRefused` unless the weights are exactly what the architecture wants: transformers
    fills a missing tensor with random numbers without a word.
    """
    model, report = loaded
    if wrong := {key: sorted(map(str, keys)) for key, keys in report.items() if keys}:
        raise ModelRefused(f"the weights do not fit the architecture: {wrong}")
    return model.eval()


def quantization(precision: torch.dtype, bits: int | None) -> dict[str, object]:
    """The loader's arguments for 4 or 8 bits; none for None."""
    if bits is None:
        return {}
    if bits == 8:
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=profile.FOUR_BIT,
            bnb_4bit_compute_dtype=precision,
        )
    }


def demand_blocks(model: Any) -> None:
    """Raise `TaskFailed` for a model whose matrices 4 bits do not fit."""
    for name, part in model.named_modules():
        if type(part).__name__ == "Linear4bit" and not whole(part.out_features, part.in_features):
            shape = f"{part.out_features} × {part.in_features}"
            why = f"args.quantize_bits: {name} is {shape}, no multiple of {BLOCKS[0]} × {BLOCKS[1]}"
            raise TaskFailed("generation-rejected", why)


def whole(out_features: int, in_features: int) -> bool:
    """Whether a matrix can be quantised to 4 bits."""
    return out_features % BLOCKS[0] == 0 and in_features % BLOCKS[1] == 0


def settings(model: Any) -> Iterator[tuple[Any, Any]]:
    """Each part of a model that has generation settings, the whole too, with a copy of them."""
    for part in model.modules():
        own = part.__dict__.get("generation_config")
        if own is not None:
            yield part, copy.deepcopy(own)
