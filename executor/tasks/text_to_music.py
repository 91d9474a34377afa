"""Text to music: transformers' `TextToAudioPipeline` over a listed local model.

The order is load, seed, generate (specification, section 8): loading draws random numbers. What a
task leaves out or sets to null is the model's own, and nothing of a task stays in the model for the
next one. What a family of models cannot do exactly is refused (`families`), and what it wants
besides a prompt is added here.
"""

import struct
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import set_seed

from executor.errors import TaskFailed
from executor.models.families import SAMPLING, SEQUENCES, Family, objection
from executor.tasks import speaker_embedding
from executor.tasks.load_model import LoadedPipeline, load
from executor.tasks.token_trace import Step, Streamer, TokenRecorder, TokenTrace
from protocol.wire.encoding import tagged_hash

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LoadedPipeline", "Sound", "load", "sequence_seeds", "sounds"]

# What an argument out of range becomes on its way: softmax of an overflow is NaN, and drawing from
# it is refused.
UNDRAWABLE = "probability tensor contains"
# How torch says that there was nothing to compute on: a prompt of no known characters, or a model
# that said nothing.
NOTHING = (
    "Kernel size can't be greater than actual input size",
    "length must be non-negative",
    "non-empty",
    "is empty",
)
# The languages of a model that translates, by the part that must know them.
SPOKEN = ("text_decoder_lang_to_code_id", "t2u_lang_code_to_id", "vocoder_lang_code_to_id")
LANGUAGE = "eng"
MOST_SEQUENCES = 16  # outputs that a reveal can hold; of a task the schema demands it
SEMANTIC = 768  # tokens of Bark's first part where its configuration does not say


@dataclass(frozen=True, slots=True)
class Sound:
    """One generated sequence. `audio` is mono `(n,)` or `(channels, n)`."""

    audio: "NDArray[np.float32]"
    sampling_rate: int
    tokens: TokenTrace


def sequence_seeds(seed: int, count: int) -> list[int]:
    """The seeds of `count` sequences (section 8): the task's own, then derived ones."""
    hashes = (tagged_hash("sequence", struct.pack(">QI", seed, i)) for i in range(1, count))
    return [seed, *(int.from_bytes(digest[:4], "big") for digest in hashes)]


def given(args: Mapping[str, object]) -> dict[str, Any]:
    """The members of `generation_config` that the task sets."""
    config = args.get("generation_config")
    members: Mapping[str, object] = config if isinstance(config, Mapping) else {}
    return {name: value for name, value in members.items() if value is not None}


def generate_arguments(family: Family, members: Mapping[str, Any], own: Any) -> dict[str, Any]:
    """What `generate` is called with for one sequence; temperature 0 is greedy (section 8)."""
    chosen = {
        name: members[name] for name in family.honours if name in members and name != SEQUENCES
    }
    if chosen.get("temperature", getattr(own, "temperature", None)) == 0:
        # transformers refuses a temperature of 0; greedy decoding reads none.
        chosen |= {"do_sample": False, "temperature": 1.0}
    if getattr(own, SEQUENCES, None) not in (None, 1):
        chosen[SEQUENCES] = 1
    return in_parts(family, chosen)


def in_parts(family: Family, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The same as a family's generate wants it, which may be in several parts."""
    arguments = dict(chosen)
    match family.name:
        case "musicgen" | "musicgen_melody":
            # Not above 1 is none. Below it, transformers takes a way that knows no codebooks.
            if arguments.get("guidance_scale", 1.0) < 1.0:
                arguments["guidance_scale"] = 1.0
        case "bark":
            # The other parts generate as much as the semantic tokens give; and the last one samples
            # wherever the temperature is not 1, whatever do_sample says.
            if "max_new_tokens" in arguments:
                arguments["semantic_max_new_tokens"] = arguments.pop("max_new_tokens")
            if arguments.get("do_sample") is False:
                arguments["temperature"] = 1.0
        case "csm":
            # Its second model draws all codebooks but the first.
            drawn = {f"depth_decoder_{name}": chosen[name] for name in SAMPLING if name in chosen}
            arguments |= drawn
    return arguments


def sounds(
    loaded: LoadedPipeline, args: Mapping[str, object], progress: Callable[[float], None]
) -> list[Sound]:
    """Generate a task's sequences in order, telling `progress` shares in [0, 1].

    Raises `TaskFailed("generation-rejected")` where the family does not take the arguments, or
    transformers refuses them.
    """
    if why := objection(loaded.family, args):
        raise TaskFailed("generation-rejected", why)
    members = given(args)
    count = int(members.get(SEQUENCES, getattr(loaded.own, SEQUENCES, None)) or 1)
    if count > MOST_SEQUENCES:
        raise TaskFailed("generation-rejected", f"the model's own {SEQUENCES} is {count}")
    seeds = sequence_seeds(int(str(args["seed"])), count)
    arguments = generate_arguments(loaded.family, members, loaded.own)
    length = steps(loaded, members.get("max_new_tokens"))
    made = []
    for place, seed in enumerate(seeds):

        def step(taken: int, before: int = place) -> None:
            progress((before + min(1.0, taken / length)) / len(seeds))

        made.append(sound(loaded, str(args["prompt"]), arguments, seed, step))
    progress(1.0)
    return made


def steps(loaded: LoadedPipeline, asked: int | None) -> float:
    """How many steps a generation takes at most; 1 where neither task nor model says."""
    own = loaded.own
    if loaded.family.name == "bark":
        semantic, coarse = own.semantic_config, own.coarse_acoustics_config
        rate = coarse["coarse_rate_hz"] / semantic["semantic_rate_hz"]
        most = asked or semantic.get("max_new_tokens") or SEMANTIC
        return float(most * (1 + rate * coarse["n_coarse_codebooks"]))
    limit = getattr(own, "max_new_tokens", None) or getattr(own, "max_length", None) or 1
    if loaded.family.name == "seamless_m4t":  # text, then units
        units = loaded.pipeline.model.config.t2u_max_new_tokens
        return float(2 * asked if asked else limit + units)
    return float(asked or limit)


def sound(
    loaded: LoadedPipeline, prompt: str, arguments: Mapping[str, Any], seed: int, step: Step
) -> Sound:
    """Generate one sequence, from the model's own settings."""
    loaded.fresh()
    recorder = TokenRecorder(step)
    generate = {**arguments, **hook(loaded.family, recorder)}
    # Inference mode: an eighth less time in a small model's steps than without gradients alone.
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        set_seed(seed)
        made = rejected(lambda: heard(loaded, prompt, generate, seed))
    audio = np.atleast_1d(made["audio"])
    if not audio.size:
        raise TaskFailed("generation-rejected", "the model said nothing")
    return Sound(audio, int(made["sampling_rate"]), recorder.trace())


def hook(family: Family, recorder: TokenRecorder) -> dict[str, Any]:
    """The argument with which a family's generate calls `recorder` after each step, if any.

    CSM drops all stopping criteria but its own; it tells a streamer its tokens.
    """
    if family.name == "csm":
        return {"streamer": Streamer(recorder)}
    return {family.criteria: [recorder]} if family.criteria else {}


def heard(
    loaded: LoadedPipeline, prompt: str, generate: dict[str, Any], seed: int
) -> dict[str, Any]:
    """The pipeline's audio for one prompt, given what the family wants besides."""
    pipeline = loaded.pipeline
    match loaded.family.name:
        case "speecht5":
            size = pipeline.model.config.speaker_embedding_dim
            numbers = speaker_embedding.embedding(seed, size)
            speaker = torch.tensor([numbers], dtype=pipeline.model.dtype)
            wanted: dict[str, Any] = {"speaker_embeddings": speaker}
        case "seamless_m4t" | "seamless_m4t_v2":
            wanted = {"tgt_lang": language(loaded.own)}
        case "fastspeech2_conformer_with_hifigan":
            # The pipeline takes a model's first output, which here is the spectrogram.
            spoken = pipeline.model(**pipeline.preprocess(prompt).to(pipeline.device))
            return dict(pipeline.postprocess(spoken["waveform"]))
        case _:
            wanted = {}
    made: dict[str, Any] = pipeline(prompt, forward_params=wanted, generate_kwargs=generate)
    return made


def language(own: Any) -> str:
    """What a model that translates speaks: its own `tgt_lang`, or English, or what comes first.

    Raises `ValueError` for a model that says no language in all its parts.
    """
    known = [set(getattr(own, part, None) or ()) for part in SPOKEN]
    spoken = sorted(set.intersection(*known))
    for name in (getattr(own, "tgt_lang", None), LANGUAGE, *spoken[:1]):
        if name in spoken:
            return str(name)
    raise ValueError("the model's generation_config.json has no language that it can speak")


def rejected(generate: Callable[[], Any]) -> Any:
    """Call `generate`; what every member of the class meets alike is a `TaskFailed`."""
    try:
        return generate()
    except (ValueError, TypeError, IndexError) as error:
        raise TaskFailed("generation-rejected", f"{type(error).__name__}: {error}") from error
    except RuntimeError as error:
        if any(sign in str(error) for sign in (UNDRAWABLE, *NOTHING)):
            raise TaskFailed("generation-rejected", str(error)) from error
        raise
