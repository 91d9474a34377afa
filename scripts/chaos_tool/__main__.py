"""`scripts/chaos`: faults, progress, an inspection, and exit code 1 if anything was wrong."""

import asyncio
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from node.cli.exit_codes import Exit, Failure
from node.cli.session import silence_libp2p
from node.config import log_setup
from protocol.network import NetworkParameters
from scripts.chaos_tool.checks import Inspected, agreement_times, inspect
from scripts.chaos_tool.cluster import Field, fielded
from scripts.chaos_tool.faults import Scenes
from scripts.chaos_tool.report import Report, document, lines
from scripts.chaos_tool.wish import SCENES, Wish
from scripts.testnet_tool.nodes import NodeDown

TELL_SECONDS = 10.0
ATTEMPT_SECONDS = 30.0  # half a partition: tasks go through attempts while it lasts
GRACE = 3.0  # seconds; liars commit at once, and the honest a second apart on two busy cores


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--nodes", type=click.IntRange(3, 31), default=10, show_default=True)
@click.option("--kills", type=click.IntRange(0), default=500, show_default=True)
@click.option("--commit-kills", type=click.IntRange(0), default=100, show_default=True)
@click.option("--stops", type=click.IntRange(0), default=50, show_default=True)
@click.option("--cuts", type=click.IntRange(0), default=100, show_default=True, help="Of links.")
@click.option("--partitions", type=click.IntRange(0), default=4, show_default=True)
@click.option("--liars", type=click.IntRange(0), default=3, show_default=True)
@click.option("--liar-tasks", type=click.IntRange(0), default=200, show_default=True)
@click.option("--fault-seconds", type=float, default=8.0, show_default=True)
@click.option("--partition-seconds", type=float, default=60.0, show_default=True)
@click.option("--seed", type=int, help="Chooses the faults. [default: a fresh one]")
@click.option("--only", type=click.Choice(SCENES), multiple=True, help="Only these faults.")
@click.option("--real", is_flag=True, help="The real executor instead of the light one.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Kept if named.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON document.")
def chaos(
    seed: int | None, only: Sequence[str], out: Path | None, *, as_json: bool, **counts: object
) -> None:
    """Do what happens to networks to one on this machine, and look for what was lost by it.

    Daemons are killed, stopped, cut off from each other and lied to, while tasks are submitted.
    Then all databases are searched. Exit code 1, and the folders are kept, if anything was lost,
    wrong, signed twice, or is held against an honest node.
    """
    root = (out or Path(tempfile.mkdtemp(prefix="chaos-"))).absolute()
    drawn = random.SystemRandom().randrange(10**6) if seed is None else seed
    wish = Wish(seed=drawn, scenes=frozenset(only or SCENES), out=root, **counts)  # type: ignore[arg-type]
    signal.signal(signal.SIGTERM, _interrupted)
    log_setup.configure("error", "auto")
    silence_libp2p()
    _note(f"seed {wish.seed}, folders in {root}")
    try:
        found = document(asyncio.run(_all(wish)))
    except (NodeDown, FileExistsError) as error:
        raise Failure(Exit.FAULT, str(error)) from None
    except KeyboardInterrupt:
        raise Failure(Exit.INTERRUPTED, "interrupted") from None
    summary = {"seed": wish.seed, "nodes": wish.nodes, "load_average": os.getloadavg(), **found}
    click.echo(json.dumps(summary) if as_json else "\n".join(lines(summary)))
    if summary["violations"]:
        _note(f"kept for a look: {root}")
        raise SystemExit(Exit.FAULT)
    if out is None:
        shutil.rmtree(root)


async def _all(wish: Wish) -> list[Report]:
    """Run the networks one after the other: an honest one, and one with liars.

    The liars tell one lie, so the committee is large enough for them to be a minority in it.
    """
    reports = []
    honest = [name for name in SCENES[:-1] if name in wish.scenes]
    if honest:
        parameters = NetworkParameters(attempt_seconds=ATTEMPT_SECONDS)
        reports.append(await _one("honest", honest, wish, parameters, 0))
    if "liars" in wish.scenes:
        size = min(wish.nodes, 2 * wish.liars + 1)
        parameters = NetworkParameters(size, max(size, 7), commit_grace_seconds=GRACE)
        reports.append(await _one("liars", ["liars"], wish, parameters, wish.liars))
    return reports


async def _one(
    name: str, scenes: Sequence[str], wish: Wish, parameters: NetworkParameters, liars: int
) -> Report:
    began = time.monotonic()
    async with fielded(wish.out / name, wish, parameters, liars) as field:
        _note(f"{name}: {wish.nodes} nodes are up after {time.monotonic() - began:.1f} s")
        happening = Scenes(field, wish, _note)
        telling = asyncio.create_task(_tell(field, happening))
        try:
            for scene in scenes:
                _note(f"{name}: {scene}")
                await getattr(happening, scene)()
            await happening.settle()
        except* NodeDown as down:
            happening.trouble.extend(map(str, _leaves(down)))
        finally:
            telling.cancel()
    _note(f"{name}: inspecting")
    found = inspect(field.network, field.places, field.noted)
    return _report(name, field, happening, found, time.monotonic() - began)


def _report(
    name: str,
    field: Field,
    happening: Scenes,
    found: Inspected,
    seconds: float,
) -> Report:
    return Report(
        name,
        happening.counts,
        field.noted.unlucky,
        field.noted.restarts,
        agreement_times(field.places, field.noted),
        found,
        [*happening.trouble, *found.violations],
        seconds,
    )


async def _tell(field: Field, happening: Scenes) -> None:
    while True:
        await asyncio.sleep(TELL_SECONDS)
        faults = ", ".join(f"{what} {count}" for what, count in happening.counts.items())
        noted = field.noted
        _note(f"  {len(noted.certified)} of {len(noted.submitted)} tasks settled; {faults}")


def _leaves(group: BaseExceptionGroup[NodeDown]) -> Iterator[NodeDown]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


def _interrupted(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _note(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    chaos(prog_name="chaos")
