"""`helium doctor`: whether this machine can serve, and if not, why not."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from executor.determinism.compute_class import mismatch
from executor.determinism.profile import Device
from executor.errors import Abstained
from executor.models.folders import SHIPPED, ModelFolders
from executor.models.inventory import InstalledModel, inventory
from executor.sandbox import confine
from node.cli import options
from node.cli.exit_codes import Exit
from node.cli.files import FILE
from node.config.setting import settings_of
from node.config.settings import Settings
from protocol.network import Network

if TYPE_CHECKING:
    from executor.worker.supervisor import WorkerStatus

DEVICES = get_args(Device)
SETTINGS = ("data_dir", "network", "key", "models_dir")


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found. `differences` has a class's lines, `missing` a listed model's reason."""

    worker: "WorkerStatus"
    models: Sequence[InstalledModel]
    differences: dict[str, list[str]]
    missing: dict[str, str]
    key_readable_by_worker: str

    @property
    def reasons(self) -> list[str]:
        """Why this machine cannot serve; empty if it can."""
        reasons = [] if self.worker.ok else [f"worker: {self.worker.reason}"]
        if self.worker.ok and self.differences and all(self.differences.values()):
            reasons += [
                f"runtime differs from class {name}: {line}"
                for name, lines in self.differences.items()
                for line in lines
            ]
        reasons += [f"model {name}: {why}" for name, why in self.missing.items() if why]
        return reasons + (
            [f"key: {self.key_readable_by_worker}"] if self.key_readable_by_worker else []
        )


def _flags(command: Callable[..., Any]) -> Callable[..., Any]:
    for setting in reversed(settings_of(Settings)):
        if setting.name in SETTINGS:
            text = f"{setting.help} [env: {setting.variable}]"
            add_flag = click.option(setting.flag, setting.name, multiple=setting.is_list, help=text)
            command = add_flag(command)
    return command


@click.command()
@click.option("--config", type=FILE, metavar="FILE", help="A TOML file with any of the settings.")
@_flags
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default=DEVICES[0],
    show_default=True,
    help="What to compute with. cuda has not been run on a GPU yet.",
)
@options.as_json
def doctor(config: Path | None, device: Device, as_json: bool, **flags: object) -> None:
    """Show what this machine computes with, and whether it is ready to serve.

    Starts a worker once, which tests itself: it takes some seconds. Shows the runtime that makes
    its compute class, what keeps the worker from the rest of the machine, and the models found.
    Compares with the network document, if there is one. Exit code 0 if ready, 1 if not.
    """
    settings = options.settings(flags, config)
    given = bool(flags["network"]) or settings.network.exists()
    network = options.network_of(settings.network) if given else None
    findings = examine(settings, network, device)
    options.say(document(findings), lines(findings), as_json)
    if findings.reasons:
        click.get_current_context().exit(int(Exit.FAULT))


def examine(settings: Settings, network: Network | None, device: Device) -> Findings:
    """Start a worker and look at everything that decides whether it may serve."""
    folders = [*settings.models_dir, SHIPPED]
    worker = start_worker(folders, device)
    listed = network.models.values() if network else ()
    return Findings(
        worker,
        inventory(settings.models_dir),
        {
            name: mismatch(worker.runtime, runtime)
            for name, runtime in (network.classes.items() if network else ())
        },
        {
            f"{model.id}@{model.revision}": missing(folders, model.id, model.revision, model.digest)
            for model in listed
        },
        key_readable_by_worker(settings.key, folders),
    )


def start_worker(folders: Sequence[Path], device: Device) -> "WorkerStatus":
    """A worker's own account of itself; it is ended again."""
    from executor.worker.supervisor import START_SECONDS, WorkerSupervisor

    with tempfile.TemporaryDirectory(prefix="helium-") as scratch:
        supervisor = WorkerSupervisor(folders, Path(scratch), device=device)
        try:
            return supervisor.start(START_SECONDS)
        finally:
            supervisor.close()


def missing(folders: Sequence[Path], id_: str, revision: str, digest: str) -> str:
    """Why a listed model cannot be used here; "" if it can."""
    try:
        ModelFolders(folders).find(id_, revision, digest)
    except Abstained as abstained:
        return abstained.detail
    return ""


def key_readable_by_worker(key: Path, folders: Sequence[Path]) -> str:
    """Why a worker could read the node's key; "" if it could not, or if there is none."""
    reader = confine.folder_granting(key, confine.readable_paths(folders)) if key.exists() else None
    return f"{key} can be read by the worker, which reads {reader}" if reader else ""


def document(findings: Findings) -> dict[str, object]:
    """The findings as a JSON document."""
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
        "listed": {name: why or None for name, why in findings.missing.items()},
    }


def lines(findings: Findings) -> list[str]:
    """The findings for people, the verdict last."""
    worker = findings.worker
    said = "self-test passed" if worker.ok else worker.reason
    return [
        *(f"runtime   {name} {value}" for name, value in worker.runtime.items()),
        *(f"sandbox   {name}: {state}" for name, state in worker.sandbox.items()),
        *(f"model     {model_line(model)}" for model in findings.models),
        *(
            f"class     {name}: {'; '.join(differing) or 'is what this machine computes with'}"
            for name, differing in findings.differences.items()
        ),
        *(f"listed    {name}: {why or 'present'}" for name, why in findings.missing.items()),
        f"worker    {said}, {worker.seconds:.1f} s",
        *(f"not ready {reason}" for reason in findings.reasons),
        *(() if findings.reasons else ("ready",)),
    ]


def model_line(model: InstalledModel) -> str:
    """One model for people."""
    revision = f"@{model.revision}" if model.revision else ""
    state = f"refused: {model.refused}" if model.refused else model.digest
    return f"{model.id}{revision} {state} ({model.folder})"
