"""From a job to bytes, the same bytes on every machine of a class. Blocking; knows no network.

`worker.supervisor.WorkerSupervisor` is the entry point: it keeps one warm child process and hands
jobs to it. It may import the pure `protocol` and `schemas`. Importing this package, or any module
of it but those that the child runs, does not import torch.
"""
