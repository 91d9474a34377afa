"""Running tasks on this node: the fair queue, the input fetcher and the worker adapter.

It may import `node.sync`, `node.rpc`, `executor` and below.
Public names: `queue.ExecutionQueue`, `inputs.InputFetcher`, `worker.Worker`.
"""
