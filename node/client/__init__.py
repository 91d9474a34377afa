"""The Python client: submit a task, follow it, verify its certificate, fetch its audio.

It may import `node.sync`, `node.rpc` and below. It needs no daemon and no data folder.
Public names: `Client`, `Submission` and `Result`; the exceptions are drawn in `node.errors`.
"""

from node.client.client import Client
from node.client.result import Result
from node.client.submission import Submission

__all__ = ["Client", "Result", "Submission"]
