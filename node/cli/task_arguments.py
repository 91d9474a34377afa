"""A task's arguments from the command line: a file as it stands, and flags that count before it."""

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


class _Finite(click.types.FloatParamType):
    """A number that JSON can hold."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number.", param, ctx)
        return number


_FINITE = _Finite()
_TOP = ("model", "prompt", "composer", "seed", "dtype", "quantize_bits")
_GENERATION = (
    click.option("--seconds", type=_FINITE, help="How much to generate; sets max_new_tokens."),
    click.option("--max-new-tokens", type=int, help="How much to generate, in tokens."),
    click.option("--do-sample/--greedy", default=None, help="Sample, or take the likeliest."),
    click.option("--temperature", type=_FINITE, help="0 means greedy."),
    click.option("--top-k", type=int, help="0 turns the filter off."),
    click.option("--top-p", type=_FINITE),
    click.option("--num-return-sequences", type=int, help="How many songs to generate."),
    click.option("--guidance-scale", type=_FINITE, help="How close to keep to the prompt."),
)
_ARGUMENTS = (
    click.option("--model", help="One of the network's models."),
    click.option("--prompt", help="What to generate."),
    click.option(
        "--audio",
        type=FILE,
        multiple=True,
        help="A song (WAV or FLAC) to arrange for piano; may be given several times.",
    ),
    click.option("--composer", help="Whose style to arrange in, as the model names it."),
    click.option("--seed", type=int, help="0 to 4294967295; required here or in the file."),
    *_GENERATION,
    click.option("--dtype", help="float16, bfloat16, float32 or auto."),
    click.option("--quantize-bits", type=int, help="4 or 8."),
)


def flags(command: _F) -> _F:
    """Add a flag for each argument of a task of either kind."""
    for option in reversed(_ARGUMENTS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be submitted: its kind, its arguments and its input files.

    `seconds` is how long it is to sound, if that is not for `args` to say.
    """

    kind: str
    args: Document
    audio: tuple[Path, ...]
    seconds: float | None

    def within(self, network: Network) -> Document:
        """Return the arguments for a network; a usage failure says why no tokens give `seconds`."""
        if self.seconds is None:
            return self.args
        try:
            return network.with_max_new_tokens(self.args, self.seconds)
        except ValueError as error:
            raise usage(f"--seconds {self.seconds:g}: {error}") from None


def request(file: Path | None, given: Mapping[str, object]) -> Request:
    """Return what the file and the flags ask for; what is wrong in it is the schema's to say.

    Songs or a composer make it a pop2piano task. In the file, `audio` may name files by path, from
    the file's own folder.
    """
    flags = dict(given)
    songs: Any = flags.pop("audio")
    seconds: Any = flags.pop("seconds")
    args = dict(merged(file, flags))
    named = args.get("audio")
    if not songs and isinstance(named, list) and all(isinstance(entry, str) for entry in named):
        folder = Path.cwd() if file is None or str(file) == "-" else file.parent
        songs = tuple(folder / str(entry) for entry in named)
    if songs:
        args.pop("audio", None)
    piano = songs or "audio" in args or "composer" in args
    return Request("pop2piano" if piano else "text-to-music", args, tuple(songs), seconds)


def merged(file: Path | None, given: Mapping[str, object]) -> Document:
    """Return a task's arguments; what is wrong in them is the schema's to say."""
    document = _from_file(file)
    top = {name: given[name] for name in _TOP if given.get(name) is not None}
    rest = {k: v for k, v in given.items() if k not in _TOP and v is not None}
    if rest:
        config = document.get("generation_config")
        top["generation_config"] = {**(config if isinstance(config, Mapping) else {}), **rest}
    return {**document, **top}  # type: ignore[dict-item]  # strings, numbers and booleans


def _from_file(file: Path | None) -> dict[str, Json]:
    if file is None:
        return {}
    document = read_json(file)
    if not isinstance(document, Mapping):
        raise usage(f"{file}: must be a JSON object with the task's arguments")
    return dict(document)
