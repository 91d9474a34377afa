"""Load a checked model folder: the model, its tokenizer or processor, its vocoder.

The weights must be exactly those of the architecture, and nothing outside the folder is read. What
each family needs is in `families`.
"""

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForTextToSpectrogram,
    AutoModelForTextToWaveform,
    AutoProcessor,
    AutoTokenizer,
    BitsAndBytesConfig,
    FastSpeech2ConformerHifiGan,
    GenerationConfig,
    SpeechT5HifiGan,
    TextToAudioPipeline,
)

from executor.determinism import profile
from executor.errors import ModelRefused, TaskFailed, describe_error, is_memory_error
from executor.models.config import describe, own_dtype
from executor.models.families import FAMILIES, Family, refusal
from executor.models.file_checks import VOCODER, loadable_files
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
        raise ModelRefused(f"config.json: {refusal(config.get('model_type'))}")
    precision = own_dtype(config) if dtype == "auto" else dtype
    args = {"dtype": precision, "quantize_bits": bits}
    if problem := objection(family.capabilities, args):
        raise TaskFailed("generation-rejected", problem)
    pipeline = build_pipeline(folder, family, getattr(torch, precision), bits, device)
    # Measured for plain layers on the CPU only; quantised layers have products of their own.
    if device == "cpu" and bits is None:
        replace_linears(pipeline.model)
    defaults = copy.deepcopy(getattr(pipeline.model, "generation_config", None))
    return LoadedPipeline(pipeline, family, defaults, tuple(part_settings(pipeline.model)))


@contextmanager
def refusing(files: str) -> Iterator[None]:
    """Raise what a library raises while it reads `files` as `ModelRefused`, whatever its type is.

    Too little memory, what ends the process and this program's own errors are raised as they are.
    An `OSError` is a file of the model that is not there or not as it should be.
    """
    try:
        yield
    except (HeliumError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # panics of libraries in Rust too
        if is_memory_error(error):
            raise
        raise ModelRefused(f"{files} cannot be loaded: {describe_error(error)}") from error


def files_named(folder: Path, *starts: str) -> str:
    """Return the files of a folder whose names start so, as a text; the first start if none do."""
    names = [path.name for path in loadable_files(folder) if path.parent == folder]
    return " or ".join([name for name in names if name.startswith(starts)] or [f"{starts[0]}.json"])


def check_configurations(folder: Path) -> None:
    """Raise `ModelRefused` for a configuration or settings that transformers cannot read."""
    with refusing("config.json"):
        AutoConfig.from_pretrained(folder, **LOCAL_ONLY)
    if (folder / "generation_config.json").exists():
        with refusing("generation_config.json"):
            GenerationConfig.from_pretrained(folder, local_files_only=True)


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
    tokenizer = load_tokenizer(folder)
    processor = load_processor(folder) if family.processor else None
    with refusing("config.json"):
        return TextToAudioPipeline(
            model=model,
            tokenizer=tokenizer,
            processor=processor,
            vocoder=vocoder,
            sampling_rate=rate,
            device=torch.device(device),
        )


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer. Raises `ModelRefused`, also for one that runs programs."""
    with refusing(files_named(folder, "tokenizer", "vocab", "spiece", "special_tokens", "added")):
        tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL_ONLY)
    for setting, programs in FOREIGN_TEXT:
        if getattr(tokenizer, setting, False):
            raise ModelRefused(f"tokenizer_config.json sets {setting}: that takes {programs}")
    return tokenizer


def load_processor(folder: Path) -> Any:
    """Return the processor. Raises `ModelRefused`."""
    with refusing(files_named(folder, "processor", "preprocessor", "tokenizer")):
        return AutoProcessor.from_pretrained(folder, **LOCAL_ONLY)


def load_weights(folder: Path, family: Family, precision: torch.dtype, bits: int | None) -> Any:
    """Return the model in evaluation mode. Raises `ModelRefused` for weights that do not fit."""
    check_configurations(folder)
    auto_model = AutoModelForTextToSpectrogram if family.vocoder else AutoModelForTextToWaveform
    with refusing("config.json with its weights"):
        return complete(
            auto_model.from_pretrained(
                folder,
                attn_implementation=dict(profile.ATTENTION),
                **weight_options(precision, bits),
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
    config = f"{VOCODER}/config.json"
    with refusing(f"{config} with its weights"):
        return complete(
            VOCODERS[family.name].from_pretrained(vocoder_folder, **weight_options(precision)),
            config,
        )


def weight_options(precision: torch.dtype, bits: int | None = None) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` for a model that `complete` checks."""
    return {
        "dtype": precision,
        "use_safetensors": True,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # `complete` refuses them, and names them
        **quantization(precision, bits),
        **LOCAL_ONLY,
    }


def complete(loaded: tuple[Any, Mapping[str, Any]], config: str = "config.json") -> Any:
    """Return the model of `from_pretrained`'s model and report, in evaluation mode.

    `config` is the name of its configuration. Raises `ModelRefused` unless the weights are exactly
    those of the architecture, because transformers silently fills a missing tensor with random
    numbers.
    """
    model, report = loaded
    if problems := [f"{kind}: {_some(keys)}" for kind, keys in report.items() if keys]:
        raise ModelRefused(f"the weights do not fit {config}: {'; '.join(problems)}")
    for part in model.modules():
        use_floats(part.__dict__.get("generation_config"))
    return model.eval()


def _some(keys: Collection[object]) -> str:
    """Return the first names of a collection, and how many more there are."""
    names = ", ".join(sorted(map(str, keys))[:3])
    return names if len(keys) <= 3 else f"{names} and {len(keys) - 3} more"


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
