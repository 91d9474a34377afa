"""The Python client: submit a task, follow it, verify its certificate, fetch the sound.

It may import `node.sync`, `node.rpc` and below; it needs no daemon and no data folder.
"""

from node.client.client import Client, Submission
from node.client.result import Result

__all__ = ["Client", "Result", "Submission"]
