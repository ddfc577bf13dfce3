"""``facekd``: the table of commands, and the one place that turns errors into lines and exit codes."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from facekd import __version__
from facekd.errors import FacekdError
from facekd.registry import near_names
from facekd.releases import require_safe_releases

COMMANDS = {
    "train": "Train a student from a recipe.",
    "eval": "Measure models on verification sets.",
    "calibrate": "Find thresholds and probabilities to ship with a model.",
    "export": "Write a model as one ONNX file, checked against it.",
    "match": "Compare two faces, or one with a gallery, by an exported file.",
    "bench": "Tell the size and the speed of a model.",
    "embed": "Store the embeddings of a data set.",
    "data": "Make, inspect, check and convert data sets.",
    "teacher": "Look at models to learn from, gather their classifiers.",
    "recipe": "List, show, copy and check recipes.",
}
"""Each command's name, which is also its module, and its line in ``facekd -h``."""

LIGHT = {"recipe"}
"""Commands that open no model, and need none of the libraries that do."""

LIBRARIES = (".so", ".dll", ".dylib")
"""What an error of importing names where a library of the system is missing, or no memory was left to map it."""

EXIT_USAGE = 2
EXIT_SYSTEM = 5
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141


def _say(line: str) -> None:
    click.echo(f"facekd: error: {line}", err=True)


def _click_message(error: click.ClickException) -> str:
    """A usage error of click as one line that says where help is."""
    context = getattr(error, "ctx", None)
    text = " ".join(error.format_message().split()).rstrip(".")
    return f"{context.command_path}: {text} ({context.command_path} -h shows how)" if context else text


def _system_message(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _quiet_pipe() -> None:
    """Give stdout somewhere to go, so that closing it at exit cannot complain again."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return


def exit_code(run: Callable[[], object], *, debug: bool = False) -> int:
    """Run a command line, print what went wrong, and answer the exit code.

    Args:
        run: Answers None, or an exit code.
        debug: Print the traceback before the message.

    Returns:
        0; the code of a :class:`FacekdError`; 2 for wrong usage; 5 for trouble with disk, memory or a library of the
        system; 130 for Ctrl-C; 141 where nobody reads the output any more. Anything else is a bug and is raised.

    Example:
        >>> exit_code(lambda: None)
        0
    """
    try:
        answer = run()
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
        return answer if type(answer) is int else 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return EXIT_USAGE
    except (FacekdError, click.ClickException, click.Abort, KeyboardInterrupt, OSError, MemoryError) as error:
        if debug and not isinstance(error, BrokenPipeError):
            traceback.print_exc()
        return _report(error)
    except ImportError as error:
        if not any(ending in str(error) for ending in LIBRARIES):
            raise
        if debug:
            traceback.print_exc()
        _say(f"{' '.join(str(error).split())} (install the library it names, or give the process more memory)")
        return EXIT_SYSTEM


def _report(error: BaseException) -> int:
    if isinstance(error, FacekdError):
        for line in error.lines:
            _say(line)
        return error.exit_code
    if isinstance(error, click.ClickException):
        _say(_click_message(error))
        return EXIT_USAGE
    if isinstance(error, OSError):
        if error.errno == errno.EPIPE:
            _quiet_pipe()
            return EXIT_PIPE
        _say(_system_message(error))
        return EXIT_SYSTEM
    if isinstance(error, MemoryError):
        _say("out of memory (lower the batch size or the number of workers)")
        return EXIT_SYSTEM
    _say("interrupted")
    return EXIT_INTERRUPTED


class Commands(click.Group):
    """The commands of :data:`COMMANDS`, each imported when it is called and not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f".{cmd_name}", __package__).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            near = near_names(args[0], COMMANDS)
            hint = f"did you mean {' or '.join(near)}?" if near else f"commands: {', '.join(COMMANDS)}"
            ctx.fail(f"no such command: {args[0]}; {hint}")
        if args[0] in COMMANDS and args[0] not in LIGHT and not {"-h", "--help"} & set(args):
            require_safe_releases()
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click would end with 1, which says that a demand was not met
            _quiet_pipe()
            ctx.exit(EXIT_PIPE)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        own = given[: given.index("--")] if "--" in given else given
        rest = [text for text in own if text != "--debug"] + given[len(own) :]

        def run() -> object:
            return click.Group.main(self, rest, "facekd", complete_var, standalone_mode=False, **extra)

        if not standalone_mode:
            return run()
        _leave(exit_code(run, debug="--debug" in own))


def _leave(code: int) -> NoReturn:
    """End with an exit code; in one of several processes at once, for torch aborts where a connection is still open."""
    if code and os.environ.get("WORLD_SIZE", "1") != "1":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", message="facekd %(version)s")
@click.option(
    "--debug", is_flag=True, expose_value=False, help="Show the traceback of an error; works after a command too."
)
def cli() -> None:
    """Distil large face-recognition models into small ones that ship.

    \b
    Example:
      facekd train quickstart/teacher
      facekd train quickstart/proxylesskd_pad --set teacher.weights=runs/quickstart-teacher
      facekd export runs/quickstart-proxylesskd-pad -o student.onnx

    Exit codes: 0 done; 1 a demand was not met; 2 bad usage, recipe or input file; 3 bad data met while running;
    4 non-finite values; 5 disk, memory or device; 130 and 143 stopped by a signal.
    """


def main() -> None:
    """The console command."""
    cli()
