"""Model folders as strangers make them: tiny models with changed files, loaded and run as tasks.

Each folder is examined in a process of its own, in a worker's sandbox. It may be refused, and a
task may fail; the process may not die, and no other exception may leave the executor.
"""

import json
import os
import re
import shutil
import signal
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from executor.errors import ModelRefused, TaskFailed, is_own_error, with_task_failures
from executor.models.folders import describe_model
from executor.sandbox import confine
from node.cli.commands.network.limits import complete_limits
from protocol.network import Network
from protocol.wire.encoding import canonical
from tests.property import strategies
from tests.support import fixtures

MEMORY = 6 * 2**30
# Of processor time. A model may be slow by its settings: a task's time ends it, which is no fault.
SECONDS = 30
# What a process may say of a folder; anything else is a bug.
REFUSED, UNLOADABLE, FAILED, RUNS = "refused", "cannot be loaded", "task failed", "runs"
OUT_OF_BOUNDS = ("own error", f"signal {signal.SIGXCPU.value}")
VERDICTS = (REFUSED, UNLOADABLE, FAILED, RUNS, *OUT_OF_BOUNDS)
# A refusal names a file: what a person has to look at.
FILE_NAME = re.compile(r"[\w.-]+\.(safetensors|json|txt|model|jinja)")
# Imported once, in the process from which all others are forked.
_context = get_context("forkserver")
_context.set_forkserver_preload(["tests.property.model_folders_libraries"])


@st.composite
def changes(draw: st.DrawFn, model: Path) -> dict[str, bytes | None]:
    """Draw one or two files of a model with other content; None stands for a removed file."""
    names = sorted(str(path.relative_to(model)) for path in model.rglob("*") if path.is_file())
    texts = [name for name in names if not name.endswith(".safetensors")]
    # Most faults are in the configurations, and only they say much.
    weighted = texts + [name for name in texts if "config" in name] * 5 + names
    changed: dict[str, bytes | None] = {}
    for name in draw(st.lists(st.sampled_from(weighted), min_size=1, max_size=2, unique=True)):
        changed[name] = draw(_content(name, (model / name).read_bytes()))
    return changed


def _content(name: str, content: bytes) -> st.SearchStrategy[bytes | None]:
    if name.endswith(".safetensors"):
        size = 8 + int.from_bytes(content[:8], "little")
        headers = strategies.edited(content[:size], 2)
        return headers.map(lambda header: header + content[size:])
    if not name.endswith(".json"):
        return strategies.edited(content, 3)
    document = json.loads(content)
    few = strategies.mutated(document, 2)
    return st.one_of(
        strategies.encoded(few),
        strategies.encoded(few),
        strategies.encoded(few),
        strategies.edited(content, 2),
        st.none(),
    )


def write(model: Path, changed: dict[str, bytes | None], folder: Path) -> None:
    """Write a model with changed files; the unchanged ones are links to the same content."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model, folder, copy_function=os.link)
    for name, content in changed.items():
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)


def verdict_of(folder: Path) -> tuple[str, str]:
    """Examine a folder in a new process; return the verdict and its words."""
    receiver, sender = _context.Pipe(duplex=False)
    process = _context.Process(target=_examine, args=(folder, sender))
    process.start()
    sender.close()
    try:
        verdict: tuple[str, str] = receiver.recv()
    except EOFError:
        verdict = ("died", "")
    process.join()
    if process.exitcode and process.exitcode < 0:
        return f"signal {-process.exitcode}", verdict[1]
    return verdict


def _examine(folder: Path, sender: "Connection[Any, Any]") -> None:
    confine.confine([folder], MEMORY)
    confine.extend_cpu_limit(SECONDS)
    try:
        sender.send(_verdict(folder))
    except BaseException as error:
        if not is_own_error(error):
            sender.send(("escaped", f"{type(error).__name__}: {error}"))
            raise
        sender.send(("own error", repr(error)))


def _verdict(folder: Path) -> tuple[str, str]:
    try:
        description: dict[str, Any] = describe_model(folder)
    except ModelRefused as refused:
        return REFUSED, str(refused)
    _check_limits(description)
    kind = description["tasks"][0]
    from executor.tasks import pop2piano, text_to_music

    load = pop2piano.load if kind == "pop2piano" else text_to_music.load
    try:
        loaded: Any = with_task_failures(lambda: load(folder, description["dtype"], None))
        args = {"prompt": "a slow sad piano", "seed": 1}
        if kind == "pop2piano":  # a cover takes compiled kernels
            with_task_failures(lambda: pop2piano.covers(loaded, args, [], _nothing))
        else:
            with_task_failures(lambda: text_to_music.sounds(loaded, args, _nothing))
    except ModelRefused as refused:
        return UNLOADABLE, str(refused)
    except TaskFailed as failed:
        return FAILED, str(failed)
    return RUNS, ""


def _nothing(_: float) -> None:
    return


def _check_limits(description: dict[str, Any]) -> None:
    """A document with the model's limits is valid: `network create` writes it."""
    document = fixtures.network_document()
    limits = complete_limits(description["tasks"], description["limits"], {})
    document["models"][0] |= {"tasks": description["tasks"], "limits": limits}
    Network.parse(canonical(document))


def problem(verdict: str, words: str, names: Sequence[str]) -> str:
    """Return what is wrong with a verdict; "" if nothing is."""
    if verdict not in VERDICTS:
        return f"{verdict}: {words}"
    if verdict in (REFUSED, UNLOADABLE):
        if not (FILE_NAME.search(words) or any(name in words for name in names)):
            return f"names no file: {words}"
        if "\n" in words or len(words) > 1_000:
            return f"is no sentence: {words:.1100}"
    return ""
