"""`helium doctor`: whether this machine can serve as a node, and why not."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from executor.determinism.compute_class import WorkerKind, mismatch
from executor.determinism.profile import Device
from executor.errors import Abstained
from executor.models.folders import SHIPPED, ModelFolders
from executor.models.inventory import InstalledModel, inventory
from executor.sandbox import confine
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
# The settings that decide whether a machine can serve; limits and addresses do not.
SETTINGS = ("data_dir", "network", "key", "models_dir")

EPILOG = """\b
Examples:
  helium doctor --network network.json --key node.pem
  helium doctor --config node.toml --peer /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...

\b
Output:
  runtime    a fact of the compute class: device, architecture, library versions, ...
  sandbox    a confinement of the worker: what enforces it, or "not in force" and why
  model      a model found on this disk: its digest, or why it is refused
  class      a class of the network, and how this machine's runtime differs from it
  listed     a model of the network, and whether it is present
  worker     the result of the self-test, and the seconds that it took
  clock      this machine's clock beside those of the network's operators: ok, warning (half of
             what the network allows), fault, or unknown and what to do
  not ready  a reason why this machine cannot serve
Exit code 0: this machine is ready. Exit code 1: it is not.
"""


@dataclass(frozen=True, slots=True)
class Findings:
    """What decides whether this machine may serve.

    `differences` has, for each class of the network, the differing fields of the runtime;
    `missing`, for each listed model, why it cannot be used, or "". `secret_risk` says why the
    worker could read the node's key or journal, or "".
    """

    worker: "WorkerStatus"
    models: Sequence[InstalledModel]
    differences: dict[str, list[str]]
    missing: dict[str, str]
    secret_risk: str
    clock: ClockReport

    @property
    def reasons(self) -> list[str]:
        """Why this machine cannot serve; empty if it can."""
        reasons = [] if self.worker.ok else [f"worker: {self.worker.reason}"]
        # One class that fits is enough.
        if self.worker.ok and self.differences and all(self.differences.values()):
            reasons += [
                f"runtime differs from class {name}: {line}"
                for name, lines in self.differences.items()
                for line in lines
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
    help="The device to compute on. cuda has not been run on a GPU yet.",
)
@options.as_json
def doctor(config: Path | None, device: Device, as_json: bool, **flags: object) -> None:
    """Check whether this machine can serve as a node.

    It starts a worker once, which tests itself; that takes some seconds. With a network document
    it compares this machine's runtime with the classes, and looks for the listed models. With
    peers too, it compares this machine's clock with theirs.
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
    """Return everything that decides whether this machine may serve; starts a worker once."""
    folders = [*settings.models_dir, SHIPPED]
    worker = start_worker(folders, device)
    classes = network.classes if network else {}
    listed = network.models.values() if network else ()
    return Findings(
        worker,
        inventory(settings.models_dir),
        # This machine may become a member of any class, so all are compared.
        {name: mismatch(worker.runtime, definition) for name, definition in classes.items()},
        {f"{model.id}@{model.revision}": _why_missing(folders, model) for model in listed},
        _secret_risk(settings, folders),
        check_clock(network, settings.peers),
    )


def start_worker(folders: Sequence[Path], device: Device) -> "WorkerStatus":
    """Start a worker, return the status that it reports, and end it."""
    # Imported here: `helium network show` needs no worker.
    from executor.worker.supervisor import START_SECONDS, WorkerSupervisor

    with interrupts.cleanly(), tempfile.TemporaryDirectory(prefix="helium-") as scratch:
        supervisor = WorkerSupervisor(folders, Path(scratch), kind=WorkerKind(device=device))
        try:
            return supervisor.start(START_SECONDS)
        finally:
            supervisor.close()


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
    worker = findings.worker
    return {
        "ready": not findings.reasons,
        "reasons": findings.reasons,
        "self_test": worker.ok,
        "seconds": round(worker.seconds, 3),
        "runtime": worker.runtime,
        "sandbox": dict(worker.sandbox),
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
    worker = findings.worker
    self_test = "self-test passed" if worker.ok else worker.reason
    return [
        *(f"runtime   {name} {value}" for name, value in worker.runtime.items()),
        *(f"sandbox   {name}: {state}" for name, state in worker.sandbox.items()),
        *(f"model     {_model_line(model)}" for model in findings.models),
        *(
            f"class     {name}: {'; '.join(fields) or 'is what this machine computes with'}"
            for name, fields in findings.differences.items()
        ),
        *(f"listed    {name}: {reason or 'present'}" for name, reason in findings.missing.items()),
        f"worker    {self_test}, {worker.seconds:.1f} s",
        f"clock     {findings.clock.line}",
        *(f"not ready {reason}" for reason in findings.reasons),
        *(() if findings.reasons else ("ready",)),
    ]


def _model_line(model: InstalledModel) -> str:
    revision = f"@{model.revision}" if model.revision else ""
    state = f"refused: {model.refused}" if model.refused else model.digest
    return f"{model.id}{revision} {state} ({model.folder})"
