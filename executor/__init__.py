"""From a job to bytes, the same bytes on every machine of a class. Blocking; knows no network.

`pool.Pool` is the door: it keeps one warm child process (`worker`) and hands jobs to it. Importing
this package, or any module of it but those that the child runs, does not import torch.
"""
