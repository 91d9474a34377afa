"""What makes two machines compute the same bits: profile, compute class and self-test.

It may import `executor.audio` and `executor.models`. Torch is imported from `profile.fix` on.
Public names: `profile`, `compute_class`, `self_test`.
"""
