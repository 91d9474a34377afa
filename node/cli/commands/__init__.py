"""One module per group of commands of `helium`; `node.cli.main` lists them.

A module may import everything below the command line. It parses arguments, calls the product, and
prints; it decides nothing.
"""
