"""The worker process that runs jobs, and the supervisor that starts, watches and kills it.

`main`, the worker, may import all of `executor`; the other modules never import torch. Public
names: `supervisor.WorkerSupervisor`, `supervisor.WorkerStatus`, `process.WorkerDied`; `messages`
(worker to supervisor); `main`, which `process` starts.
"""
