"""The audio files of a task, decoded here as the members will, before anything is sent."""

import hashlib
import io
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executor.audio.decode import MAX_SECONDS, RATE, Recording, decode
from executor.audio.recognize import START_BYTES, content_name, is_audio
from executor.errors import TaskFailed
from node.client.arguments import InvalidArgument
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire.encoding import Json
from schemas.errors import describe_value

# Files of a task (`schemas/pop2piano.json`).
MAX_FILES = 8


@dataclass(frozen=True, slots=True)
class InputFile:
    """An input: its bytes as they will be sent, and what is in them. `name` is for people."""

    name: str
    content: bytes
    form: str
    rate: int
    channels: int
    milliseconds: int

    @property
    def reference(self) -> dict[str, Json]:
        """The input as a task names it."""
        return {"sha256": hashlib.sha256(self.content).hexdigest(), "size": len(self.content)}

    def __str__(self) -> str:
        """Return what is in the file, for people."""
        channels = {1: "mono", 2: "stereo"}.get(self.channels, f"{self.channels} channels")
        size = f"{len(self.content):,} bytes"
        return f"{self.form}, {self.rate} Hz, {channels}, {self.milliseconds / 1000:.2f} s, {size}"


def read_inputs(files: object, network: Network, model: object) -> list[InputFile]:
    """Read and check the audio files of a task.

    `files` are paths, the files' bytes, or inputs that this function has returned. `model` names
    the listed model that is to hear them. Raises InvalidArgument, which names the file, says what
    it is, and what to do, and Rejected for more bytes than the network takes.
    """
    if isinstance(files, str | bytes | os.PathLike) or not isinstance(files, Sequence):
        described = describe_value(files)
        raise InvalidArgument(f"audio: must be a list of paths or of files' bytes, not {described}")
    if len(files) > MAX_FILES:
        raise InvalidArgument(f"audio: {len(files)} files, at most {MAX_FILES} are allowed")
    size, most = 0, network.parameters.max_input_bytes
    milliseconds = 1000 * _max_seconds(network, model)
    inputs: list[InputFile] = []
    for index, file in enumerate(files):
        known = isinstance(file, InputFile)
        checked = file if known else _input_file(file, index, most - size, milliseconds)
        inputs.append(checked)
        size, milliseconds = size + len(checked.content), milliseconds - checked.milliseconds
    return inputs


def _input_file(file: object, index: int, most: int, milliseconds: int) -> InputFile:
    name, content = _content(file, index, most)
    recording = _decoded(name, content, milliseconds)
    form, rate, channels = recording.form, recording.rate, recording.channels
    return InputFile(name, content, form, rate, channels, recording.milliseconds)


def _max_seconds(network: Network, model: object) -> int:
    """Return how many seconds of input the model takes; an unlisted one is refused later."""
    listed = network.models.get(model) if isinstance(model, str) else None
    limits: Mapping[str, Any] = {} if listed is None else listed.limits
    return int(limits.get("input_seconds", MAX_SECONDS))


def _content(file: object, index: int, most: int) -> tuple[str, bytes]:
    """Return a file's name and bytes, of which `most` are allowed."""
    if isinstance(file, bytes | bytearray | memoryview):
        name, content = f"audio[{index}]", bytes(file)
    elif isinstance(file, str | os.PathLike):
        name, content = os.fsdecode(file), _read(os.fsdecode(file), most)
    else:
        described = describe_value(file)
        raise InvalidArgument(f"audio[{index}]: must be a path or a file's bytes, not {described}")
    if len(content) > most:
        raise Rejected(
            Rejection.OVER_LIMIT,
            f"{name}: over the {most} bytes of input that this network still takes; FLAC is smaller"
            f" than WAV: {_command(name)}",
        )
    return name, content


def _read(name: str, most: int) -> bytes:
    """Read one byte more than allowed at most, so that no file fills the memory."""
    try:
        with Path(name).open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise InvalidArgument(f"{name}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # a null character
        raise InvalidArgument(f"{name!r}: is no path: {error}") from None


def _decoded(name: str, content: bytes, milliseconds: int) -> Recording:
    try:
        return decode(io.BytesIO(content), milliseconds)
    except TaskFailed as failure:
        raise InvalidArgument(f"{name}: {failure.detail}{_advice(name, content)}") from None


def _advice(name: str, content: bytes) -> str:
    """Return what to do about a file that cannot be sent, behind what it is."""
    if content[:4] not in (b"RIFF", b"fLaC") and not is_audio(content_name(content[:START_BYTES])):
        return ""
    return f". Convert it: {_command(name)}"


def _command(name: str) -> str:
    """Return a command that makes an accepted file of another one."""
    source = name if not name.startswith("audio[") else "FILE"
    target = f"{source.rpartition('.')[0] or source}.converted.flac"
    # Two channels, because some files have more than are allowed.
    options = f"-ar {RATE} -ac 2 -t {MAX_SECONDS}"
    return f"ffmpeg -i {shlex.quote(source)} {options} {shlex.quote(target)}"
