"""`helium doctor`: whether this machine can serve as a node, and why not."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from executor.determinism.compute_class import (
    KINDS,
    TRANSFORMERS,
    WorkerKind,
    kind_name,
    mismatch,
)
from executor.determinism.profile import Device
from executor.errors import Abstained, EngineUnavailable
from executor.models.folders import SHIPPED, ModelFolders
from executor.models.inventory import InstalledModel, inventory
from executor.sandbox import confine
from executor.worker.process import TRACEBACK
from node.cli import interrupts, options
from node.cli.commands.doctor.clock_report import ClockReport, check_clock
from node.cli.exit_codes import Exit
from node.cli.files import FILE
from node.config.setting import settings_of
from node.config.settings import Settings
from protocol.network import Model, Network

if TYPE_CHECKING:
    from executor.worker.supervisor import WorkerStatus

DEVICES = get_args(Device)
NOT_STARTED = "its worker does not start"
# The settings that decide whether a machine can serve; limits and addresses do not.
SETTINGS = ("data_dir", "network", "key", "models_dir")

EPILOG = """\b
Examples:
  helium doctor --network network.json --key node.pem
  helium doctor --config node.toml --peer /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...

\b
Output:
  worker     a kind of worker, as `helium network class --help` lists them: the result of its
             self-test, the seconds that its start took, and for the engine the instruction set
  runtime    a fact of the worker's compute class: engine, library versions, ...
  sandbox    a confinement of the worker: what enforces it, or "not in force" and why
  model      a model found on this disk: its digest, or why it is refused
  class      a class of the network, and how the runtime of its kind of worker differs from it
  listed     a model of the network, and whether it is present
  clock      this machine's clock beside those of the network's operators: ok, warning (half of
             what the network allows), fault, or unknown and what to do
  not ready  a reason why this machine cannot serve
Exit code 0: this machine is ready. Exit code 1: it is not.
"""


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that was started.

    `instruction_set` and `threads` are the engine's; "" and 0 for transformers.
    """

    kind: str
    status: "WorkerStatus"
    instruction_set: str
    threads: int

    @property
    def reason(self) -> str:
        """Why it cannot serve; of an error without the traceback."""
        return self.status.reason.split(f" ({TRACEBACK}")[0]

    def differences(self, definition: Mapping[str, object]) -> list[str]:
        """Return the differing fields of its runtime and a class's; [] if it is of the class."""
        if not self.status.ok:
            return [f"{NOT_STARTED}: {self.reason}"]
        return mismatch(self.status.runtime, definition)


@dataclass(frozen=True, slots=True)
class Findings:
    """What decides whether this machine may serve.

    `differences` has, for each class of the network, the differing fields of the runtime, or why
    its worker does not start; `missing`, for each listed model, why it cannot be used, or "".
    `secret_risk` says why the worker could read the node's key or journal, or "".
    """

    workers: Sequence[Worker]
    models: Sequence[InstalledModel]
    differences: dict[str, list[str]]
    missing: dict[str, str]
    secret_risk: str
    clock: ClockReport

    @property
    def reasons(self) -> list[str]:
        """Why this machine cannot serve; empty if it can."""
        # One class that fits is enough.
        fits = not all(self.differences.values()) if self.differences else False
        reasons = []
        if not fits:
            reasons += [f"worker {w.kind}: {w.reason}" for w in self.workers if not w.status.ok]
            reasons += [
                f"runtime differs from class {name}: {line}"
                for name, lines in self.differences.items()
                for line in lines
                if not line.startswith(NOT_STARTED)
            ]
        reasons += [f"model {name}: {reason}" for name, reason in self.missing.items() if reason]
        reasons += [f"secret: {self.secret_risk}"] if self.secret_risk else []
        return reasons + ([f"clock: {self.clock.detail}"] if self.clock.state == "fault" else [])


def _flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add a flag for each of `SETTINGS`."""
    for setting in reversed(settings_of(Settings)):
        if setting.name in SETTINGS:
            text = f"{setting.help} [env: {setting.variable}]"
            add_flag = click.option(setting.flag, setting.name, multiple=setting.is_list, help=text)
            command = add_flag(command)
    return command


@click.command(epilog=EPILOG)
@click.option("--config", type=FILE, metavar="FILE", help="A TOML file with settings and limits.")
@_flags
@options.peers
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default=DEVICES[0],
    show_default=True,
    help="The device that transformers computes on. cuda has not been run on a GPU yet.",
)
@options.as_json
def doctor(config: Path | None, device: Device, as_json: bool, **flags: object) -> None:
    """Check whether this machine can serve as a node.

    It starts a worker of each kind that the network's classes have, which tests itself; that takes
    some seconds. Without a network document these are music and transformers. With one, it compares
    this machine's runtimes with the classes, and looks for the listed models. With peers too, it
    compares this machine's clock with theirs.
    """
    settings = options.settings(flags, config)
    # Without a network document, a machine can still be checked before it joins a network.
    network_named = bool(flags["network"]) or settings.network.exists()
    network = options.network_of(settings.network) if network_named else None
    findings = examine(settings, network, device)
    options.say(_document(findings), _lines(findings), as_json)
    if findings.reasons:
        click.get_current_context().exit(int(Exit.FAULT))


def examine(settings: Settings, network: Network | None, device: Device) -> Findings:
    """Return everything that decides whether this machine may serve; starts workers."""
    folders = [*settings.models_dir, SHIPPED]
    classes = network.classes if network else {}
    listed = network.models.values() if network else ()
    # This machine may become a member of any class, so all are compared.
    kinds = {name: WorkerKind.of(runtime) for name, runtime in classes.items()}
    workers = {
        name: Worker(name, start_worker(folders, kind), *_engine(name, settings.engine_threads))
        for name, kind in named_kinds(kinds.values(), device).items()
    }
    return Findings(
        [*workers.values()],
        inventory(settings.models_dir),
        {name: workers[kind_name(kind)].differences(classes[name]) for name, kind in kinds.items()},
        {f"{model.id}@{model.revision}": _why_missing(folders, model) for model in listed},
        _secret_risk(settings, folders),
        check_clock(network, settings.peers),
    )


def named_kinds(kinds: Iterable[WorkerKind], device: Device) -> dict[str, WorkerKind]:
    """Return the kinds of workers to start, by name; transformers computes on `device`."""
    chosen = [*kinds] or [KINDS["music"], TRANSFORMERS]
    return {
        kind_name(kind): replace(kind, device=device if kind.engine == "transformers" else "cpu")
        for kind in chosen
    }


def _engine(kind: str, threads: int) -> tuple[str, int]:
    """Return the engine's instruction set and number of threads, where a kind computes with it.

    `threads` is the setting; 0 is the default number. ("", 0) if the engine is not there.
    """
    # Imported here: the engine needs numpy, and `helium --help` does not.
    from executor.engine.library import instruction_set
    from executor.worker.backends.engine import default_threads

    try:
        return (
            ("", 0) if kind == "transformers" else (instruction_set(), threads or default_threads())
        )
    except EngineUnavailable:
        return "", 0


def start_worker(folders: Sequence[Path], kind: WorkerKind) -> "WorkerStatus":
    """Start a worker, return the status that it reports, and end it."""
    # Imported here: `helium network show` needs no worker.
    from executor.worker.supervisor import temporary_worker

    with interrupts.cleanly(), temporary_worker(folders, kind) as (_, status):
        return status


def _why_missing(folders: Sequence[Path], model: Model) -> str:
    """Return why a listed model cannot be used here; "" if it can."""
    try:
        ModelFolders(folders).find(model.id, model.revision, model.digest)
    except Abstained as abstained:
        return abstained.detail
    return ""


def _secret_risk(settings: Settings, folders: Sequence[Path]) -> str:
    """Return why a worker could read the node's key or its journal; "" if it could not."""
    readable = confine.readable_paths(folders)
    for secret in (settings.key, settings.data_dir):
        folder = confine.folder_granting(secret, readable) if secret.exists() else None
        if folder is not None:
            return f"{secret} can be read by the worker, which reads {folder}"
    return ""


def _document(findings: Findings) -> dict[str, object]:
    return {
        "ready": not findings.reasons,
        "reasons": findings.reasons,
        "workers": [
            {
                "kind": worker.kind,
                "self_test": worker.status.ok,
                "reason": worker.reason or None,
                "seconds": round(worker.status.seconds, 3),
                "instruction_set": worker.instruction_set or None,
                "threads": worker.threads or None,
                "runtime": worker.status.runtime,
                "sandbox": dict(worker.status.sandbox),
            }
            for worker in findings.workers
        ],
        "models": [
            {
                "id": model.id,
                "revision": model.revision,
                "folder": str(model.folder),
                "digest": model.digest or None,
                "refused": model.refused or None,
            }
            for model in findings.models
        ],
        "classes": findings.differences,
        "listed": {name: reason or None for name, reason in findings.missing.items()},
        "clock": asdict(findings.clock),
    }


def _lines(findings: Findings) -> list[str]:
    """Return the findings as lines, whether the machine is ready last."""
    return [
        *(line for worker in findings.workers for line in _worker_lines(worker)),
        *(f"model     {_model_line(model)}" for model in findings.models),
        *(
            f"class     {name}: {'; '.join(fields) or 'is what this machine computes with'}"
            for name, fields in findings.differences.items()
        ),
        *(f"listed    {name}: {reason or 'present'}" for name, reason in findings.missing.items()),
        f"clock     {findings.clock.line}",
        *(f"not ready {reason}" for reason in findings.reasons),
        *(() if findings.reasons else ("ready",)),
    ]


def _worker_lines(worker: Worker) -> list[str]:
    status = worker.status
    self_test = "self-test passed" if status.ok else worker.reason
    engine = f", {worker.instruction_set}, threads {worker.threads}" if worker.threads else ""
    return [
        f"worker    {worker.kind}: {self_test}, {status.seconds:.1f} s{engine}",
        *(f"runtime   {name} {value}" for name, value in status.runtime.items()),
        *(f"sandbox   {name}: {state}" for name, state in status.sandbox.items()),
    ]


def _model_line(model: InstalledModel) -> str:
    revision = f"@{model.revision}" if model.revision else ""
    state = f"refused: {model.refused}" if model.refused else model.digest
    return f"{model.id}{revision} {state} ({model.folder})"
