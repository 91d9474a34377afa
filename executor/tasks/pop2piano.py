"""A piano cover of a song: transformers' Pop2Piano over a listed local model.

The order is load, seed, generate (specification, section 8). Each input is a generation of its own,
seeded with the task's seed, so that a file gets the same notes whatever files are beside it. In one
batch with an attention mask, as transformers also offers, it would only where nothing is drawn at
random, and decoding more than two files fails there. What a task leaves out or sets to null is the
model's own, and nothing of a task stays in the model for the next one.
"""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    Pop2PianoFeatureExtractor,
    Pop2PianoForConditionalGeneration,
    Pop2PianoTokenizer,
    set_seed,
)

from executor.audio import decode, midi
from executor.errors import ModelRefused, TaskFailed, is_memory_error
from executor.models.config import POP2PIANO as FAMILY
from executor.models.config import own_dtype
from executor.models.file_checks import configuration
from executor.tasks.load_model import LOCAL, complete, quantization
from executor.tasks.text_to_music import given, rejected
from executor.tasks.token_trace import Step, TokenRecorder, TokenTrace

if TYPE_CHECKING:
    from executor.audio.decode import Mono

MEMBERS = ("max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "num_beams")
COMPOSER = "composer1"  # as transformers' own default
ATTENTION = "eager"  # the only one that the model has
# The beats are continued by three bars beyond the longest input: 18 s at 40 beats a minute.
LATEST = (decode.SECONDS + 60) * midi.TICKS


@dataclass(frozen=True, slots=True)
class LoadedPop2Piano:
    """A model in memory, what listens and writes for it, and its own generation settings."""

    model: Any
    extractor: Any
    tokenizer: Any
    settings: Any


@dataclass(frozen=True, slots=True)
class Cover:
    """The notes of one input, and what is told of the tokens that they were read from."""

    notes: tuple[midi.Note, ...]
    tokens: TokenTrace


def load(folder: Path, dtype: str, bits: int | None) -> LoadedPop2Piano:
    """Load a checked model folder. `dtype` is a name of torch's or "auto"; `bits` 4, 8 or None.

    Raises `ModelRefused` for what transformers cannot load, or not completely.
    """
    config = configuration(folder, "config.json")
    if config.get("model_type") != FAMILY:
        raise ModelRefused(f"{config.get('model_type')} is not {FAMILY}")
    precision = getattr(torch, own_dtype(config) if dtype == "auto" else dtype)
    try:
        model = complete(
            Pop2PianoForConditionalGeneration.from_pretrained(
                folder,
                dtype=precision,
                use_safetensors=True,
                output_loading_info=True,
                attn_implementation=ATTENTION,
                **quantization(precision, bits),
                **LOCAL,
            )
        )
        extractor = Pop2PianoFeatureExtractor.from_pretrained(folder, **LOCAL)
        tokenizer = Pop2PianoTokenizer.from_pretrained(folder, **LOCAL)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, ImportError) as error:
        if is_memory_error(error):
            raise
        raise ModelRefused(f"{type(error).__name__}: {error}") from error
    if not isinstance(getattr(model.generation_config, "composer_to_feature_token", None), dict):
        raise ModelRefused("generation_config.json has no composer_to_feature_token")
    return LoadedPop2Piano(model, extractor, tokenizer, copy.deepcopy(model.generation_config))


def covers(
    loaded: LoadedPop2Piano,
    args: Mapping[str, object],
    inputs: Sequence[Path],
    progress: Callable[[float], None],
) -> list[Cover]:
    """The cover of each input in order, telling `progress` shares in [0, 1].

    Raises `TaskFailed`: `input-undecodable`, `no-notes` if any input has no beat or gets no note,
    `generation-rejected` where the composer is unknown or transformers refuses the arguments.
    """
    composer = str(args.get("composer") or COMPOSER)
    if composer not in loaded.settings.composer_to_feature_token:
        known = ", ".join(loaded.settings.composer_to_feature_token)
        raise TaskFailed("generation-rejected", f"{composer!r} is none of {known}")
    arguments = generate_arguments(given(args), loaded.settings) | {"composer": composer}
    length = arguments.get("max_new_tokens") or loaded.settings.max_length or 1
    songs = decode.decode_files(inputs)
    made = []
    for place, song in enumerate(songs):

        def step(steps: int, before: int = place) -> None:
            progress((before + min(1.0, steps / length)) / len(songs))

        made.append(cover(loaded, song, arguments, int(str(args["seed"])), step))
    progress(1.0)
    return made


def generate_arguments(members: Mapping[str, Any], own: Any) -> dict[str, Any]:
    """What `generate` is called with for one input; temperature 0 is greedy (section 8)."""
    chosen = {name: members[name] for name in MEMBERS if name in members}
    if chosen.get("temperature", getattr(own, "temperature", None)) == 0:
        # transformers refuses a temperature of 0; greedy decoding reads none.
        chosen |= {"do_sample": False, "temperature": 1.0}
    if getattr(own, "num_return_sequences", None) not in (None, 1):
        chosen["num_return_sequences"] = 1
    return chosen


def cover(
    loaded: LoadedPop2Piano, song: "Mono", arguments: Mapping[str, Any], seed: int, step: Step
) -> Cover:
    """Listen to one song, generate, and read the notes."""
    recorder = TokenRecorder(step)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        set_seed(seed)
        features = beats(loaded, song)
        tokens = rejected(lambda: generated(loaded, features, arguments, recorder))
        notes = rejected(lambda: written(loaded, features, tokens))
    if not notes:
        raise TaskFailed("no-notes", "the model wrote no note")
    return Cover(notes, recorder.trace())


def beats(loaded: LoadedPop2Piano, song: "Mono") -> Any:
    """What the model hears of a song: a row for each two bars."""
    try:
        return loaded.extractor(audio=song, sampling_rate=decode.RATE, return_tensors="pt")
    except (ValueError, IndexError, RuntimeError) as error:
        if is_memory_error(error):
            raise
        # The beat tracker finds none in a second of sound, and nothing can be laid between none.
        raise TaskFailed("no-notes", f"no beat: {type(error).__name__}: {error}") from error


def generated(
    loaded: LoadedPop2Piano, features: Any, arguments: Mapping[str, Any], recorder: TokenRecorder
) -> Any:
    """The tokens of a song, `(rows, steps)`; generate writes into the settings that it is given."""
    model = loaded.model
    tokens = model.generate(
        input_features=features["input_features"].to(model.device, model.dtype),
        generation_config=copy.deepcopy(loaded.settings),
        stopping_criteria=[recorder],
        **arguments,
    )
    return tokens.cpu()


def written(loaded: LoadedPop2Piano, features: Any, tokens: Any) -> tuple[midi.Note, ...]:
    """The notes that tokens say. Raises `ValueError` for what is no MIDI note."""
    end = int(loaded.tokenizer.eos_token)
    if not (tokens == end).any():  # the tokenizer looks for the last, and takes one for granted
        tokens = torch.nn.functional.pad(tokens, (0, 1), value=end)
    (score,) = loaded.tokenizer.batch_decode(tokens, features)["pretty_midi_objects"]
    played = score.instruments[0].notes
    notes = midi.canonical((note.start, note.end, note.pitch, note.velocity) for note in played)
    if any(note.end > LATEST for note in notes):
        raise ValueError("notes long after the end of the song")
    return notes
