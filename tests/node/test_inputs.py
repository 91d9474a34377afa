import errno
import os
from types import SimpleNamespace
from typing import Any

import pytest

from executor.errors import Abstained
from node import inputs
from node.inputs import Inputs
from tests import cast


class Full:
    """A blob folder on a full disk."""

    def renew(self, sha256: str) -> bool:
        return False

    def write(self, chunks: object, **limits: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_a_full_disk_is_an_abstention(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetch(*_: object) -> None:
        asked.append(1)

    asked: list[int] = []
    monkeypatch.setattr(inputs, "fetch", fetch)
    monkeypatch.setattr(inputs, "PAUSE", 0.0)
    net = cast.piano_network(3)
    body = cast.task(net, kind="pop2piano").envelope.body
    task: Any = cast.signed(net, {**body, "args": cast.piano_args(b"a song")}, 1000)
    transport: Any = SimpleNamespace(peers=lambda: frozenset({cast.peer(1)}))
    blobs: Any = Full()
    with pytest.raises(Abstained) as caught:
        await Inputs(transport, blobs).obtain(task)
    assert caught.value.reason == "input-missing"
    assert len(asked) == inputs.TRIES
