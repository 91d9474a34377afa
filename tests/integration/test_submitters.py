"""Who may submit, by the settings of real nodes, asked with the real client."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.client.client import Client, NoNodeReachable, TaskRejected
from protocol.network import NetworkParameters
from protocol.wire.signing import peer_of
from scripts.testnet_tool.nodes import create_network
from tests.integration.conftest import Running, task
from tests.integration.light import RUNTIME, LightDaemons

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@contextmanager
def light(root: Path, arguments: Sequence[str]) -> Iterator[Running]:
    network, nodes = create_network(root, 2, RUNTIME, NetworkParameters(commit_grace_seconds=0.2))
    with LightDaemons(root / "network.json", nodes, ["--seconds=0.05", *arguments]) as daemons:
        daemons.wait_ready()
        yield Running(network, daemons, root)


async def submit(client: Client, seed: int) -> None:
    args: Any = task(seed=seed)
    await (await client.submit("text-to-music", args)).result()


async def test_those_on_the_list_are_served_and_others_are_told(tmp_path: Path) -> None:
    with light(tmp_path / "net", [f"--submitters={peer_of(KEY)}"]) as found:
        async with Client.connect(found.network, found.daemons.addresses, key=KEY) as client:
            await submit(client, 1)
        async with Client.connect(found.network, found.daemons.addresses) as stranger:
            with pytest.raises(TaskRejected, match=r"requester-not-served: 12D3KooW\w+ is not"):
                await submit(stranger, 2)


async def test_who_has_had_enough_is_told_when_to_come_again(tmp_path: Path) -> None:
    with light(tmp_path / "net", ["--requester-tasks=2"]) as found:
        async with Client.connect(found.network, found.daemons.addresses, key=KEY) as client:
            await submit(client, 1)
            await submit(client, 2)
            with pytest.raises(
                NoNodeReachable, match=r"over-quota: 2 tasks an hour .* try again in 1[78]\d\d s"
            ):
                await submit(client, 3)
        async with Client.connect(found.network, found.daemons.addresses) as another:
            await submit(another, 4)
