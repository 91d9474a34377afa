"""Chaos testing of a local network: inject faults, generate load, then check all databases.

`cluster` runs the daemons behind proxies (`proxy`), `faults` injects the faults, `load` submits
tasks, `observers` read gossip and logs, `checks` judge what is left, `report` prints the figures.
It may import anything of the product, `scripts.testnet_tool` and `tests.integration.light`.
"""
