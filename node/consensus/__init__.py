"""One node's part in agreement: it drives `protocol.consensus` and journals every step first.

It may import `node.storage`, `node.transport.interface` and below; it does no network IO.
Public names: `coordinator.Coordinator` (the rules), `validator.GossipValidator`,
`task_events.TaskEvents`; `task_table` and `replay` serve the coordinator.
"""
