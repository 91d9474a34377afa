"""What computes the jobs of a compute class: implementations of `worker.runner.Backend`.

`engine` has what those of the engine share, `music` and `piano` are its two, and `transformers` is
of all other models; only the latter imports torch. `worker.main.backend_of` chooses.
"""
