"""What several commands share: options, the console, JSON output, progress."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

import click

from facekd.errors import InputError
from facekd.files import write_text
from facekd.model_names import is_model_name

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from facekd.models.embedder import Embedder

Command = TypeVar("Command", bound=Callable[..., object])

SILENT_SECONDS = 2.0
LINE_SECONDS = 10.0
PIPE_WIDTH = 120


def _check_json(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value not in (None, "-") and not Path(str(value)).absolute().parent.is_dir():
        raise click.BadParameter(f"{Path(str(value)).absolute().parent} is not a folder", context, parameter)
    return value


def json_option(command: Command) -> Command:
    """Add ``--json FILE``, passed to the command as ``json_path`` (None, ``-`` for stdout, or a path)."""
    option = click.option(
        "--json",
        "json_path",
        metavar="FILE",
        callback=_check_json,
        help="Write the figures as JSON; - is stdout, and moves everything else to stderr.",
    )
    return option(command)


def _check_device(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?|mps", value):
        raise click.BadParameter(f"{value!r} is not one of auto, cpu, cuda, cuda:N, mps", context, parameter)
    return value


def device_option(command: Command) -> Command:
    """Add ``--device``, passed to the command as ``device``."""
    option = click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda|cuda:N|mps",
        callback=_check_device,
        help="Where to compute.",
    )
    return option(command)


def foreign_options(command: Command) -> Command:
    """Add ``--color`` and ``--normalize``, which say what a foreign model expects of its images."""
    color = click.option(
        "--color",
        type=click.Choice(["rgb", "bgr"]),
        help="Channel order of a foreign model.  [default: its project's, where the file shows whose it is]",
    )
    normalize = click.option(
        "--normalize",
        type=click.Choice(["half", "128", "imagenet", "unit", "none"]),
        help="Scaling of a foreign model: (x-127.5)/127.5, (x-127.5)/128, ImageNet mean/std, 0..1, 0..255.  "
        "[default: its project's]",
    )
    return color(normalize(command))


def resize_option(command: Command) -> Command:
    """Add ``--allow-resize``, passed to the command as ``allow_resize``."""
    option = click.option(
        "--allow-resize",
        is_flag=True,
        help="Take images of any size. Without it they must show the cut of the face that the model takes, larger or "
        "smaller.",
    )
    return option(command)


class Fpr(click.ParamType):
    """A number between 0 and 1, both left out."""

    name = "fpr"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if not 0 < number < 1:
            self.fail(f"{value} is not between 0 and 1, like 1e-3", param, ctx)
        return number


def precision_option(command: Command) -> Command:
    """Add ``--precision``."""
    option = click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16"]),
        default="fp32",
        show_default=True,
        help="Of the convolutions and matrix products of PyTorch models. With bf16 it is told how far embeddings are "
        "from those in fp32, on some images.",
    )
    return option(command)


def check_paths(*paths: Path | None) -> None:
    """Refuse a file or folder that is not there, before anything that takes long to import.

    Raises:
        InputError: Names the first.
    """
    for path in paths:
        if path is not None and not path.exists():
            raise InputError(str(path), "no such file or folder", "check the path")


def check_models(models: Iterable[Path]) -> None:
    """Refuse a model that is neither there nor a name.

    Raises:
        InputError: Names the first.
    """
    check_paths(*(model for model in models if not is_model_name(model)))


def open_model(model: Path, color: str | None, normalize: str | None, device: str = "cpu") -> Embedder:
    """A model, its warnings told on stderr.

    Args:
        model: A path or name, as `load_embedder` takes it.
        color: From `foreign_options`.
        normalize: From `foreign_options`.
        device: From `device_option`.

    Raises:
        FacekdError: As `load_embedder` refuses it.
    """
    from facekd.engine.training.build import resolve_device
    from facekd.models.embedder import load_embedder

    embedder = load_embedder(model, color=color, normalize=normalize, device=str(resolve_device(device)))
    for warning in embedder.warnings:
        click.echo(f"facekd: warning: {warning}", err=True)
    return embedder


def write_json(data: object, path: str) -> None:
    """Write figures as JSON: whole or not at all.

    Args:
        data: Dictionaries, lists, text, finite numbers, booleans and None.
        path: A file, or ``-`` for stdout.

    Raises:
        ValueError: A number is NaN or infinite, which JSON does not have.
        DeviceError: The file cannot be written.

    Example:
        >>> write_json({"tpr": 0.5}, "-")
        {
          "tpr": 0.5
        }
    """
    text = json.dumps(data, indent=2, allow_nan=False) + "\n"
    if path == "-":
        click.echo(text, nl=False)
    else:
        write_text(Path(path), text)


def _terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def console() -> Console:
    """Where a command prints what people read: stdout, or stderr while ``--json -`` holds stdout."""
    from rich.console import Console

    context = click.get_current_context(silent=True)
    to_stderr = context is not None and context.params.get("json_path") == "-"
    width = None if _terminal(sys.stderr if to_stderr else sys.stdout) else PIPE_WIDTH
    return Console(stderr=to_stderr, highlight=False, width=width)


class PlainProgress:
    """Progress as lines for logs and pipes: nothing for quick work, then a line now and again.

    Args:
        write: Takes one line.
        clock: Seconds, never running backwards.

    Example:
        >>> seconds = iter([0.0, 1.0, 5.0, 6.0, 20.0])
        >>> report = PlainProgress(print, lambda: next(seconds))
        >>> for done in (0, 10, 50, 60, 200):
        ...     report("embed", done, 200)
        embed: 50/200, 10.0/s, 15 s left
        embed: 200/200, 10.0/s
    """

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._phase, self._begun, self._first, self._told = "", 0.0, 0, 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = self._clock()
        if phase != self._phase:
            self._phase, self._begun, self._first, self._told = phase, now, done, 0.0
        spent = now - self._begun
        finished = done >= total and self._told > 0
        if spent < SILENT_SECONDS or (spent - self._told < LINE_SECONDS and self._told > 0 and not finished):
            return
        self._told = spent
        rate = (done - self._first) / spent
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        self._write(f"{phase}: {done}/{total}, {rate:.1f}/s{left}")


class BarProgress:
    """Progress as bars on a terminal, one per phase, shown once the work has lasted a moment.

    Args:
        bar: The rich display, not yet started.
        clock: Seconds, never running backwards.
    """

    def __init__(self, bar: Bar, clock: Callable[[], float] = time.monotonic) -> None:
        self._bar, self._clock = bar, clock
        self._tasks: dict[str, TaskID] = {}
        self._begun: float | None = None

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = self._clock()
        if self._begun is None:
            self._begun = now
        if phase not in self._tasks:
            self._tasks[phase] = self._bar.add_task(phase, total=total, completed=done)
        self._bar.update(self._tasks[phase], completed=done, total=total)
        if now - self._begun >= SILENT_SECONDS:
            self._bar.start()


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A callable ``(phase, done, total)`` that shows long work on stderr and leaves the terminal clean."""
    if not _terminal(sys.stderr):
        yield PlainProgress(lambda line: click.echo(line, err=True))
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class RateColumn(ProgressColumn):
        """Items a second."""

        def render(self, task: object) -> Text:
            speed = getattr(task, "finished_speed", None) or getattr(task, "speed", None)
            return Text(f"{speed:,.1f}/s" if speed else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    try:
        yield BarProgress(bar)
    finally:
        bar.stop()
