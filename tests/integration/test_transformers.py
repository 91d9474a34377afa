"""A node that computes with transformers: a family of models that no class of the engine runs."""

from pathlib import Path

from executor.models.folders import DEFAULTS
from node.cli.commands.network.document import ModelSelection
from protocol.network import NetworkParameters
from scripts.testnet_tool.nodes import Daemons, create_network, measured_classes
from tests.integration.conftest import SECONDS, Running
from tests.support.tiny_models import vits

NAME = "acme/voice"


def test_speech_is_certified_by_a_transformers_class(tmp_path: Path) -> None:
    vits.build(tmp_path / "models" / NAME)
    models = ModelSelection([*DEFAULTS, NAME], [tmp_path / "models"], [], None)
    parameters = NetworkParameters(attempt_seconds=SECONDS)
    # The only operator of a class has all places, so that one node is enough.
    network, nodes = create_network(
        tmp_path / "one", 1, measured_classes(["transformers"]), parameters, models=models
    )
    [node] = nodes
    (node.home / "models").symlink_to(tmp_path / "models")
    with Daemons(tmp_path / "one" / "network.json", nodes) as daemons:
        daemons.wait_ready()
        running = Running(network, daemons, tmp_path / "one")
        flags = ["--model", NAME, "--prompt", "bells in the rain", "--seed", 1, "-o", "voice.wav"]
        result = running.json("submit", *flags)
        assert result["state"] == "agreed"
        assert result["signers"] == [node.peer]
        verified = running.json("verify", result["certificate"], "--audio", "voice.wav")
        assert verified["audio"]["output"] == 0
        assert daemons.stop() == {node.name: 0}
