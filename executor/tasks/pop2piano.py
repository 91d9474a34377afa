"""A piano cover of a song: transformers' Pop2Piano over a listed local model.

The order is load, seed, generate (specification, section 8). Each input is a generation of its own
with the task's seed, so that a file gets the same notes whatever files come with it. One batch with
an attention mask, which transformers also offers, gives that only for greedy decoding, and decoding
more than two files fails there. Where a task leaves out an argument or sets it to null, the model's
own counts. Nothing of a task stays in the model for the next one.
"""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    Pop2PianoFeatureExtractor,
    Pop2PianoForConditionalGeneration,
    Pop2PianoTokenizer,
    set_seed,
)

from executor.audio import decode, midi
from executor.errors import ModelRefused, TaskFailed, with_task_failures
from executor.models.config import POP2PIANO, own_dtype
from executor.models.json_files import configuration
from executor.tasks.arguments import config_members
from executor.tasks.generate_hooks import OnStep, TokenRecorder
from executor.tasks.load_model import (
    LOCAL_ONLY,
    check_configurations,
    complete,
    files_named,
    refusing,
    weight_options,
)
from executor.tasks.token_trace import TokenTrace
from protocol.model_limits import DEFAULT_COMPOSER

if TYPE_CHECKING:
    from executor.audio.decode import Mono

MEMBERS = ("max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "num_beams")
ATTENTION = "eager"  # the only implementation that the model has
# Seconds. The feature extractor continues the beats by three bars beyond the longest input: 18 s at
# 40 beats a minute. Notes end well before a minute after it.
MAX_OUTPUT_SECONDS = decode.MAX_SECONDS + 60


@dataclass(frozen=True, slots=True)
class LoadedPop2Piano:
    """A model in memory, its feature extractor and tokenizer, and its own generation settings."""

    model: Any
    extractor: Any
    tokenizer: Any
    settings: Any


@dataclass(frozen=True, slots=True)
class Cover:
    """The notes of one input, and the trace of the tokens that they were read from."""

    notes: tuple[midi.Note, ...]
    tokens: TokenTrace


def load(folder: Path, dtype: str, bits: int | None) -> LoadedPop2Piano:
    """Load a checked model folder. `dtype` is a torch name or "auto"; `bits` is 4, 8 or None.

    Raises `ModelRefused` for what transformers cannot load, or not completely.
    """
    config = configuration(folder, "config.json")
    if config.get("model_type") != POP2PIANO:
        raise ModelRefused(f"config.json: model_type: must be {POP2PIANO}")
    precision = getattr(torch, own_dtype(config) if dtype == "auto" else dtype)
    check_configurations(folder)
    with refusing("config.json with its weights"):
        model = complete(
            Pop2PianoForConditionalGeneration.from_pretrained(
                folder, attn_implementation=ATTENTION, **weight_options(precision, bits)
            )
        )
    with refusing(files_named(folder, "preprocessor_config")):
        extractor = Pop2PianoFeatureExtractor.from_pretrained(folder, **LOCAL_ONLY)
    with refusing(files_named(folder, "tokenizer", "vocab", "special_tokens", "added")):
        tokenizer = Pop2PianoTokenizer.from_pretrained(folder, **LOCAL_ONLY)
    if not isinstance(getattr(model.generation_config, "composer_to_feature_token", None), dict):
        raise ModelRefused("generation_config.json has no composer_to_feature_token")
    return LoadedPop2Piano(model, extractor, tokenizer, copy.deepcopy(model.generation_config))


def covers(
    loaded: LoadedPop2Piano,
    args: Mapping[str, object],
    inputs: Sequence[Path],
    progress: Callable[[float], None],
    limits: Mapping[str, Any] = MappingProxyType({}),
) -> list[Cover]:
    """Return the cover of each input in order, and report shares in [0, 1] to `progress`.

    `limits` are the listed model's: `input_seconds` and `output_seconds` decide here (section 8.7).
    Raises `TaskFailed`: `input-undecodable`; `no-notes` if an input has no beat or gets no note;
    `generation-rejected` where the composer is unknown or transformers refuses the arguments.
    """
    composers = loaded.settings.composer_to_feature_token
    composer = str(args.get("composer") or DEFAULT_COMPOSER)
    if composer not in composers:
        raise TaskFailed("generation-rejected", f"{composer!r} is none of {', '.join(composers)}")
    arguments = generate_arguments(config_members(POP2PIANO, args), loaded.settings) | {
        "composer": composer
    }
    total_steps = arguments.get("max_new_tokens") or loaded.settings.max_length or 1
    songs = decode.decode_files(inputs, limits.get("input_seconds", decode.MAX_SECONDS))
    max_seconds = min(MAX_OUTPUT_SECONDS, limits.get("output_seconds", MAX_OUTPUT_SECONDS))
    results = []
    for number, song in enumerate(songs):
        # `done` is bound here: a closure would see the last number of the loop.
        def on_step(steps: int, done: int = number) -> None:
            progress((done + min(1.0, steps / total_steps)) / len(songs))

        results.append(cover(loaded, song, arguments, int(str(args["seed"])), on_step, max_seconds))
    progress(1.0)
    return results


def generate_arguments(members: Mapping[str, Any], defaults: Any) -> dict[str, Any]:
    """Return the arguments of `generate` for one input; temperature 0 means greedy (section 8)."""
    arguments = {name: members[name] for name in MEMBERS if name in members}
    if arguments.get("temperature", getattr(defaults, "temperature", None)) == 0:
        # transformers refuses a temperature of 0; greedy decoding reads none.
        arguments |= {"do_sample": False, "temperature": 1.0}
    if getattr(defaults, "num_return_sequences", None) not in (None, 1):
        arguments["num_return_sequences"] = 1
    return arguments


def cover(
    loaded: LoadedPop2Piano,
    song: "Mono",
    arguments: Mapping[str, Any],
    seed: int,
    on_step: OnStep,
    max_seconds: int = MAX_OUTPUT_SECONDS,
) -> Cover:
    """Extract the features of one song, generate tokens, and read the notes."""
    recorder = TokenRecorder(on_step)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        # After loading, which draws random numbers (section 8).
        set_seed(seed)
        features = extract_features(loaded, song)
        tokens = generate_tokens(loaded, features, arguments, recorder)
        notes = read_notes(loaded, features, tokens, max_seconds)
    if not notes:
        raise TaskFailed(
            "no-notes", "the model wrote no note: choose another song, composer or seed"
        )
    return Cover(notes, recorder.trace())


def extract_features(loaded: LoadedPop2Piano, song: "Mono") -> Any:
    """Return the features of a song, one row per two bars. Raises `TaskFailed("no-notes")`."""
    # The beat tracker finds no beat in a second of sound, and then interpolation fails.
    # Its words are about arrays, such as "cannot reshape array of size 0".
    return with_task_failures(
        lambda: loaded.extractor(audio=song, sampling_rate=decode.RATE, return_tensors="pt"),
        "no-notes",
        lambda _: "no beat was found: the song is shorter than a few beats, or has no rhythm",
    )


def generate_tokens(
    loaded: LoadedPop2Piano, features: Any, arguments: Mapping[str, Any], recorder: TokenRecorder
) -> Any:
    """Return the tokens of a song, `(rows, steps)`."""
    model = loaded.model
    tokens = model.generate(
        input_features=features["input_features"].to(model.device, model.dtype),
        # A copy, because generate writes the arguments into it.
        generation_config=copy.deepcopy(loaded.settings),
        stopping_criteria=[recorder],
        **arguments,
    )
    return tokens.cpu()


def read_notes(
    loaded: LoadedPop2Piano, features: Any, tokens: Any, max_seconds: int = MAX_OUTPUT_SECONDS
) -> tuple[midi.Note, ...]:
    """Return the notes that tokens stand for. Raises `ValueError` for an invalid MIDI note."""
    end = int(loaded.tokenizer.eos_token)
    if not (tokens == end).any():  # the tokenizer fails on tokens without an end
        tokens = torch.nn.functional.pad(tokens, (0, 1), value=end)
    (score,) = loaded.tokenizer.batch_decode(tokens, features)["pretty_midi_objects"]
    notes = midi.canonical(
        (note.start, note.end, note.pitch, note.velocity) for note in score.instruments[0].notes
    )
    if any(note.end > max_seconds * midi.TICKS_PER_SECOND for note in notes):
        raise ValueError("notes long after the end of the song")
    return notes
