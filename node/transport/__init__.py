"""How peers reach each other: the port, the libp2p transport and its in-memory twin."""
