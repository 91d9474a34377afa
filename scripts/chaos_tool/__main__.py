"""`scripts/chaos`: run networks, inject faults, show progress, check what is left."""

import asyncio
import json
import math
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from node.cli import interrupts
from node.cli.exit_codes import Exit, Failure
from node.cli.session import silence_libp2p
from node.config import log_setup
from protocol.network import NetworkParameters
from scripts import one_line
from scripts.chaos_tool.checks import CheckResult, agreement_seconds, check
from scripts.chaos_tool.cluster import Cluster, running_cluster
from scripts.chaos_tool.faults import FaultInjector
from scripts.chaos_tool.options import FAULT_KINDS, ChaosOptions
from scripts.chaos_tool.report import NetworkReport, document, table
from scripts.testnet_tool.folder import FolderInUse, FolderNotUsable
from scripts.testnet_tool.nodes import NodeDown

# Seconds between two lines of progress.
PROGRESS_SECONDS = 10.0
# Half of a partition by default, so that tasks go through several attempts while it lasts.
ATTEMPT_SECONDS = 30.0
# Liars commit at once, honest nodes up to a second apart on two busy cores.
LIARS_GRACE_SECONDS = 3.0


# A day: a longer fault is a mistake.
MAX_SECONDS = 86_400.0

Decorator = Callable[[Any], Any]


class _Seconds(click.FloatRange):
    """A duration. NaN is none, though it is outside no range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value} is not a number of seconds", param, ctx)
        return seconds


def count_option(
    flag: str, default: int, minimum: int = 0, maximum: int | None = None
) -> Decorator:
    """Return a click option that counts something."""
    return click.option(flag, type=click.IntRange(minimum, maximum), default=default)


def seconds_option(flag: str, default: float) -> Decorator:
    """Return a click option that is a duration in seconds."""
    return click.option(flag, type=_Seconds(0, MAX_SECONDS, min_open=True), default=default)


# `scripts/chaos` prints the help, before it installs anything.
@click.command(cls=one_line.Command, add_help_option=False)
@count_option("--nodes", 10, 3, 31)
@count_option("--kills", 500)
@count_option("--commit-kills", 100)
@count_option("--stops", 50)
@count_option("--cuts", 100)
@count_option("--partitions", 4)
@count_option("--liars", 3)
@count_option("--liar-tasks", 200)
@seconds_option("--fault-seconds", 8.0)
@seconds_option("--partition-seconds", 60.0)
@click.option("--seed", type=int)
@click.option("--only", type=click.Choice(FAULT_KINDS), multiple=True)
@click.option("--real", is_flag=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True)
def chaos(
    seed: int | None, only: Sequence[str], out: Path | None, *, as_json: bool, **counts: Any
) -> None:
    """Inject faults into networks on this machine, then check that nothing was lost."""
    liars, nodes = counts["liars"], counts["nodes"]
    if (not only or "liars" in only) and 2 * liars >= nodes:
        raise click.UsageError(f"--liars {liars}: must be fewer than half of --nodes {nodes}")
    root = (out or Path(tempfile.mkdtemp(prefix="chaos-"))).absolute()
    options = ChaosOptions(
        seed=random.SystemRandom().randrange(10**6) if seed is None else seed,
        kinds=frozenset(only or FAULT_KINDS),
        out=root,
        **counts,
    )
    log_setup.configure("error", "auto")
    silence_libp2p()
    _show(f"seed {options.seed}, folders in {root}")
    try:
        figures = document(interrupts.run(_run_networks(options)))
    except (FileExistsError, FolderInUse, FolderNotUsable) as error:
        raise Failure(Exit.USAGE, f"--out: {error}") from None
    head = {"seed": options.seed, "nodes": options.nodes, "load_average": os.getloadavg()}
    summary = {**head, **figures}
    click.echo(json.dumps(summary) if as_json else "\n".join(table(summary)))
    if summary["violations"]:
        _show(f"databases and logs are kept in {root}")
        raise SystemExit(Exit.FAULT)
    if out is None:
        shutil.rmtree(root)


async def _run_networks(options: ChaosOptions) -> list[NetworkReport]:
    """Run a network of honest nodes, then one with liars.

    All liars send the same result. The committee is large enough to keep them a minority.
    """
    reports = []
    kinds = [kind for kind in FAULT_KINDS[:-1] if kind in options.kinds]
    if kinds:
        parameters = NetworkParameters(attempt_seconds=ATTEMPT_SECONDS)
        reports.append(await _run_network("honest", kinds, options, parameters, 0))
    if "liars" in options.kinds:
        size = min(options.nodes, 2 * options.liars + 1)
        parameters = NetworkParameters(size, max(size, 7), commit_grace_seconds=LIARS_GRACE_SECONDS)
        reports.append(await _run_network("liars", ["liars"], options, parameters, options.liars))
    return reports


async def _run_network(
    name: str,
    kinds: Sequence[str],
    options: ChaosOptions,
    parameters: NetworkParameters,
    liars: int,
) -> NetworkReport:
    started = time.monotonic()
    async with running_cluster(options.out / name, options, parameters, liars) as cluster:
        _show(f"{name}: {options.nodes} nodes are ready after {time.monotonic() - started:.1f} s")
        injector = FaultInjector(cluster, options, _show)
        progress = asyncio.create_task(_show_progress(cluster, injector))
        try:
            for kind in kinds:
                _show(f"{name}: {kind}")
                await injector.inject(kind)
            await injector.wait_settled()
        except* NodeDown as group:
            injector.problems.extend(map(str, _flatten(group)))
        finally:
            progress.cancel()
    _show(f"{name}: checking databases, logs and gossip")
    result = check(cluster.network, cluster.nodes, cluster.observed)
    return _report(name, cluster, injector, result, time.monotonic() - started)


def _report(
    name: str, cluster: Cluster, injector: FaultInjector, result: CheckResult, seconds: float
) -> NetworkReport:
    return NetworkReport(
        name,
        injector.counts,
        cluster.observed.failures,
        cluster.observed.restart_seconds,
        agreement_seconds(cluster.nodes, cluster.observed),
        result,
        [*injector.problems, *result.violations],
        seconds,
    )


async def _show_progress(cluster: Cluster, injector: FaultInjector) -> None:
    observed = cluster.observed
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        faults = ", ".join(f"{kind} {count}" for kind, count in injector.counts.items())
        tasks = f"{len(observed.certified)} of {len(observed.submitted)} tasks certified"
        _show(f"  {tasks}; {faults}")


def _flatten(group: BaseExceptionGroup[NodeDown]) -> Iterator[NodeDown]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flatten(error)
        else:
            yield error


def _show(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    one_line.run(lambda: chaos(prog_name="scripts/chaos", standalone_mode=False))
