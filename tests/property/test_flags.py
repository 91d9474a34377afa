"""Command lines with values that nobody should give, against every command."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from node.cli.commands import run
from node.cli.commands.doctor import command as doctor
from node.cli.commands.network import compute_class, measure
from node.cli.exit_codes import Exit, Failure
from node.client import client
from tests.property import flags


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flags")
    flags.files(folder)
    return folder


def _stop(*_: object) -> Any:
    raise Failure(Exit.FAULT, "here the work would begin")


@pytest.fixture(autouse=True)
def _no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """No node is there, and what takes seconds does not begin."""
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.0)
    for module, name in ((run, "serve"), (doctor, "examine"), (measure, "local_worker")):
        monkeypatch.setattr(module, name, _stop)
    monkeypatch.setattr(compute_class, "local_compute_class", _stop)


@settings(suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(line=flags.command_lines())
def test_every_command_line_ends_with_a_code_and_a_sentence(line: list[str], folder: Path) -> None:
    flags.check(line, folder)
