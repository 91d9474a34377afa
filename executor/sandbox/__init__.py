"""Confinement of the worker process: landlock for files, seccomp for system calls. Linux only.

It may import `executor.determinism.profile` for its `Device`, nothing else of the project. What the
kernel lacks is reported, not hidden. Public names: `confine.confine`, `confine.extend_cpu_limit`,
`confine.readable_paths`, `confine.folder_granting`; `syscalls` lists what a worker may call.
"""
