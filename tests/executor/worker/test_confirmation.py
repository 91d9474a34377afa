"""An error of a library is an outcome only if a second run in a fresh worker raises the same."""

from pathlib import Path

import pytest

from executor.errors import Abstained
from executor.job import Execution, ModelRef
from executor.worker.supervisor import WorkerSupervisor
from tests.executor.conftest import TIMEOUT, job
from tests.executor.worker.test_supervisor import speak

MODEL = ModelRef("tiny/model", "1", "0" * 64)
FAILED = "say(kind='failed', code='generation-rejected', error='IndexError: 7', trace={})"
# By the number of workers that have been started: each leaves a mark in the folder of the test.
COUNT = "runs = len(os.listdir({marks!r})); open({marks!r} + '/' + str(runs), 'x').close(); "
SECOND_RUNS = {
    "another error": FAILED.replace("IndexError", "RuntimeError"),
    "another code": FAILED.replace("generation-rejected", "no-notes"),
    "another outcome": "say(kind='done', outcome={'error': 'no-notes'}, trace={})",
    "too little memory": "say(kind='abstained', reason='out-of-memory', detail='too little')",
    "death": "os._exit(1)",
}


def run_twice(
    folder: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> tuple[Execution | Abstained, int]:
    """Run a job on workers that answer so; return its end, and how many workers answered."""
    marks = folder / "marks"
    marks.mkdir()
    count = COUNT.format(marks=str(marks))
    speak(monkeypatch, f"{count}exec({first!r} if runs == 0 else {second!r})")
    supervisor = WorkerSupervisor([], folder / "scratch")
    try:
        end: Execution | Abstained = supervisor.run(
            job(MODEL, {"prompt": "x", "seed": 1}), timeout=TIMEOUT, progress=lambda _: None
        )
    except Abstained as abstained:
        end = abstained
    finally:
        supervisor.close()
    return end, len(list(marks.iterdir()))


def test_same_error_in_a_fresh_worker_is_an_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, workers = run_twice(tmp_path, monkeypatch, FAILED, FAILED)
    assert isinstance(end, Execution)
    assert end.outcome == {"error": "generation-rejected"}
    assert workers == 2


@pytest.mark.parametrize("second", SECOND_RUNS)
def test_other_end_of_the_second_run_is_an_abstention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    end, workers = run_twice(tmp_path, monkeypatch, FAILED, SECOND_RUNS[second])
    assert isinstance(end, Abstained)
    assert end.reason == ("out-of-memory" if "memory" in second else "worker-died")
    assert workers == 2


@pytest.mark.parametrize("second", ["too little memory", "death"])
def test_own_errors_are_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    end, workers = run_twice(tmp_path, monkeypatch, SECOND_RUNS[second], FAILED)
    assert isinstance(end, Abstained)
    assert workers == 1
