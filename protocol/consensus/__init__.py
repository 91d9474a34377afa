"""Agreement on one task: committees, the commit-reveal machine, certificates and evidence.

It may import `protocol.wire`, `protocol.network` and `protocol.errors`; it is sans-IO.
Public names: `agreement.Agreement`, `certificate`, `evidence`, `committee`, `effects`, `conduct`.
"""
