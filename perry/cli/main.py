"""The `perry` command: the table of its command groups, and the one error boundary.

Everything a person types enters through `run`, and every failure leaves through it: a `PerryError`
as one line and a hint on stderr with its exit code, an interrupt as 130, a closed pipe silently.
A group's module is loaded when it is asked for, and loads Docker, HTTP and terminal libraries
only when a command of it needs them, so `perry --help` costs next to nothing. This module must not
know what any command does.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_command

from perry import __version__
from perry.cli.interruption import Interrupted
from perry.cli.text import harmless
from perry.errors import PerryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GROUPS: Mapping[str, str] = {
    "workspace": "perry.cli.workspace",
    "session": "perry.cli.session",
    "archive": "perry.cli.archive",
    "agent": "perry.cli.agent",
    "worker": "perry.cli.worker",
    "image": "perry.cli.image",
    "doctor": "perry.cli.doctor",
    "uninstall": "perry.cli.uninstall",
}
"""Each command of the first level, and the module whose `app` it is."""

CLOSED_PIPE = 141
"""What a shell reports for a program that SIGPIPE ended: 128 and the signal's number."""


class Root(TyperGroup):
    """Loads a group's module at the moment that somebody names it."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401  # typer hides click's types
        """Name the groups in the order of the table."""
        del ctx
        return list(GROUPS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401  # as above
        """Load one group, or give None for a name that the table doesn't have."""
        if cmd_name not in self.commands and cmd_name in GROUPS:
            self.commands[cmd_name] = get_command(importlib.import_module(GROUPS[cmd_name]).app)
        return super().get_command(ctx, cmd_name)

    def make_context(self, *given: Any, **options: Any) -> Any:  # noqa: ANN401  # as above
        """Read the options; help and version are printed here."""
        with _ended_well():
            return super().make_context(*given, **options)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  # as above
        """Run the command."""
        with _ended_well():
            answer = super().invoke(ctx)
            sys.stdout.flush()
            return answer


@contextmanager
def _ended_well() -> Iterator[None]:
    """Give words to an interrupt, and silence to a pipe that nobody reads any more.

    Typer would end the first without a word and the second as a failure.
    """
    try:
        yield
    except KeyboardInterrupt:
        # Once more, as those do who are impatient, would only get in the way of the end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise Interrupted("Interrupted.") from None
    except BrokenPipeError:
        # Python flushes stdout once more at its end; into the void, or it would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(CLOSED_PIPE) from None


app = typer.Typer(
    cls=Root,
    name="perry",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExamples:\n"
    "  perry workspace init            a workspace named as this directory\n"
    "  perry session list              every session of every workspace\n"
    "  perry session show 4f2a         one session, by the start of its id",
)


def print_version(value: bool) -> None:
    """Print perry's version and end, when `--version` is given."""
    if value:
        print(f"perry {__version__}")  # the command line prints
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=print_version,
            is_eager=True,
            help="Print perry's version and exit.",
        ),
    ] = False,
) -> None:
    """Docker workspaces for coding agents, with every session of theirs in one place."""


def run() -> NoReturn:
    """Run the command that `sys.argv` names and end the process with its exit code."""
    _prepare_streams()
    try:
        get_command(app)(prog_name="perry")
    except PerryError as error:
        print_error(error)
        sys.exit(error.exit_code)
    sys.exit(0)


def print_error(error: PerryError) -> None:
    """Say on stderr what happened, in one line, and below it what to do now."""
    print(f"perry: {harmless(error.message)}", file=sys.stderr)  # the error boundary
    if error.hint:
        print(harmless(error.hint), file=sys.stderr)  # the error boundary


def _prepare_streams() -> None:
    """Make the standard streams ones that every command can use."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        # Python gives None for a descriptor that was closed, as `perry … <&-` does.
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for stream in (sys.stdout, sys.stderr):
        # A title may hold what the terminal's encoding can't say; that must not end the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
