"""The Python client: submit a task, follow it, verify its certificate, fetch its audio.

It may import `node.sync`, `node.rpc` and below. It needs no daemon and no data folder.
Public names: `Client` and the values that it returns, and the exceptions that it raises;
`node.errors` draws them.
"""

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
