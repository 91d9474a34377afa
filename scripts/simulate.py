"""Simulate whole networks in virtual time, one scenario per seed, and check all invariants.

A seed with the same --nodes and --faulty always gives the same run. `scripts/simulate` prints the
help.
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

from scripts import one_line
from tests.simulation.report import Report
from tests.simulation.runner import RunConfig, RunResult, run_seed

# Seeds that a process takes at a time.
CHUNK = 10
# The largest committee.
MAX_NODES = 31
# More than any machine has cores.
MAX_JOBS = 1024
# Failed seeds that are listed one by one.
MAX_LISTED = 20


@dataclass(frozen=True, slots=True)
class _Chunk:
    config: RunConfig
    seeds: Sequence[int]


class _Range(click.ParamType):
    """N or N..M: the first and the last whole number, within bounds."""

    name = "range"

    def __init__(self, low: int, high: int | None = None) -> None:
        self._low, self._high = low, high

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        low, _, high = value.partition("..")
        try:
            first, last = int(low), int(high or low)
        except ValueError:
            self.fail(f"{value!r} is neither N nor N..M", param, ctx)
        if first > last:
            self.fail(f"{value!r} is not N..M with N at most M", param, ctx)
        if first < self._low or (self._high is not None and last > self._high):
            bounds = f"{self._low} or more" if self._high is None else f"{self._low}..{self._high}"
            self.fail(f"{value!r} is not within {bounds}", param, ctx)
        return first, last


@click.command(cls=one_line.Command, add_help_option=False)
@click.option("--seeds", type=_Range(0), default="0..999")
@click.option("--nodes", type=_Range(1, MAX_NODES), default="4..31")
@click.option("--faulty", type=click.IntRange(0, MAX_NODES))
@click.option("--jobs", type=click.IntRange(1, MAX_JOBS), default=os.cpu_count() or 1)
@click.option("--replay", type=click.IntRange(0))
def main(
    seeds: tuple[int, int],
    nodes: tuple[int, int],
    faulty: int | None,
    jobs: int,
    replay: int | None,
) -> None:
    config = RunConfig(nodes, faulty)
    if replay is not None:
        sys.exit(_replay(config, replay))
    first, last = seeds
    sys.exit(_many(config, range(first, last + 1), jobs))


def _replay(config: RunConfig, seed: int) -> int:
    result = run_seed(config, seed, click.echo)
    click.echo(result.summary)
    click.echo(f"seed {seed}: {result.violation or 'every invariant holds'}")
    return 1 if result.violation else 0


def _many(config: RunConfig, seeds: range, jobs: int) -> int:
    start, total, violations, done = time.monotonic(), Report(), list[RunResult](), 0
    processor_seconds = 0.0
    for report, failed, count, seconds in _run_chunks(config, seeds, jobs):
        total.add(report)
        violations += failed
        done += count
        processor_seconds += seconds
        for result in failed[: max(0, MAX_LISTED - len(violations) + len(failed))]:
            click.echo(f"\rseed {result.seed} ({result.summary}): {result.violation}")
        if sys.stderr.isatty():
            click.echo(f"\r{done} of {len(seeds)}", nl=False, err=True)
    seconds = time.monotonic() - start
    click.echo(
        f"\n{done} seeds in {seconds:.0f} s, {done / seconds:.1f} seeds/s, {jobs} jobs, "
        f"{processor_seconds:.0f} s of processor time"
    )
    _show("final task states at honest nodes", total.ends)
    _show("faults", total.faults)
    _show("adversaries", total.adversaries)
    _show("members", Counter({str(n): c for n, c in sorted(total.members.items())}), ranked=False)
    click.echo(f"pieces of evidence: {total.evidence}")
    click.echo(f"violations: {len(violations)}")
    for name, count in Counter(p.violation.split(":")[0] for p in violations).most_common():
        click.echo(f"  {name}: {count}")
    return 1 if violations else 0


def _run_chunks(
    config: RunConfig, seeds: range, jobs: int
) -> Iterator[tuple[Report, list[RunResult], int, float]]:
    chunks = (_Chunk(config, batch) for batch in _batches(seeds))
    if jobs == 1:
        yield from map(_run_chunk, chunks)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs) as pool:
        yield from pool.imap_unordered(_run_chunk, chunks)


def _batches(seeds: range) -> Iterator[Sequence[int]]:
    remaining = iter(seeds)
    while batch := list(itertools.islice(remaining, CHUNK)):
        yield batch


def _run_chunk(chunk: _Chunk) -> tuple[Report, list[RunResult], int, float]:
    start, total = time.process_time(), Report()
    results = [run_seed(chunk.config, seed) for seed in chunk.seeds]
    for result in results:
        total.add(result.report)
    failed = [result for result in results if result.violation]
    return total, failed, len(results), time.process_time() - start


def _show(title: str, counts: Counter[str], *, ranked: bool = True) -> None:
    items = counts.most_common() if ranked else list(counts.items())
    click.echo(f"{title}: " + ", ".join(f"{name} {count}" for name, count in items))


if __name__ == "__main__":
    one_line.run(lambda: main(prog_name="scripts/simulate", standalone_mode=False))
