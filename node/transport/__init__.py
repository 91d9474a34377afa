"""How peers reach each other: the port `interface`, and its implementation over libp2p.

It may import `node.admission`, `node.config` and `protocol`; only `node.transport.libp2p` imports
trio and libp2p. The in-memory implementation for tests is `tests.support.memory_transport`.
Public names: `interface.Transport`, `interface.Stream`, `interface.Listener`, `libp2p.transport`.
"""
