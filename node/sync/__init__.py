"""Keeping up with other peers: feeds, blob downloads, the dialer and the task tracker.

It may import `node.rpc`, `node.consensus`, `node.transport.interface` and below.
Public names: `feeds`, `handshakes`, `blob_download`, `blob_relay`, `dialer`, `task_tracker`.
"""
