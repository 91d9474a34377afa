"""How every script ends: a failure is one line on standard error, as with `helium`."""

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from node.cli import interrupts
from node.cli.exit_codes import Exit, Failure
from node.cli.main import one_line_errors
from schemas.errors import HeliumError


class Command(click.Command):
    """A command of a script. Click itself would turn a signal into `Abort` and an empty line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. A signal becomes a `Failure`, all else is for `run`."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Failure(Exit(interrupts.exit_code()), interrupts.word()) from None


def run(main: Callable[[], object]) -> NoReturn:
    """Run a script's main function and exit with the code that it returns, None for success.

    The first Ctrl-C, SIGTERM or SIGHUP raises KeyboardInterrupt, so that the script cleans up; a
    further one does not break that off. HELIUM_DEBUG=1 shows the traceback of a fault.
    """
    interrupts.install()
    try:
        with one_line_errors(), interrupts.cleanly():
            code = _code(main)
    except Failure as failure:
        failure.show()
        code = failure.exit_code
    except BrokenPipeError:  # its output went to `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = int(Exit.FAULT)
    interrupts.ended(code)
    sys.exit(code)


def _code(main: Callable[[], object]) -> int:
    try:
        returned = main()
    except Failure:
        raise
    except HeliumError as error:  # the message says what happened
        raise Failure(Exit.FAULT, str(error)) from error
    return returned if isinstance(returned, int) else int(Exit.OK)
