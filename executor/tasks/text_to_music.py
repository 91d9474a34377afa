"""Text to music: transformers' `TextToAudioPipeline` over a listed local model.

The order is load, seed, generate (specification, section 8), because loading draws random numbers.
Where a task leaves out an argument or sets it to null, the model's own counts. Nothing of a task
stays in the model for the next one. What a family of models cannot do exactly is refused
(`families`); the inputs that a family needs besides the prompt are added here.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from transformers import set_seed

from executor.errors import TaskFailed
from executor.models.families import SAMPLING, SEQUENCES, Family
from executor.tasks import speaker_embedding
from executor.tasks.arguments import config_members, sequence_seeds
from executor.tasks.failures import NO_SOUND
from executor.tasks.generate_hooks import (
    OnStep,
    TokenRecorder,
    TokenStreamer,
    called_between_layers,
)
from executor.tasks.load_model import LoadedPipeline, load
from executor.tasks.token_trace import TokenTrace
from protocol.model_limits import objection
from protocol.wire.encoding import Document

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LoadedPipeline", "Sound", "load", "sounds"]

KIND = "text-to-music"

# Settings of a model that translates: the languages of its three parts.
LANGUAGE_TABLES = (
    "text_decoder_lang_to_code_id",
    "t2u_lang_code_to_id",
    "vocoder_lang_code_to_id",
)
DEFAULT_LANGUAGE = "eng"
# Tokens of Bark's first part where its configuration has no number.
BARK_SEMANTIC_TOKENS = 768


@dataclass(frozen=True, slots=True)
class Sound:
    """One generated sequence. `audio` is mono `(n,)` or `(channels, n)`; `sampling_rate` in Hz."""

    audio: "NDArray[np.float32]"
    sampling_rate: int
    tokens: TokenTrace


def generate_arguments(family: Family, members: Mapping[str, Any], defaults: Any) -> dict[str, Any]:
    """Return the arguments of `generate` for one sequence.

    `defaults` are the model's generation settings. Temperature 0 means greedy decoding (section 8).
    """
    arguments = {
        name: members[name] for name in family.honours if name in members and name != SEQUENCES
    }
    if arguments.get("temperature", getattr(defaults, "temperature", None)) == 0:
        # transformers refuses a temperature of 0; greedy decoding reads none.
        arguments |= {"do_sample": False, "temperature": 1.0}
    if getattr(defaults, SEQUENCES, None) not in (None, 1):
        arguments[SEQUENCES] = 1
    return adapt_arguments(family, arguments)


def adapt_arguments(family: Family, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as a family's generate takes them; some have parts of their own."""
    adapted = dict(arguments)
    match family.name:
        case "musicgen" | "musicgen_melody":
            # A scale of at most 1 means no guidance. For less than 1, transformers takes a code
            # path that does not know codebooks.
            if adapted.get("guidance_scale", 1.0) < 1.0:
                adapted["guidance_scale"] = 1.0
        case "bark":
            # The length of the other parts follows from the semantic tokens. The last part samples
            # unless its temperature is 1, whatever do_sample says.
            if "max_new_tokens" in adapted:
                adapted["semantic_max_new_tokens"] = adapted.pop("max_new_tokens")
            if adapted.get("do_sample") is False:
                adapted["temperature"] = 1.0
        case "csm":
            # A second model draws all codebooks but the first.
            adapted |= {
                f"depth_decoder_{name}": arguments[name] for name in SAMPLING if name in arguments
            }
    return adapted


def sounds(
    loaded: LoadedPipeline, args: Mapping[str, object], progress: Callable[[float], None]
) -> list[Sound]:
    """Generate a task's sequences in order, and report shares in [0, 1] to `progress`.

    `progress` is called at each token, or at each layer of a model without tokens; what it raises
    ends the generation and leaves the model as it was.

    Raises `TaskFailed("generation-rejected")` where the family does not take the arguments, or
    transformers refuses them.
    """
    if problem := objection(loaded.family.capabilities, cast("Document", args)):
        raise TaskFailed("generation-rejected", problem)
    members = config_members(KIND, args)
    count = members.get(SEQUENCES) or 1  # whatever the model's own number is
    # Each sequence is a generation of its own: transformers joins several to one corrupt waveform.
    seeds = sequence_seeds(int(str(args["seed"])), count)
    arguments = generate_arguments(loaded.family, members, loaded.defaults)
    total_steps = max_steps(loaded, members.get("max_new_tokens"))
    sequences = []
    for number, seed in enumerate(seeds):
        # `done` is bound here: a closure would see the last number of the loop.
        def on_step(steps: int, done: int = number) -> None:
            progress((done + min(1.0, steps / total_steps)) / len(seeds))

        sequences.append(sound(loaded, str(args["prompt"]), arguments, seed, on_step))
    progress(1.0)
    return sequences


def max_steps(loaded: LoadedPipeline, max_new_tokens: int | None) -> float:
    """Return how many steps a generation takes at most; 1 where neither task nor model says."""
    defaults = loaded.defaults
    if loaded.family.name == "bark":
        semantic, coarse = defaults.semantic_config, defaults.coarse_acoustics_config
        rate = coarse["coarse_rate_hz"] / semantic["semantic_rate_hz"]
        tokens = max_new_tokens or semantic.get("max_new_tokens") or BARK_SEMANTIC_TOKENS
        return float(tokens * (1 + rate * coarse["n_coarse_codebooks"]))
    default_limit = (
        getattr(defaults, "max_new_tokens", None) or getattr(defaults, "max_length", None) or 1
    )
    if loaded.family.name == "seamless_m4t":  # text, then units
        units = loaded.pipeline.model.config.t2u_max_new_tokens
        return float(2 * max_new_tokens if max_new_tokens else default_limit + units)
    return float(max_new_tokens or default_limit)


def sound(
    loaded: LoadedPipeline, prompt: str, arguments: Mapping[str, Any], seed: int, on_step: OnStep
) -> Sound:
    """Generate one sequence, from the model's own settings."""
    loaded.restore_settings()
    recorder = TokenRecorder(on_step)
    arguments = {**arguments, **recorder_argument(loaded.family, recorder)}
    # Inference mode: an eighth less time in a small model's steps than without gradients alone.
    between_layers = called_between_layers(loaded.family, loaded.pipeline, lambda: on_step(0))
    with warnings.catch_warnings(), torch.inference_mode(), between_layers:
        warnings.simplefilter("ignore")
        # After loading, which draws random numbers (section 8).
        set_seed(seed)
        output = run_pipeline(loaded, prompt, dict(arguments), seed)
    audio = np.atleast_1d(output["audio"])
    if not audio.size:
        raise TaskFailed("generation-rejected", NO_SOUND)
    return Sound(audio, int(output["sampling_rate"]), recorder.trace())


def recorder_argument(family: Family, recorder: TokenRecorder) -> dict[str, Any]:
    """Return the argument with which a family's generate calls `recorder` after each step.

    Empty if it has none. CSM drops stopping criteria, but passes its tokens to a streamer.
    """
    if family.name == "csm":
        return {"streamer": TokenStreamer(recorder)}
    return {family.criteria: [recorder]} if family.criteria else {}


def run_pipeline(
    loaded: LoadedPipeline, prompt: str, arguments: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Return the pipeline's `audio` and `sampling_rate` for one prompt.

    Adds the inputs that a family needs besides the prompt: a speaker, or a language.
    """
    pipeline = loaded.pipeline
    inputs: dict[str, Any] = {}
    match loaded.family.name:
        case "speecht5":
            size = pipeline.model.config.speaker_embedding_dim
            numbers = speaker_embedding.embedding(seed, size)
            inputs = {"speaker_embeddings": torch.tensor([numbers], dtype=pipeline.model.dtype)}
        case "seamless_m4t" | "seamless_m4t_v2":
            inputs = {"tgt_lang": target_language(loaded.defaults)}
        case "fastspeech2_conformer_with_hifigan":
            # The pipeline takes a model's first output, which here is the spectrogram.
            output = pipeline.model(**pipeline.preprocess(prompt).to(pipeline.device))
            return dict(pipeline.postprocess(output["waveform"]))
    result: dict[str, Any] = pipeline(prompt, forward_params=inputs, generate_kwargs=arguments)
    return result


def target_language(defaults: Any) -> str:
    """Return what a model that translates speaks: its `tgt_lang`, or English, or its first.

    Raises `ValueError` for a model whose parts have no language in common.
    """
    tables = [set(getattr(defaults, table, None) or ()) for table in LANGUAGE_TABLES]
    languages = sorted(set.intersection(*tables))
    for name in (getattr(defaults, "tgt_lang", None), DEFAULT_LANGUAGE, *languages[:1]):
        if name in languages:
            return str(name)
    raise ValueError("the model's generation_config.json has no language that it can speak")
