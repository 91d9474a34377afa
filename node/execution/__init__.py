"""Execution of tasks: the coordinator's driver, the fair queue, costs, inputs, results, the worker.

It may import `node.sync`, `node.rpc`, `node.consensus`, `executor` and below.
Public names: `driver.Driver`, `driver.Outbox`, `queues.ExecutionQueues`, `queue.ExecutionQueue`,
`staging.InputStaging`, `inputs.InputFetcher`, `results.ResultRecorder`, `worker.Worker`.
"""
