"""Run a job and return its outcome: the same bytes on every machine of a compute class. Blocking.

It may import the pure `protocol` and `schemas`. Importing this package, or any module of it but
those that only the worker runs, does not import torch. Public names: `job`, `errors`, `models`,
`determinism.compute_class` and `worker.supervisor.WorkerSupervisor`, the entry point.
"""
