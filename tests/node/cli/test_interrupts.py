"""Ctrl-C at chosen moments of real processes, which send the signal to themselves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.wire.encoding import canonical
from tests.support import fixtures

ROOT = Path(__file__).resolve().parents[3]
LINE = "helium: interrupted\n"

HEAD = """
import asyncio, atexit, os, signal, sys

def press():
    os.kill(os.getpid(), signal.SIGINT)

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


def test_an_interrupted_write_leaves_no_file(tmp_path: Path) -> None:
    """`helium key new` has created the file, and is about to write it."""
    code = """
def fsync(descriptor):
    try:
        press()
    finally:
        press()
os.fsync = fsync
helium('key', 'new', 'node.pem')
"""
    done = run(code, tmp_path)
    assert (done.returncode, done.stderr) == (130, LINE)
    assert list(tmp_path.iterdir()) == []


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
    ("explained", "line"),
    [("", LINE), ("with interrupts.explained('fetch it'):\n    ", "helium: fetch it\n")],
)
def test_a_second_interrupt_during_the_clean_up_ends_the_process(explained: str, line: str) -> None:
    done = run(f"{COROUTINE}\n{explained}interrupts.run(wait(press))\nprint('not reached')")
    assert (done.returncode, done.stderr, done.stdout) == (130, line, "")


def test_an_interrupt_at_the_interpreters_end_changes_nothing(tmp_path: Path) -> None:
    """Python would show a KeyboardInterrupt that it cannot raise any more."""
    done = run("atexit.register(press)\nhelium('key', 'new', 'node.pem')", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    done = run("atexit.register(press)\nhelium('key', 'new', 'node.pem')", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
