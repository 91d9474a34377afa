"""The worker: a child process that runs jobs, and the supervisor that starts, watches and kills it.

The supervisor side may import `executor.errors` and `executor.job`; `main`, the child, may import
all of `executor`. Public names: `supervisor.WorkerSupervisor` (the parent) and `main` (the child's
entry point).
"""
