"""One real node in a network that is large in members or in tasks, for `scripts/bench scale`.

`roster` generates network documents, `world` has members that only speak for their committees,
`settled` starts a node on a database of many tasks that have ended.
"""
