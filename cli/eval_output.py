"""The pictures and the page of ``facekd eval``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click

from facekd.engine.evaluation.request import command_words

from .eval_run import Done, written
from .eval_table import print_table
from .eval_templates import print_template_tables

Command = TypeVar("Command", bound=Callable[..., object])

PICTURES, PAGES = (".png", ".svg"), (".html", ".htm")


def _check_output(*suffixes: str) -> Callable[[click.Context, click.Parameter, Path | None], Path | None]:
    def check(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
        if value is not None and value.suffix.lower() not in suffixes:
            raise click.BadParameter(f"{value} ends not in {' or '.join(suffixes)}", context, parameter)
        if value is not None and not value.absolute().parent.is_dir():
            raise click.BadParameter(f"{value.absolute().parent} is not a folder", context, parameter)
        return value

    return check


def output_options(command: Command) -> Command:
    """Add ``--plot`` and ``--report``."""
    plot = click.option(
        "--plot",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        callback=_check_output(*PICTURES),
        help="Draw ROC, DET and score histograms of all models, a row for each set, as .png or .svg.",
    )
    report = click.option(
        "--report",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        callback=_check_output(*PAGES),
        help="Write one .html page that needs no other file: figures, thresholds, curves, what each model costs, and "
        "the hardest pairs as pictures of faces.",
    )
    return plot(report(command))


def print_tables(done: Done) -> None:
    """Print the figures for people: those of templates in tables of their own."""
    from facekd.engine.evaluation.template_sets import TEMPLATE_PROTOCOLS, TemplateSet

    plain = [result for result in done.results if result["protocol"] not in TEMPLATE_PROTOCOLS]
    templates = [result for result in done.results if result["protocol"] in TEMPLATE_PROTOCOLS]
    if plain:
        print_table(plain, [one for one in done.opened if not isinstance(one, TemplateSet)], done.settings)
    if templates:
        sets = [one for one in done.opened if isinstance(one, TemplateSet)]
        notes = (line for one in done.evaluations for line in getattr(one, "notes", ()))
        print_template_tables(templates, sets, notes)


def write_outputs(done: Done, plot: Path | None, report: Path | None) -> None:
    """Write what was asked for beside the figures.

    Args:
        done: Evaluated with details where anything is to be written, with costs where a report is.
        plot: From ``output_options``.
        report: From ``output_options``.

    Raises:
        DataError: A face can no longer be read.
        DeviceError: The disk refused.
    """
    if plot is not None:
        from facekd.engine.evaluation.curves import grouped
        from facekd.engine.evaluation.plots import write_plot

        write_plot(plot, grouped(done.evaluations))
    if report is not None:
        from facekd.engine.evaluation.report import Told, write_report

        told = written(done)
        warnings = dict.fromkeys([*(line for one in done.opened for line in one.warnings), *done.doubts])
        write_report(
            report,
            done.evaluations,
            done.faces,
            Told(
                models=done.models,
                warnings=tuple(warnings),
                command=command_words(done.request),
                environment=told["environment"],
                arguments=told["arguments"],
                date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            ),
        )
