"""`helium run`: the daemon, from its settings to a clean stop."""

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
import structlog

from node.cli import interrupts, options
from node.cli.exit_codes import Exit, Failure, usage
from node.cli.files import FILE
from node.config import log_setup
from node.config.setting import Setting, settings_of
from node.config.settings import Settings, former_limit

if TYPE_CHECKING:
    from node.app import WrapExecutor


class _RunCommand(click.Command):
    """The command; a limit given as a flag, as in earlier versions, is refused with advice."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            advice = former_limit(error.option_name.removeprefix("--").replace("-", "_"))
            if advice is None:
                raise
            raise usage(f"{error.option_name}: {advice}") from None


def _flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add a flag for each setting."""
    for setting in reversed(settings_of(Settings)):
        names = [setting.flag, setting.name]
        if setting.name == "peers":
            names.insert(0, "--peer")
        add_flag = click.option(
            *names, multiple=setting.is_list, metavar="VALUE", help=_help(setting)
        )
        command = add_flag(command)
    return command


def _help(setting: Setting) -> str:
    default = setting.default_text or "none"
    return f"{setting.help} [env: {setting.variable}; default: {default}]"


@click.command(cls=_RunCommand)
@click.option("--config", type=FILE, metavar="FILE", help="A TOML file with settings and limits.")
@_flags
def run(config: Path | None, **flags: object) -> None:
    """Run a node until SIGTERM, SIGINT or SIGHUP, which stop it cleanly with exit code 0.

    A flag overrides its environment variable, which overrides the TOML file, which overrides the
    default. Limits on what peers may cost this node are set in the file's table [limits]: see
    docs/configuration.md. HELIUM_KEY_PASSPHRASE unlocks an encrypted key.
    """
    serve(options.settings(flags, config))


def serve(settings: Settings, wrap: "WrapExecutor | None" = None) -> None:
    """Run a node with these settings until a signal stops it.

    `wrap` may wrap its executor; only tests and demonstrations use it.
    """
    # Before the node runs, and once it has ended, there is nothing to stop cleanly.
    for number in interrupts.SIGNALS:
        signal.signal(number, interrupts.exit_with(int(Exit.OK)))
    key = options.key_of(settings.key)
    log_setup.configure(settings.log_level, cast("log_setup.Format", settings.log_format))
    # Importing libp2p takes seconds, and the logs must be configured first (`log_setup`).
    from node import app
    from node.storage.errors import UnusableDatabase

    # libp2p logs errors when a peer goes away or speaks another protocol. These are no faults here.
    log_setup.restore_logger("libp2p", "debug" if settings.log_level == "debug" else "critical")
    try:
        node = app.build(settings, key, wrap) if wrap else app.build(settings, key)
    except app.UnusableNetwork as error:
        raise usage(str(error)) from None
    except UnusableDatabase as error:
        raise Failure(Exit.FAULT, str(error)) from None
    try:
        # Further signals change nothing: a node that stops ends within seconds.
        with contextlib.suppress(KeyboardInterrupt):
            interrupts.run(node.run(), lambda number, frame: None)
    except Exception as error:
        raise _failure(error) from None
    interrupts.ended(int(Exit.OK))


def _failure(error: Exception) -> Failure:
    """Return the first fault as one line. An error that the operator can mend has no traceback."""
    from node.sync.vote_recovery import KeyInUse

    fault = error
    while isinstance(fault, ExceptionGroup):
        fault = fault.exceptions[0]
    if isinstance(fault, OSError | KeyInUse):
        return Failure(Exit.FAULT, str(fault))
    structlog.get_logger("run").critical("node failed", exc_info=fault)
    return Failure(Exit.FAULT, f"the node failed: {type(fault).__name__}: {fault}")
