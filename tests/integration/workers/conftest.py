"""One network of real workers for all tests of this folder: each worker costs seconds to start."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from executor.models.folders import DEFAULTS
from node.cli.commands.network.document import ModelSelection
from protocol.network import NetworkParameters
from protocol.wire.encoding import Document
from scripts.testnet_tool.nodes import Daemons, LocalNode, create_network
from tests.integration.conftest import Running

# A listed model that no node has: rejected tasks need no model.
VOICE = "acme/voice"
# All three nodes commit to every task, so that a busy machine may take long and nobody waits.
GRACE_SECONDS = 60
# A song takes seconds, but on a busy machine minutes.
ATTEMPT_SECONDS = 500


class WorkerDaemons(Daemons):
    """Daemons with real workers. The last one lies if the prompt asks for it (`liar`)."""

    def entry(self, node: LocalNode) -> list[str]:
        return ["-m", "tests.integration.workers.liar"] if node.lie else super().entry(node)


@pytest.fixture(scope="package")
def three(
    classes: dict[str, Document], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    root, folder = tmp_path_factory.mktemp("three"), tmp_path_factory.mktemp("models")
    models = ModelSelection([*DEFAULTS, VOICE], [_create_voice(folder)], [], None)
    parameters = NetworkParameters(
        commit_grace_seconds=GRACE_SECONDS, attempt_seconds=ATTEMPT_SECONDS
    )
    network, nodes = create_network(root, 3, classes, parameters, liars=1, models=models)
    with WorkerDaemons(root / "network.json", nodes) as daemons:
        daemons.wait_ready()
        yield Running(network, daemons, root)
        codes = daemons.stop()
    assert set(codes.values()) == {0}, codes
    for node in nodes:
        assert "Traceback" not in node.log.read_text()


def _create_voice(folder: Path) -> Path:
    """Create a model whose configuration describes a one-pass speech model."""
    model = folder / VOICE
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"model_type": "fastspeech2_conformer"}')
    save_file({"w": np.ones(1, np.float32)}, model / "model.safetensors")
    return folder
