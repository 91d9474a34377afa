"""The command `helium`: one file per group of commands, put together in `main`."""
