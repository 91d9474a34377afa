"""Confinement of the worker process: Landlock for files, seccomp for system calls.

It may import nothing of the project. Linux only; what the kernel lacks is reported, not hidden.
Public names: `confine.confine`, `landlock`, `seccomp`.
"""
