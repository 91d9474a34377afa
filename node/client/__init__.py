"""The Python client: submit a task, follow it, verify its certificate, fetch its audio.

It may import `node.sync`, `node.rpc` and below. It needs no daemon and no data folder.
Public names: `Client` and the values that it returns, and the exceptions that it raises;
`node.errors` draws them.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node.client.client import Client
    from node.client.nodes import HelloAnswer, NoNodeReachable, TaskRejected
    from node.client.result import AudioMismatch, Result, Waveform
    from node.client.submission import GenerationFailed, Submission
    from node.client.withdrawal import WithdrawalNotShown
    from node.sync.task_tracker import NoAgreement, UnknownTask

__all__ = [
    "AudioMismatch",
    "Client",
    "GenerationFailed",
    "HelloAnswer",
    "NoAgreement",
    "NoNodeReachable",
    "Result",
    "Submission",
    "TaskRejected",
    "UnknownTask",
    "Waveform",
    "WithdrawalNotShown",
]

# `helium verify --audio` needs `result` alone, and no transport: a name's module is imported
# when the name is first used.
_MODULES = {
    "AudioMismatch": "node.client.result",
    "Client": "node.client.client",
    "GenerationFailed": "node.client.submission",
    "HelloAnswer": "node.client.nodes",
    "NoAgreement": "node.sync.task_tracker",
    "NoNodeReachable": "node.client.nodes",
    "Result": "node.client.result",
    "Submission": "node.client.submission",
    "TaskRejected": "node.client.nodes",
    "UnknownTask": "node.sync.task_tracker",
    "Waveform": "node.client.result",
    "WithdrawalNotShown": "node.client.withdrawal",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
