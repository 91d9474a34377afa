"""The coordinator: it drives `protocol.consensus` and writes every step to the journal first.

It may import `node.storage`, `node.transport.interface` and below; it does no network IO.
Public names: `coordinator.Coordinator`, `commands`.
"""
