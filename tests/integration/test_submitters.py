"""Which requesters a node serves, by its settings."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.client.client import Client
from node.client.nodes import NoNodeReachable, TaskRejected
from protocol.network import NetworkParameters
from protocol.wire.signing import peer_of
from tests.integration.conftest import running_light, task

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


PARAMETERS = NetworkParameters(commit_grace_seconds=0.2)


async def submit(client: Client, seed: int) -> None:
    args: Any = task(seed=seed)
    await (await client.submit("text-to-music", args)).result()


async def test_only_listed_submitters_are_served(tmp_path: Path) -> None:
    with running_light(tmp_path / "net", 2, PARAMETERS, f"--submitters={peer_of(KEY)}") as net:
        async with Client.connect(net.network, net.daemons.addresses, key=KEY) as client:
            await submit(client, 1)
        async with Client.connect(net.network, net.daemons.addresses) as stranger:
            with pytest.raises(
                TaskRejected, match=r"requester-not-served: this node does not serve 12D3KooW"
            ):
                await submit(stranger, 2)


async def test_requester_over_quota_gets_a_retry_time(tmp_path: Path) -> None:
    with running_light(tmp_path / "net", 2, PARAMETERS, "--requester-tasks=2") as net:
        async with Client.connect(net.network, net.daemons.addresses, key=KEY) as client:
            await submit(client, 1)
            await submit(client, 2)
            with pytest.raises(
                NoNodeReachable,
                match=r"over-quota: the limit is 2 tasks an hour; try again in 1[78]\d\d s",
            ):
                await submit(client, 3)
        async with Client.connect(net.network, net.daemons.addresses) as another:
            await submit(another, 4)
