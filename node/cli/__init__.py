"""The command `helium`: arguments in, lines or JSON and an exit code out.

It may import everything below it in `node`, and nothing imports it but scripts and tests.
`main` lists the commands; each is a module in `commands`. The other modules are what the commands
share: options, files, exit codes, signals, the client session, progress and a task's output.
Public names: `main.main`, `exit_codes.Exit`.
"""
