"""How scripts end: real processes, whose failures are one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.testnet_tool import folder

pytestmark = pytest.mark.usefixtures("not_under_nohup")

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        ("return 3", 3, ""),
        ("return None", 0, ""),
        ("raise NodeDown('node-1 ended with code 1')", 1, "helium: node-1 ended with code 1\n"),
        ("open('/none')", 1, "helium: /none: No such file or directory\n"),
        ("raise click.UsageError('--nodes: 0 is too few.')", 2, "helium: --nodes: 0 is too few\n"),
        ("os.kill(os.getpid(), signal.SIGINT)", 130, "helium: interrupted\n"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, "helium: terminated\n"),
        ("os.kill(os.getpid(), signal.SIGHUP)", 129, "helium: hung up\n"),
    ],
)
def test_a_script_ends_with_one_line_and_its_code(body: str, code: int, line: str) -> None:
    script = f"""
import os, signal, click
from scripts import one_line
from schemas.errors import HeliumError
class NodeDown(HeliumError): pass
def main():
    {body}
one_line.run(main)
"""
    done = run("-c", script)
    assert (done.returncode, done.stderr) == (code, line)


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, "helium: terminated\n"),
        ("raise HeliumError('node-1 ended')", 1, "helium: node-1 ended\n"),
    ],
)
def test_a_script_with_flags_ends_as_any_other(body: str, code: int, line: str) -> None:
    """Click turns a KeyboardInterrupt into an exception of its own, and prints an empty line."""
    script = f"""
import os, signal, click
from schemas.errors import HeliumError
from scripts import one_line
@click.command(cls=one_line.Command)
def main():
    {body}
one_line.run(lambda: main([], standalone_mode=False))
"""
    done = run("-c", script)
    assert (done.returncode, done.stderr) == (code, line)


def test_a_script_whose_reader_has_gone_ends_silently() -> None:
    script = "from scripts import one_line; one_line.run(lambda: print('x' * 100_000, flush=True))"
    command = f'{sys.executable} -c "{script}" | head -c 1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "x", "")


def test_chaos_in_the_folder_of_a_running_network_is_refused(tmp_path: Path) -> None:
    with folder.locked(tmp_path / "honest"):
        done = run("-m", "scripts.chaos_tool", "--out", str(tmp_path), "--seed", "1")
    assert done.returncode == 2
    *_, last = done.stderr.splitlines()
    assert last == f"helium: --out: another test network runs in {tmp_path / 'honest'}"
    assert "Traceback" not in done.stderr
