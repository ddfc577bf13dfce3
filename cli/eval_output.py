"""The pictures of ``facekd eval``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from .eval_run import Done

Command = TypeVar("Command", bound=Callable[..., object])

PICTURES = (".png", ".svg")


def _check_output(*suffixes: str) -> Callable[[click.Context, click.Parameter, Path | None], Path | None]:
    def check(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
        if value is not None and value.suffix.lower() not in suffixes:
            raise click.BadParameter(f"{value} ends not in {' or '.join(suffixes)}", context, parameter)
        if value is not None and not value.absolute().parent.is_dir():
            raise click.BadParameter(f"{value.absolute().parent} is not a folder", context, parameter)
        return value

    return check


def output_options(command: Command) -> Command:
    """Add ``--plot``."""
    plot = click.option(
        "--plot",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        callback=_check_output(*PICTURES),
        help="Draw ROC, DET and score histograms of all models, a row for each set, as .png or .svg.",
    )
    return plot(command)


def write_pictures(done: Done, plot: Path | None) -> None:
    """Write what was asked for beside the figures.

    Args:
        done: Evaluated with details where anything is to be written.
        plot: From ``output_options``.

    Raises:
        DeviceError: The disk refused.
    """
    if plot is not None:
        from facekd.engine.curves import grouped
        from facekd.engine.plots import write_plot

        write_plot(plot, grouped(done.evaluations))
