"""`python -m node.cli`: the command `helium` where it is not installed."""

from node.cli.main import main

main()
