"""An error of a library is an outcome only if a second run in a fresh worker raises the same."""

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from executor.errors import Abstained
from executor.job import Execution, Job, ModelRef
from executor.worker import supervisor as supervisor_module
from executor.worker.supervisor import WorkerSupervisor
from tests.executor.conftest import TIMEOUT, job
from tests.executor.worker.test_supervisor import files_in, once, speak

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


# Stopped in the middle of a confirmation. The first worker sends a part of its outputs, and fails;
# the second one says by a pipe that it has come to the place where the job is stopped.
FIRST = (
    "say(kind='progress', share=0.5); say(kind='output', size=4); "
    f"os.write(connection.fileno(), b'half'); {FAILED}"
)
LATER = "say(kind='done', outcome={'error': 'no-notes'}, trace={})"
HERE, WAIT = "open('{here}', 'w').close(); ", "open('{go}').close(); "
STOPPED = "json.loads(connection.recv_bytes())['stop']; "
ABSTAINED = "say(kind='abstained', reason='timeout', detail='the job was stopped')"


class Stopping:
    """A supervisor whose first worker fails a job, and whose second one does as a test says."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        first: str = FIRST,
        start: str = "",
        second: str = LATER,
    ) -> None:
        self.here, self.go = folder / "here", folder / "go"
        os.mkfifo(self.here)
        os.mkfifo(self.go)
        (folder / "marks").mkdir()
        self.song = folder / "song"
        self.song.touch()
        codes = [
            code.replace("{here}", str(self.here)).replace("{go}", str(self.go))
            for code in (first, start, second)
        ]
        count = COUNT.format(marks=str(folder / "marks"))
        speak(
            monkeypatch,
            f"exec([{codes[0]!r}, {codes[2]!r}, {LATER!r}][runs]); runs = 2",
            f"{count}exec({codes[1]!r} if runs == 1 else ''); runs = min(runs, 2); ready()",
        )
        monkeypatch.setattr(supervisor_module, "STOP_SECONDS", 0.05)
        self.supervisor = WorkerSupervisor([], folder / "scratch")
        self.stop = threading.Event()

    def run(self, timeout: float = TIMEOUT, on_progress: object = None) -> Abstained:
        """Run the job that is stopped."""
        with pytest.raises(Abstained) as caught:
            self.supervisor.run(
                self.job(),
                timeout=timeout,
                progress=on_progress or (lambda _: None),  # type: ignore[arg-type]
                stop=self.stop,
            )
        return caught.value

    def job(self) -> Job:
        return replace(job(MODEL, {"prompt": "x", "seed": 1}), inputs=(self.song,))

    def check_next(self) -> None:
        """The next job runs, and nothing is left behind."""
        execution = self.supervisor.run(self.job(), timeout=TIMEOUT, progress=lambda _: None)
        assert execution.outcome == {"error": "no-notes"}
        assert files_in(self.supervisor.scratch) == []
        self.supervisor.close()

    def stop_there(self, then: str = "") -> threading.Thread:
        """Stop the job once the second worker is at its place; then let it go on."""

        def stop() -> None:
            self.here.open().close()
            self.supervisor.stop(self.stop)
            if then:
                self.go.open("w").close()

        thread = threading.Thread(target=stop)
        thread.start()
        return thread


def test_a_stop_while_the_second_worker_starts_keeps_that_worker_for_the_next_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = Stopping(tmp_path, monkeypatch, start=HERE + WAIT)
    thread = stopping.stop_there(then="start")
    assert str(stopping.run()) == "timeout: the job was stopped"
    thread.join()
    assert stopping.supervisor.pid is not None
    stopping.check_next()
    assert len(list((tmp_path / "marks").iterdir())) == 2


def test_a_stop_that_the_first_worker_answers_by_failing_keeps_the_second_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stop was for the first worker: the start of the second one goes on."""
    first = f"say(kind='progress', share=0.5); {STOPPED}{FAILED}"
    stopping = Stopping(tmp_path, monkeypatch, first=first, start=WAIT)

    def stop() -> None:
        stopping.supervisor.stop(stopping.stop)
        stopping.go.open("w").close()

    thread = threading.Thread(target=stop, daemon=True)
    assert str(stopping.run(on_progress=once(thread.start))) == "timeout: the job was stopped"
    assert stopping.supervisor.pid is not None
    stopping.check_next()
    assert len(list((tmp_path / "marks").iterdir())) == 2


@pytest.mark.parametrize("obeys", [True, False])
def test_a_stop_during_the_second_run_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obeys: bool
) -> None:
    """A worker that does not stop is killed."""
    second = HERE + (STOPPED + ABSTAINED if obeys else "threading.Event().wait()")
    stopping = Stopping(tmp_path, monkeypatch, second=second)
    thread = stopping.stop_there()
    assert stopping.run().reason == "timeout"
    thread.join()
    stopping.check_next()
    assert len(list((tmp_path / "marks").iterdir())) == (2 if obeys else 3)


@pytest.mark.parametrize("where", ["start", "second"])
def test_a_deadline_in_the_middle_of_a_confirmation_is_a_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    stopping = Stopping(tmp_path, monkeypatch, **{where: "threading.Event().wait()"})
    assert str(stopping.run(timeout=1)) == "timeout: the job ran past its deadline"
    assert stopping.supervisor.pid is None
    stopping.check_next()


def test_closing_during_a_confirmation_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = Stopping(tmp_path, monkeypatch, start=HERE + "threading.Event().wait()")

    def close() -> None:
        stopping.here.open().close()
        stopping.supervisor.close()

    thread = threading.Thread(target=close)
    thread.start()
    assert stopping.run().reason == "worker-died"
    thread.join()
    assert stopping.supervisor.pid is None
    assert files_in(stopping.supervisor.scratch) == []
