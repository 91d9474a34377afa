"""Benchmarks, one module each, run by `scripts/bench NAME`. They print ratios within one run.

`engine` compares the engine with the stock pipeline (`engine_worker` is what its processes run),
`executor` the executor with the plain pipeline, `flood` measures the service that honest
requesters get beside a flooder, `load` how bursts of tasks end. `idle`, `burst` and `envelopes`
measure what the network itself costs, on nodes of `light`. They may import the product,
`scripts.testnet_tool`, `tests.integration`, `tests.simulation` and `tests.support`.
"""
