"""One module per command group of `helium`; `node.cli.main` lists them.

A module may import everything below the command line. It parses arguments, calls the product and
prints. Rules of the product do not belong here.
Public names: in each module, the `click` commands that `node.cli.main.COMMANDS` names.
"""
