"""Signals at chosen moments of real processes, which send them to themselves."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from protocol.wire.encoding import canonical
from tests.support import fixtures

pytestmark = pytest.mark.usefixtures("not_under_nohup")

ROOT = Path(__file__).resolve().parents[3]
LINE = "helium: interrupted\n"
# By signal: how a command ends.
ENDS = {
    signal.SIGINT: (130, LINE),
    signal.SIGTERM: (143, "helium: terminated\n"),
    signal.SIGHUP: (129, "helium: hung up\n"),
}
any_signal = pytest.mark.parametrize("number", ENDS)

HEAD = """
import asyncio, atexit, os, signal, sys

def press(number=signal.SIGINT):
    os.kill(os.getpid(), number)

class PressAtImport:
    def __init__(self, name):
        self.name = name
    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            press()

def helium(*arguments):
    sys.argv[1:] = arguments
    from node.cli.__main__ import main
    main()
"""


def run(code: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HELIUM_")}
    return subprocess.run(
        [sys.executable, "-P", "-c", HEAD + code],
        env={**environment, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("module", ["click", "schemas", "node.cli.commands.tasks", "asyncio"])
def test_an_interrupt_during_an_import_is_one_line(module: str) -> None:
    code = f"""
sys.modules.pop('asyncio')
sys.meta_path.insert(0, PressAtImport({module!r}))
helium('submit', '--help')
"""
    done = run(code)
    assert (done.returncode, done.stderr, done.stdout) == (130, LINE, "")


def test_an_interrupt_during_a_read_of_standard_input_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "network.json").write_bytes(canonical(fixtures.network_document()))
    code = """
class Waiting:
    def read(self, limit):
        press()
sys.stdin = type('', (), {'buffer': Waiting()})
helium('verify', '-', '--network', 'network.json')
"""
    done = run(code, tmp_path)
    assert (done.returncode, done.stderr) == (130, LINE)


@any_signal
def test_an_interrupted_write_leaves_no_file(number: signal.Signals, tmp_path: Path) -> None:
    """`helium key new` has created the file, and is about to write it."""
    code = f"""
def fsync(descriptor):
    try:
        press({number})
    finally:
        press({number})
os.fsync = fsync
helium('key', 'new', 'node.pem')
"""
    done = run(code, tmp_path)
    assert (done.returncode, done.stderr) == ENDS[number]
    assert list(tmp_path.iterdir()) == []


# `doctor` has a scratch folder and a worker, which has begun to start.
DOCTOR = """
from executor.worker.process import WorkerProcess
def receive(self, deadline):
    print(self.pid, flush=True)
    {waiting}
    raise AssertionError('not reached')
WorkerProcess.receive = receive
helium('doctor')
"""


def ended_in_order(scratch: Path, printed: str) -> bool:
    """Return whether no scratch folder is left, and no worker, whose process id was printed."""
    return list(scratch.iterdir()) == [] and not Path("/proc", printed.split()[0]).exists()


@any_signal
def test_an_interrupted_doctor_leaves_neither_scratch_nor_worker(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = run(DOCTOR.format(waiting=f"press({number})"))
    assert (done.returncode, done.stderr) == ENDS[number]
    assert ended_in_order(tmp_path, done.stdout)


def on_terminal(code: str, prefix: Sequence[str] = ()) -> tuple[int, str]:
    """Run code on a terminal that closes after its first line; return its exit code and line."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["PYTHONPATH"] = str(ROOT)
        command = [*prefix, sys.executable, "-P", "-c", HEAD + code]
        os.execvp(command[0], command)  # noqa: S606  # no shell
    printed = b""
    while b"\n" not in printed:
        printed += os.read(terminal, 1024)
    os.close(terminal)  # the kernel sends SIGHUP
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), printed.decode()


def test_a_closed_terminal_lets_a_command_clean_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code, printed = on_terminal(DOCTOR.format(waiting="signal.pause()"))
    assert code == 129
    assert ended_in_order(tmp_path, printed)


# As `nohup` does, but for its file.
IGNORING_SIGHUP = ["bash", "-c", 'trap "" HUP; exec "$@"', "bash"]


def test_a_command_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    code = f"""
from node.cli import interrupts
interrupts.install()
with interrupts.cleanly():
    os.write(2, b'ready\\n')
    try:
        os.read(0, 1)
    except OSError:  # the terminal has closed
        pass
    open({str(tmp_path / "done")!r}, 'w').close()
"""
    ended, _ = on_terminal(code, IGNORING_SIGHUP)
    assert (ended, (tmp_path / "done").exists()) == (0, True)


COROUTINE = """
from node.cli import interrupts
from node.cli.main import one_line_errors
interrupts.install()

async def wait(cleaned_up):
    asyncio.get_running_loop().call_soon(press)
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        cleaned_up()
"""


def test_the_first_interrupt_of_a_coroutine_lets_it_clean_up() -> None:
    code = """
try:
    interrupts.run(wait(lambda: print('clean')))
except KeyboardInterrupt:
    print('raised')
"""
    done = run(COROUTINE + code)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "clean\nraised\n")


@pytest.mark.parametrize(
    ("advising", "line"),
    [
        ("", LINE),
        ("with interrupts.advising('; fetch it'):\n    ", "helium: interrupted; fetch it\n"),
    ],
)
def test_a_second_interrupt_during_the_clean_up_ends_the_process(advising: str, line: str) -> None:
    done = run(f"{COROUTINE}\n{advising}interrupts.run(wait(press))\nprint('not reached')")
    assert (done.returncode, done.stderr, done.stdout) == (130, line, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_during_the_clean_up_does_not_break_it_off(number: signal.Signals) -> None:
    waiting = COROUTINE.replace("(press)", f"(press, {number})")
    code = f"""
try:
    interrupts.run(wait(lambda: (press({number}), print('clean'))))
except KeyboardInterrupt:
    print(interrupts.word())
"""
    done = run(waiting + code)
    word = ENDS[number][1].removeprefix("helium: ")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"clean\n{word}")


def test_an_interrupt_at_the_interpreters_end_changes_nothing(tmp_path: Path) -> None:
    """Python would show a KeyboardInterrupt that it cannot raise any more."""
    done = run("atexit.register(press)\nhelium('key', 'new', 'node.pem')", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    done = run("atexit.register(press)\nhelium('key', 'new', 'node.pem')", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
