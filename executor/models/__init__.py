"""Models on disk: where they are, what they declare, and whether they may be loaded.

It may import `executor.errors`, `executor.job` and the pure `protocol`; it never imports torch.
Public names: `folders.ModelFolders`, `inventory.inventory`, `config`, `families`, `safetensors`.
"""
