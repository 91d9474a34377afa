"""The local testnet: several nodes, one of which may lie, and one task from start to WAV."""
