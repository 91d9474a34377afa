"""Settings, limits, the node's key file and logging.

It may import `node.errors`, `node.version` and `protocol`. A setting is defined once, as a field of
`settings.Settings` or `limits.Limits`; flags, variables, TOML keys and docs are made from it.
Public names: `settings.Settings`, `settings.load`, `limits.Limits`, `keystore`, `log_setup`.
"""
