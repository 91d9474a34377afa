"""`scripts/mutants`: every mutant, the test that killed it, and exit code 1 if one survived."""

import json
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue

import click

from scripts.mutation.planted import Mutant, planted, stale
from scripts.mutation.trial import SUITES, Copy, Unsound, Verdict


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, metavar="NAME", help="Only this mutant; repeatable.")
@click.option(
    "--suite", "suites", type=click.Choice(list(SUITES)), multiple=True, help="Only these tests."
)
@click.option("--list", "listing", is_flag=True, help="Name the mutants and their rules.")
@click.option("--check", "checking", is_flag=True, help="Say whether all can still be planted.")
@click.option("--jobs", type=click.IntRange(1, 16), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
def mutants(
    only: Sequence[str],
    suites: Sequence[str],
    jobs: int,
    *,
    listing: bool,
    checking: bool,
    as_json: bool,
) -> None:
    """Break the protocol's rules one by one, and see which test notices.

    Each mutant is planted in a copy of the tree. The tests of its own module are tried first, then
    those of the protocol, the node and the simulation, all of which must pass without it. Exit code
    1 if a mutant survived or its text is not to be found any more.
    """
    chosen = _chosen(only)
    if listing:
        for mutant in chosen:
            click.echo(f"{mutant.name}: {mutant.rule} ({mutant.file})")
        return
    if lines := stale(chosen):
        raise click.ClickException("\n".join(lines))
    if checking:
        click.echo(f"{len(chosen)} mutants can be planted")
        return
    verdicts = []
    try:
        for verdict in _tried(
            chosen, [name for name in SUITES if name in (suites or SUITES)], jobs
        ):
            verdicts.append(verdict)
            click.echo(f"{len(verdicts)}/{len(chosen)} {line(verdict)}", err=as_json)
    except Unsound as unsound:
        raise click.ClickException(str(unsound)) from None
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    _summarise(verdicts, spent.ru_utime + spent.ru_stime, as_json=as_json)
    sys.exit(any(verdict.survived for verdict in verdicts))


def line(verdict: Verdict) -> str:
    """What became of a mutant, in a line."""
    name, seconds = verdict.mutant.name, f"{verdict.seconds:.0f} s"
    if verdict.survived:
        return f"{name}: SURVIVED ({seconds}); it breaks {verdict.mutant.rule}"
    mark = "" if verdict.how == "failed" else f" [{verdict.how}]"
    return f"{name}: killed{mark} by {verdict.test} ({seconds})"


def _chosen(only: Sequence[str]) -> tuple[Mutant, ...]:
    every = planted()
    if unknown := set(only) - {mutant.name for mutant in every}:
        raise click.ClickException(f"no such mutant: {', '.join(sorted(unknown))}")
    return tuple(mutant for mutant in every if not only or mutant.name in only)


def _tried(chosen: Sequence[Mutant], suites: Sequence[str], jobs: int) -> Iterator[Verdict]:
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as folder,
        ThreadPoolExecutor(jobs) as pool,
    ):
        copies = SimpleQueue[Copy]()
        for number in range(jobs):
            tests = {name: SUITES[name] for name in SUITES if name in suites}
            copies.put(Copy(Path(folder) / str(number), tests))

        def judge(mutant: Mutant) -> Verdict:
            copy = copies.get()
            try:
                return copy.judge(mutant)
            finally:
                copies.put(copy)

        judged = [pool.submit(judge, mutant) for mutant in chosen]
        try:
            yield from (done.result() for done in as_completed(judged))
        finally:
            pool.shutdown(cancel_futures=True)


def _summarise(verdicts: Sequence[Verdict], machine: float, *, as_json: bool) -> None:
    if as_json:
        entries = [
            {
                "name": v.mutant.name,
                "rule": v.mutant.rule,
                "file": v.mutant.file,
                "end": v.how,
                "suite": v.suite,
                "test": v.test,
                "seconds": round(v.seconds, 1),
            }
            for v in verdicts
        ]
        click.echo(json.dumps({"mutants": entries, "machine_seconds": round(machine, 1)}, indent=1))
        return
    killed = Counter(v.suite for v in verdicts if not v.survived)
    survivors = sum(v.survived for v in verdicts)
    ways = Counter(v.how for v in verdicts if not v.survived and v.how != "failed")
    by = ", ".join(f"{name} {count}" for name, count in killed.most_common())
    click.echo(f"{len(verdicts)} mutants: {len(verdicts) - survivors} killed ({by})")
    click.echo(f"survived: {survivors}")
    for how, count in ways.items():
        click.echo(f"killed by {how}: {count}")
    click.echo(f"machine time: {machine:.0f} s")


if __name__ == "__main__":
    mutants()
