"""Models on disk: where they lie, what they declare, and whether they may be loaded.

It may import `executor.errors` and the pure `protocol`; it never imports torch. Public names:
`folders.ModelFolders`, `folders.describe_model`, `file_checks.checked_files`, `config.describe`,
`families.FAMILIES`, `safetensors.first_nan_tensor`, `weights.Weights`, `inventory.inventory`.
"""
