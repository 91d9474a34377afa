"""Load a checked model folder: the model, its tokenizer or processor, its vocoder.

The weights must be exactly those of the architecture, and nothing outside the folder is read. What
each family needs is in `families`.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

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
from executor.errors import ModelRefused, TaskFailed, describe_error, is_memory_error
from executor.models.config import describe, own_dtype
from executor.models.families import FAMILIES, Family, refusal
from executor.models.file_checks import VOCODER
from executor.models.json_files import configuration
from executor.tasks.arguments import use_floats
from executor.tasks.fast_linear import replace_linears
from protocol.model_limits import objection
from schemas.errors import HeliumError

LOCAL_ONLY: Mapping[str, bool] = MappingProxyType(
    {"local_files_only": True, "trust_remote_code": False}
)
VOCODERS: Mapping[str, Any] = MappingProxyType(
    {"speecht5": SpeechT5HifiGan, "fastspeech2_conformer": FastSpeech2ConformerHifiGan}
)
# A matrix fits 4 bits if its out and in features are multiples of these. The CPU kernels of
# bitsandbytes need that, where a CPU has them; it is checked everywhere, so that a class agrees.
BLOCKS = (32, 64)
# Settings of a tokenizer that fetch or run programs which no compute class has.
FOREIGN_TEXT = (("phonemize", "phonemizer and espeak"), ("is_uroman", "uroman"))


@dataclass(frozen=True, slots=True)
class LoadedPipeline:
    """A model in memory.

    `defaults` are its generation settings, None if it has none. `parts` has each part of the model
    with a copy of its settings as loaded. Generate of several models writes into the settings, and
    would change the next task; `restore_settings` undoes that.
    """

    pipeline: Any
    family: Family
    defaults: Any
    parts: tuple[tuple[Any, Any], ...]

    def restore_settings(self) -> None:
        """Give every part a copy of the settings that it was loaded with."""
        for part, defaults in self.parts:
            part.generation_config = copy.deepcopy(defaults)


def load(
    folder: Path, dtype: str, bits: int | None, device: profile.Device = "cpu"
) -> LoadedPipeline:
    """Load a checked model folder. `dtype` is a torch name or "auto"; `bits` is 4, 8 or None.

    Raises `ModelRefused` for what transformers cannot load, or not completely, and
    `TaskFailed("generation-rejected")` for a precision that models of its family do not compute in.
    """
    config = configuration(folder, "config.json")
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        raise ModelRefused(refusal(config.get("model_type")))
    precision = own_dtype(config) if dtype == "auto" else dtype
    args = {"dtype": precision, "quantize_bits": bits}
    if problem := objection(family.capabilities, args):
        raise TaskFailed("generation-rejected", problem)
    try:
        pipeline = build_pipeline(folder, family, getattr(torch, precision), bits, device)
    except BaseException as error:
        raise_as_refusal(error)
    # Measured for plain layers on the CPU only; quantised layers have products of their own.
    if device == "cpu" and bits is None:
        replace_linears(pipeline.model)
    defaults = copy.deepcopy(getattr(pipeline.model, "generation_config", None))
    return LoadedPipeline(pipeline, family, defaults, tuple(part_settings(pipeline.model)))


def raise_as_refusal(error: BaseException) -> NoReturn:
    """Raise what a library raised while loading as `ModelRefused`, whatever its type is.

    Too little memory, what ends the process and this program's own errors are raised as they are.
    An `OSError` is a file of the model that is not there or not as it should be.
    """
    if isinstance(error, HeliumError | KeyboardInterrupt | SystemExit | GeneratorExit):
        raise error
    if is_memory_error(error):
        raise error
    raise ModelRefused(f"it does not load: {describe_error(error)}") from error


def build_pipeline(
    folder: Path, family: Family, precision: torch.dtype, bits: int | None, device: profile.Device
) -> Any:
    """Return the pipeline around the model, with a vocoder if its family has one."""
    vocoder_config = configuration(folder / VOCODER, "config.json")
    config = configuration(folder, "config.json")
    rate = describe(config, {}, vocoder_config).get("sampling_rate")
    vocoder = load_vocoder(folder, family, precision) if family.vocoder else None
    if vocoder is not None:
        vocoder.config.sampling_rate = rate  # the pipeline reads it there; some do not have it
        vocoder.to(device)
    model = load_weights(folder, family, precision, bits)
    if bits == 4:
        require_blocks(model)
    tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL_ONLY)
    for setting, programs in FOREIGN_TEXT:
        if getattr(tokenizer, setting, False):
            raise ModelRefused(f"its tokenizer sets {setting}: that takes {programs}")
    processor = AutoProcessor.from_pretrained(folder, **LOCAL_ONLY) if family.processor else None
    return TextToAudioPipeline(
        model=model,
        tokenizer=tokenizer,
        processor=processor,
        vocoder=vocoder,
        sampling_rate=rate,
        device=torch.device(device),
    )


def load_weights(folder: Path, family: Family, precision: torch.dtype, bits: int | None) -> Any:
    """Return the model in evaluation mode. Raises `ModelRefused` for weights that do not fit."""
    auto_model = AutoModelForTextToSpectrogram if family.vocoder else AutoModelForTextToWaveform
    return complete(
        auto_model.from_pretrained(
            folder,
            dtype=precision,
            use_safetensors=True,
            output_loading_info=True,
            attn_implementation=dict(profile.ATTENTION),
            **quantization(precision, bits),
            **LOCAL_ONLY,
        )
    )


def load_vocoder(folder: Path, family: Family, precision: torch.dtype) -> Any:
    """Return the vocoder of a model that makes spectrograms. Raises `ModelRefused` without one."""
    vocoder_folder = folder / VOCODER
    if not (vocoder_folder / "config.json").exists():
        raise ModelRefused(
            f"{family.name} makes spectrograms: its vocoder, a HiFi-GAN, must be in the model's "
            f"folder as {VOCODER}/config.json and {VOCODER}/model.safetensors"
        )
    return complete(
        VOCODERS[family.name].from_pretrained(
            vocoder_folder,
            dtype=precision,
            use_safetensors=True,
            output_loading_info=True,
            **LOCAL_ONLY,
        )
    )


def complete(loaded: tuple[Any, Mapping[str, Any]]) -> Any:
    """Return the model of `from_pretrained`'s model and report, in evaluation mode.

    Raises `ModelRefused` unless the weights are exactly those of the architecture, because
    transformers silently fills a missing tensor with random numbers.
    """
    model, report = loaded
    if problems := {key: sorted(map(str, keys)) for key, keys in report.items() if keys}:
        raise ModelRefused(f"the weights do not fit the architecture: {problems}")
    for part in model.modules():
        use_floats(part.__dict__.get("generation_config"))
    return model.eval()


def quantization(precision: torch.dtype, bits: int | None) -> dict[str, object]:
    """Return the loader's arguments for 4 or 8 bits; none for None."""
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


def require_blocks(model: Any) -> None:
    """Raise `TaskFailed` for a model with a matrix that 4 bits do not fit."""
    for name, part in model.named_modules():
        if type(part).__name__ != "Linear4bit":
            continue
        if not has_whole_blocks(part.out_features, part.in_features):
            shape = f"{part.out_features} × {part.in_features}"
            multiple = f"{BLOCKS[0]} × {BLOCKS[1]}"
            raise TaskFailed(
                "generation-rejected",
                f"args.quantize_bits: {name} is {shape}, no multiple of {multiple}",
            )


def has_whole_blocks(out_features: int, in_features: int) -> bool:
    """Return whether a matrix can be quantised to 4 bits."""
    return out_features % BLOCKS[0] == 0 and in_features % BLOCKS[1] == 0


def part_settings(model: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each part with generation settings, the model itself included, and a copy of them."""
    for part in model.modules():
        # Not getattr: a part without settings of its own would return those of its class.
        defaults = part.__dict__.get("generation_config")
        if defaults is not None:
            yield part, copy.deepcopy(defaults)
