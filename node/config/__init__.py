"""Settings, limits, the node's key file and logging.

It may import `node.errors`, `node.version` and `protocol`.
Public names: `settings.Settings`, `limits.Limits`, `keystore`, `log_setup`.
"""
