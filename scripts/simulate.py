"""Many histories, or one with its trace: the shell over `tests.simulation`.

    scripts/simulate --seeds 0..1000 --nodes 4..31
    scripts/simulate --replay 4711 --nodes 4..31

A seed with the same --nodes, --faulty and --level always names the same history. Exit code 1 and a
line for each seed that breaks an invariant.
"""

import itertools
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click

from tests.simulation.play import LEVELS, Played, Wish, play
from tests.simulation.report import Report

CHUNK = 20  # seeds that a process takes at a time
SHOWN = 20  # broken seeds that are named one by one


@dataclass(frozen=True, slots=True)
class _Chunk:
    wish: Wish
    seeds: Sequence[int]


def _range(text: str) -> tuple[int, int]:
    low, _, high = text.partition("..")
    try:
        found = int(low), int(high or low)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither N nor N..M") from None
    if not 0 <= found[0] <= found[1]:
        raise click.BadParameter(f"{text!r}: N..M with N at most M")
    return found


@click.command(help=__doc__)
@click.option("--seeds", default="0..999", metavar="A..B", help="The seeds, both included.")
@click.option(
    "--nodes", default="4..31", metavar="N..M", help="Members; small networks are drawn more often."
)
@click.option("--faulty", type=int, help="Faulty members; drawn from each seed if left out.")
@click.option(
    "--level",
    type=click.Choice(LEVELS),
    default=LEVELS[0],
    show_default=True,
    help="On a timeline, or whole daemons and clients on a virtual asyncio loop.",
)
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option(
    "--replay", type=int, metavar="SEED", help="Live through one seed and print its trace."
)
def main(
    seeds: str, nodes: str, faulty: int | None, level: str, jobs: int, replay: int | None
) -> None:
    members = _range(nodes)
    if not 1 <= members[0] <= members[1] <= 31:
        raise click.BadParameter("--nodes: 1 to 31, the largest committee that there is")
    wish = Wish(members, faulty, level)
    if replay is not None:
        sys.exit(_replay(wish, replay))
    first, last = _range(seeds)
    sys.exit(_many(wish, range(first, last + 1), jobs))


def _replay(wish: Wish, seed: int) -> int:
    played = play(wish, seed, click.echo)
    click.echo(played.story)
    click.echo(f"seed {seed}: {played.broken or 'every invariant holds'}")
    return 1 if played.broken else 0


def _many(wish: Wish, seeds: range, jobs: int) -> int:
    began, total, broken, done = time.monotonic(), Report(), list[Played](), 0
    spent = 0.0
    for report, failed, count, seconds in _played(wish, seeds, jobs):
        total.add(report)
        broken += failed
        done += count
        spent += seconds
        for played in failed[: max(0, SHOWN - len(broken) + len(failed))]:
            click.echo(f"\rseed {played.seed} ({played.story}): {played.broken}")
        if sys.stderr.isatty():
            click.echo(f"\r{done} of {len(seeds)}", nl=False, err=True)
    took = time.monotonic() - began
    click.echo(
        f"\n{done} seeds ({wish.level}) in {took:.0f} s, {done / took:.1f} seeds/s, {jobs} jobs, "
        f"{spent:.0f} s of processor time"
    )
    _show("ends of tasks at honest nodes", total.ends)
    _show("faults", total.faults)
    _show("adversaries", total.adversaries)
    _show("members", Counter({str(n): c for n, c in sorted(total.members.items())}), ranked=False)
    click.echo(f"messages {total.messages}, pieces of evidence {total.evidence}")
    click.echo(f"violations: {len(broken)}")
    for name, count in Counter(p.broken.split(":")[0] for p in broken).most_common():
        click.echo(f"  {name}: {count}")
    return 1 if broken else 0


def _played(
    wish: Wish, seeds: range, jobs: int
) -> Iterator[tuple[Report, list[Played], int, float]]:
    chunks = (_Chunk(wish, batch) for batch in _batches(seeds))
    if jobs == 1:
        yield from map(_play_all, chunks)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs) as pool:
        yield from pool.imap_unordered(_play_all, chunks)


def _batches(seeds: range) -> Iterator[Sequence[int]]:
    remaining = iter(seeds)
    while batch := list(itertools.islice(remaining, CHUNK)):
        yield batch


def _play_all(chunk: _Chunk) -> tuple[Report, list[Played], int, float]:
    began, total = time.process_time(), Report()
    played = [play(chunk.wish, seed) for seed in chunk.seeds]
    for one in played:
        total.add(one.report)
    failed = [one for one in played if one.broken]
    return total, failed, len(played), time.process_time() - began


def _show(title: str, counts: Counter[str], *, ranked: bool = True) -> None:
    items = counts.most_common() if ranked else list(counts.items())
    click.echo(f"{title}: " + ", ".join(f"{name} {count}" for name, count in items))


if __name__ == "__main__":
    main()
