"""Text to music: transformers' `TextToAudioPipeline` over a listed local model.

The order is load, seed, generate (specification, section 8): loading draws random numbers. What a
task leaves out or sets to null is the model's own, and nothing of a task stays in the model for the
next one.
"""

import copy
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import (
    AutoModelForTextToWaveform,
    AutoProcessor,
    AutoTokenizer,
    BitsAndBytesConfig,
    StoppingCriteria,
    TextToAudioPipeline,
    set_seed,
)

from executor import profile
from executor.errors import Failed, ModelRefused, exhausted
from executor.fingerprint import tagged

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 64  # steps per token digest (section 4, `trace`)
MEMBERS = ("max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "guidance_scale")
LOCAL: Mapping[str, bool] = MappingProxyType({"local_files_only": True, "trust_remote_code": False})
# Their text goes through the tokenizer alone; the pipeline wants a processor for the others.
TOKENIZED = ("musicgen", "musicgen_melody", "vits")
# Their generate takes stopping criteria, which are called once per step; the others' progress is 0,
# then 1.
STEPPING = ("musicgen", "musicgen_melody")
# What an argument out of range becomes on its way: softmax of an overflow is NaN, and drawing from
# it is refused.
UNDRAWABLE = "probability tensor contains"

Step = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory and its own generation settings, as loaded."""

    pipeline: Any
    settings: Any


@dataclass(frozen=True, slots=True)
class Sound:
    """One generated sequence.

    `audio` is mono `(n,)` or `(channels, n)`; `tokens` has a digest per block of 64 steps.
    """

    audio: "NDArray[np.float32]"
    sampling_rate: int
    tokens: tuple[str, ...]


def load(folder: Path, dtype: str, bits: int | None) -> Loaded:
    """Load a checked model folder. `dtype` is a name of torch's or "auto"; `bits` 4, 8 or None.

    Raises `ModelRefused` for what transformers cannot load, or not completely.
    """
    try:
        model = load_weights(folder, "auto" if dtype == "auto" else getattr(torch, dtype), bits)
        tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
        processor = None
        if model.config.model_type not in TOKENIZED:
            processor = AutoProcessor.from_pretrained(folder, **LOCAL)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, ImportError) as error:
        if exhausted(error):
            raise
        raise ModelRefused(f"{type(error).__name__}: {error}") from error
    pipeline = TextToAudioPipeline(
        model=model, tokenizer=tokenizer, processor=processor, device=torch.device("cpu")
    )
    return Loaded(pipeline, copy.deepcopy(getattr(model, "generation_config", None)))


def load_weights(folder: Path, precision: Any, bits: int | None) -> Any:
    """The model itself, in evaluation mode.

    Raises `ModelRefused` unless the weights are exactly what the architecture wants: transformers
    fills a missing tensor with random numbers without a word.
    """
    model, report = AutoModelForTextToWaveform.from_pretrained(
        folder,
        dtype=precision,
        use_safetensors=True,
        output_loading_info=True,
        attn_implementation=dict(profile.ATTENTION),
        **quantization(precision, bits),
        **LOCAL,
    )
    if wrong := {key: sorted(map(str, keys)) for key, keys in report.items() if keys}:
        raise ModelRefused(f"the weights do not fit the architecture: {wrong}")
    return model.eval()


def quantization(precision: Any, bits: int | None) -> dict[str, object]:
    """The loader's arguments for 4 or 8 bits; none for None."""
    if bits is None:
        return {}
    if bits == 8:
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    compute = torch.float32 if precision == "auto" else precision
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=profile.FOUR_BIT, bnb_4bit_compute_dtype=compute
        )
    }


def sequence_seeds(seed: int, count: int) -> list[int]:
    """The seeds of `count` sequences (section 8): the task's own, then derived ones."""
    derived = [
        int(tagged("sequence", struct.pack(">QI", seed, i))[:8], 16) for i in range(1, count)
    ]
    return [seed, *derived]


def given(args: Mapping[str, object]) -> dict[str, Any]:
    """The members of `generation_config` that the task sets."""
    config = args.get("generation_config")
    members: Mapping[str, object] = config if isinstance(config, Mapping) else {}
    return {name: value for name, value in members.items() if value is not None}


def generate_arguments(members: Mapping[str, Any], own: Any) -> dict[str, Any]:
    """What `generate` is called with for one sequence; temperature 0 is greedy (section 8)."""
    chosen = {name: members[name] for name in MEMBERS if name in members}
    if chosen.get("temperature", getattr(own, "temperature", None)) == 0:
        # transformers refuses a temperature of 0; greedy decoding reads none.
        chosen |= {"do_sample": False, "temperature": 1.0}
    if getattr(own, "num_return_sequences", None) not in (None, 1):
        chosen["num_return_sequences"] = 1
    return chosen


def sounds(
    loaded: Loaded, args: Mapping[str, object], progress: Callable[[float], None]
) -> list[Sound]:
    """Generate a task's sequences in order, telling `progress` shares in [0, 1].

    Raises `Failed("generation-rejected")` where transformers refuses the arguments.
    """
    members = given(args)
    own_count = getattr(loaded.settings, "num_return_sequences", None)
    seeds = sequence_seeds(
        int(str(args["seed"])), int(members.get("num_return_sequences", own_count) or 1)
    )
    arguments = generate_arguments(members, loaded.settings)
    length = arguments.get("max_new_tokens") or own_length(loaded.settings)
    made = []
    for place, seed in enumerate(seeds):

        def step(steps: int, before: int = place) -> None:
            progress((before + min(1.0, steps / length)) / len(seeds))

        made.append(sound(loaded, str(args["prompt"]), arguments, seed, step))
    progress(1.0)
    return made


def own_length(settings: Any) -> int:
    """How many steps the model takes where the task does not say; 1 where neither does."""
    return int(
        getattr(settings, "max_new_tokens", None) or getattr(settings, "max_length", None) or 1
    )


def sound(
    loaded: Loaded, prompt: str, arguments: Mapping[str, Any], seed: int, step: Step
) -> Sound:
    """Generate one sequence, from the model's own settings: generate may write into them."""
    if loaded.settings is not None:
        loaded.pipeline.model.generation_config = copy.deepcopy(loaded.settings)
    watch = Watch(step)
    generate = dict(arguments)
    if loaded.pipeline.model.config.model_type in STEPPING:
        generate["stopping_criteria"] = [watch]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        set_seed(seed)
        made = rejected(lambda: loaded.pipeline(prompt, generate_kwargs=generate))
    return Sound(made["audio"], int(made["sampling_rate"]), watch.digests())


def rejected(generate: Callable[[], Any]) -> Any:
    """Call `generate`; what every member of the class meets alike is a `Failed`."""
    try:
        return generate()
    except (ValueError, TypeError, IndexError) as error:
        raise Failed("generation-rejected", f"{type(error).__name__}: {error}") from error
    except RuntimeError as error:
        if UNDRAWABLE in str(error):
            raise Failed("generation-rejected", str(error)) from error
        raise


class Watch(StoppingCriteria):  # type: ignore[misc]
    """Called by `generate` after each step: tells the progress and keeps the tokens."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._steps: list[Sequence[int]] = []

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Note the step that was just sampled; `input_ids` is (codebooks, steps so far)."""
        self._steps.append(input_ids[:, -1].tolist())
        self._step(len(self._steps))
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)

    def digests(self) -> tuple[str, ...]:
        """For each block of 64 steps the first 16 hex of H("tokens", its tokens).

        The tokens step by step, each as 4 bytes, little-endian.
        """
        blocks = [self._steps[start : start + BLOCK] for start in range(0, len(self._steps), BLOCK)]
        return tuple(
            tagged("tokens", b"".join(struct.pack(f"<{len(row)}i", *row) for row in block))[:16]
            for block in blocks
        )
