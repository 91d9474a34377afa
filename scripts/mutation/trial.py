"""One mutant against the tests, in a copy of the tree, the quickest tests first."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.mutation.planted import ROOT, Mutant

_HISTORIES = "tests/simulation/test_histories.py::test_no_invariant_is_broken_"
SUITES: Mapping[str, tuple[str, ...]] = {
    "protocol": ("tests/protocol", "tests/vectors"),
    "node": tuple(
        f"tests/node/test_{name}.py"
        for name in (
            *("coordinator", "store", "standing", "watermark", "archive", "migration"),
            *("daemon", "feeds", "serving", "execution", "admission", "gate", "store_damage"),
        )
    ),
    "simulation": (
        *(f"tests/simulation/test_{name}.py" for name in ("agreement", "faults", "adversaries")),
        *(f"{_HISTORIES}in_small_networks[{block}]" for block in range(4)),
        f"{_HISTORIES}in_large_networks[0]",
        f"{_HISTORIES}among_daemons[0]",
    ),
}
SECONDS = 1200.0  # for one run of tests; the longest suite needs a tenth of it
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.safetensors", "testnet-out", "docs")


class Unsound(RuntimeError):
    """The tests fail without any mutant, or cannot be run: nothing follows from them."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant; `test` is the one that killed it, "" if it survived."""

    mutant: Mutant
    suite: str
    test: str
    how: str  # failed, import (it could not even be loaded), timeout, or survived
    seconds: float  # of wall time

    @property
    def survived(self) -> bool:
        """Whether no test noticed."""
        return not self.test


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of pytest: whether all passed, else the first test that did not and how."""

    passed: bool
    test: str = ""
    how: str = ""
    said: str = ""


class Copy:
    """A copy of the tree, in which one mutant stands at a time."""

    def __init__(
        self,
        folder: Path,
        suites: Mapping[str, tuple[str, ...]],
        root: Path = ROOT,
        seconds: float = SECONDS,
    ) -> None:
        """`folder` is to be created; `suites` are tests by folder of `tests`, the quickest first.

        No run of tests may take more than `seconds`.
        """
        self._folder, self._suites, self._seconds = folder, suites, seconds
        self._sound: set[tuple[str, ...]] = set()  # what passed without a mutant
        shutil.copytree(root, folder, ignore=_LEFT_OUT)

    def judge(self, mutant: Mutant) -> Verdict:
        """Try the mutant until a test notices it. Raises Unsound or Stale."""
        began = time.monotonic()
        for tests in self._stages(mutant):
            self._require_sound(tests)
            with self._planted(mutant):
                run = self._pytest(tests)
            if not run.passed:
                suite, spent = _suite_of(run.test or tests[0]), time.monotonic() - began
                return Verdict(mutant, suite, run.test or " ".join(tests), run.how, spent)
        return Verdict(mutant, "", "", "survived", time.monotonic() - began)

    def _stages(self, mutant: Mutant) -> Iterator[tuple[str, ...]]:
        for file in mutant.nearest(self._folder):
            if _suite_of(file) in self._suites:
                yield (file,)
        yield from self._suites.values()

    def _require_sound(self, tests: tuple[str, ...]) -> None:
        if tests in self._sound:
            return
        run = self._pytest(tests)
        if not run.passed:
            raise Unsound(f"{run.test or tests}: {run.how} without any mutant\n{run.said[-2000:]}")
        self._sound.add(tests)

    @contextlib.contextmanager
    def _planted(self, mutant: Mutant) -> Iterator[None]:
        path = self._folder / mutant.file
        text = path.read_text("utf-8")
        _rewrite(path, mutant.applied(text))
        try:
            yield
        finally:
            _rewrite(path, text)

    def _pytest(self, tests: Sequence[str]) -> _Run:
        options = ("-x", "-q", "--tb=short", "-rfE", "-p", "no:cacheprovider")
        environment = os.environ | {"PYTHONPATH": str(self._folder), "COLUMNS": "1000"}
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "pytest", *options, *tests],
                cwd=self._folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=self._seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _Run(passed=False, how="timeout")
        return _told(done.returncode, done.stdout)


def _told(code: int, said: str) -> _Run:
    """Read an exit code and what pytest said: 1 is a failure, 2 and 4 that it found no tests."""
    if code == 0:
        return _Run(passed=True)
    marks = ("FAILED ", "ERROR ")
    named = [line.split(" ", 1)[1] for line in said.splitlines() if line.startswith(marks)]
    if code not in (1, 2, 4) or (code != 4 and not named):
        raise Unsound(f"pytest ended with {code}:\n{said[-2000:]}")
    test = named[0].split(" - ")[0] if named else ""
    return _Run(passed=False, test=test, how="failed" if code == 1 else "import", said=said)


def _suite_of(test: str) -> str:
    folder = test.split("/")[1]
    return "protocol" if folder == "vectors" else folder


def _rewrite(path: Path, text: str) -> None:
    """Write a source file, and forget its bytecode: its size and second may be the same."""
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        compiled.unlink()
    path.write_text(text, "utf-8")
