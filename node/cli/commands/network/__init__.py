"""`helium network`: the document that all peers of a network share.

It may import `node.cli`, `node.execution`, `executor`, `protocol` and `schemas`. Public names:
`group.network`, the command with its subcommands; `document.ModelSelection` and
`document.model_entries`, the entries of models on this disk; `measure.local_compute_class`. Each
subcommand has its own module.
"""
