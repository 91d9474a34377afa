"""A task's arguments from a JSON file and from flags; a flag overrides the file."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from node.cli.exit_codes import usage
from node.cli.files import FILE, read_json
from protocol.network import Network
from protocol.wire.encoding import Document, Json

_F = TypeVar("_F", bound=Callable[..., Any])


class _FiniteFloat(click.types.FloatParamType):
    """A number that JSON can hold: not NaN, not infinite."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


_FINITE_FLOAT = _FiniteFloat()

# Arguments at the top level of a task; the other flags belong to its generation_config.
_TOP_LEVEL = ("model", "prompt", "composer", "seed", "dtype", "quantize_bits")

_OPTIONS = (
    click.option("--model", help="The id of one of the network's models."),
    click.option("--prompt", help="A text that describes the audio."),
    click.option(
        "--audio",
        type=FILE,
        multiple=True,
        help="A song (WAV or FLAC) to arrange for piano; repeatable.",
    ),
    click.option("--composer", help="The style of the piano arrangement, as the model names it."),
    click.option("--seed", type=int, help="0 to 4294967295; required here or in FILE."),
    click.option(
        "--seconds", type=_FINITE_FLOAT, help="The audio's length in seconds; sets max_new_tokens."
    ),
    click.option("--max-new-tokens", type=int, help="The audio's length in tokens."),
    click.option(
        "--do-sample/--greedy",
        default=None,
        help="Sample each token, or take the most probable one.",
    ),
    click.option("--temperature", type=_FINITE_FLOAT, help="Sampling temperature; 0 means greedy."),
    click.option("--top-k", type=int, help="Sample from the k most probable tokens; 0: from all."),
    click.option(
        "--top-p", type=_FINITE_FLOAT, help="Sample from the tokens that make up this probability."
    ),
    click.option("--num-return-sequences", type=int, help="The number of songs to generate."),
    click.option(
        "--guidance-scale",
        type=_FINITE_FLOAT,
        help="Classifier-free guidance: a larger value follows the prompt more closely.",
    ),
    click.option("--dtype", help="float16, bfloat16, float32 or auto."),
    click.option("--quantize-bits", type=int, help="4 or 8."),
)


def flags(command: _F) -> _F:
    """Add a flag for each argument of both task kinds."""
    # Decorators apply from the last to the first; --help shows the first one first.
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """A task to submit: its kind, arguments and input files.

    `seconds` is the audio's length, None if `args` has it in tokens.
    """

    kind: str
    args: Document
    audio: tuple[Path, ...]
    seconds: float | None

    def args_for(self, network: Network) -> Document:
        """Return the arguments with `seconds` as tokens of the network's model.

        A usage failure says why no number of tokens gives `seconds`.
        """
        if self.seconds is None:
            return self.args
        try:
            return network.with_max_new_tokens(self.args, self.seconds)
        except ValueError as error:
            raise usage(f"--seconds {self.seconds:g}: {error}") from None


def task_request(file: Path | None, flag_values: Mapping[str, object]) -> TaskRequest:
    """Return the task that a file and flags describe; the schema checks its arguments later.

    Audio files or a composer make it a pop2piano task. In the file, `audio` may hold paths,
    relative to the file's folder.
    """
    values = dict(flag_values)
    songs: Any = values.pop("audio")
    seconds: Any = values.pop("seconds")
    args = dict(merge_args(file, values))
    # Paths are for this command only: the task itself names files by hash and size.
    audio = args.get("audio")
    if not songs and isinstance(audio, list) and all(isinstance(name, str) for name in audio):
        folder = Path.cwd() if file is None or str(file) == "-" else file.parent
        songs = tuple(folder / str(name) for name in audio)
    if songs:
        args.pop("audio", None)
    # A task kind has no flag: each kind has arguments that the other one does not accept.
    piano = songs or "audio" in args or "composer" in args
    return TaskRequest("pop2piano" if piano else "text-to-music", args, tuple(songs), seconds)


def merge_args(file: Path | None, flag_values: Mapping[str, object]) -> Document:
    """Return a file's arguments, overridden by the flags that are not None."""
    document = _read_args(file)
    # None means that a flag was not given; 0 and False are values.
    values = {name: value for name, value in flag_values.items() if value is not None}
    top_level = {name: value for name, value in values.items() if name in _TOP_LEVEL}
    generation = {name: value for name, value in values.items() if name not in _TOP_LEVEL}
    if generation:
        config = document.get("generation_config")
        config = config if isinstance(config, Mapping) else {}
        top_level["generation_config"] = {**config, **generation}
    return {**document, **top_level}  # type: ignore[dict-item]  # strings, numbers and booleans


def _read_args(file: Path | None) -> dict[str, Json]:
    if file is None:
        return {}
    document = read_json(file)
    if not isinstance(document, Mapping):
        raise usage(f"{file}: must be a JSON object with the task's arguments")
    return dict(document)
