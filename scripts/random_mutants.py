"""Run random mutants of `protocol/` and `node/consensus/` against their tests with mutmut.

A mutant is one small change of the code, for example `<` instead of `<=`. A mutant that no test
notices survives: it is either equivalent to the code, or shows a missing test. The seed selects the
mutants, so a run can be repeated. The run works on a copy of the committed and uncommitted files.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import click

from scripts import one_line

ROOT = Path(__file__).resolve().parents[1]
# More than any machine has cores.
MAX_JOBS = 1024
# More mutants take hours: each costs seconds.
MAX_MUTANTS = 300
# Exit codes of mutmut for one mutant.
SURVIVED, NO_TESTS = 0, 33


@click.command(cls=one_line.Command, add_help_option=False)  # scripts/mutants prints the help
@click.option("--count", type=click.IntRange(1, MAX_MUTANTS), default=100)
@click.option("--seed", type=int, default=0)
@click.option("--only", default="")
@click.option("--jobs", type=click.IntRange(1, MAX_JOBS), default=os.cpu_count() or 1)
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path))
def main(count: int, seed: int, only: str, jobs: int, folder: Path | None) -> None:
    copy = folder or Path(tempfile.mkdtemp(prefix="mutants-"))
    try:
        _copy_tree(copy)
        _mutmut(copy, jobs, "no.such.mutant")  # generates all mutants, and ends with an error
        names = sorted(name for name in _results(copy) if name.startswith(only))
        if not names:  # mutmut would run all
            raise click.UsageError(f"--only: no mutant's name begins with {only!r}")
        chosen = sorted(random.Random(seed).sample(names, min(count, len(names))))
        click.echo(f"{len(chosen)} of {len(names)} mutants, seed {seed}")
        output = _mutmut(copy, jobs, *chosen)
        codes = _results(copy)
        if not_run := [name for name in chosen if codes[name] is None]:
            raise click.ClickException(f"{len(not_run)} mutants were not run:\n{output[-4000:]}")
        survivors = [name for name in chosen if codes[name] in (SURVIVED, NO_TESTS)]
        for name in survivors:
            click.echo(f"== {name}: {'no tests' if codes[name] == NO_TESTS else 'survived'}")
            click.echo(_show(copy, name))
        counts = Counter(codes[name] for name in chosen)
        click.echo(f"{len(chosen) - len(survivors)} killed, {len(survivors)} survived; {counts}")
    finally:
        if folder is None:
            shutil.rmtree(copy)
    sys.exit(bool(survivors))


def _copy_tree(copy: Path) -> None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    for name in listed.decode().split("\0"):
        source = ROOT / name
        if name and source.is_file() and source.suffix != ".safetensors":
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy / name)


def _mutmut(copy: Path, jobs: int, *names: str) -> str:
    """Run mutmut on mutants and return what it prints. Its exit code says nothing of them."""
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(jobs), *names]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _results(copy: Path) -> dict[str, int | None]:
    """Return the exit code of every mutant; None for one that did not run."""
    codes: dict[str, int | None] = {}
    for file in (copy / "mutants").rglob("*.meta"):
        codes.update(json.loads(file.read_text())["exit_code_by_key"])
    return codes


def _show(copy: Path, name: str) -> str:
    command = [sys.executable, "-m", "mutmut", "show", name]
    return subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False).stdout


if __name__ == "__main__":
    one_line.run(lambda: main(prog_name="scripts/mutants", standalone_mode=False))
