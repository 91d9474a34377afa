"""`helium doctor`: whether this machine can serve as a node.

It may import `node.cli`, `node.execution`, `executor`, `protocol` and `schemas`. Public names:
`command.doctor`, the command; `clock_report.check_clock`, its part about clocks.
"""
