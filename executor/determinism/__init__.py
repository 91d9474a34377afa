"""What makes two machines compute the same bits: numeric profile, compute class, self-test.

It may import `executor.errors` and the pure `protocol`. `profile.fix` imports torch. Public names:
`profile.fix`, `profile.child_environment`, `compute_class.describe_runtime`,
`compute_class.mismatch`, `self_test.check`.
"""
