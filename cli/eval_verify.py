"""``facekd eval --verify``: the figures of a report, computed again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from facekd.engine.evaluation.across_groups import across_groups
from facekd.engine.evaluation.across_sets import across_sets
from facekd.engine.evaluation.verifying import Report, first_difference, read_report, require_digest
from facekd.errors import InputError, RequirementError, UsageError

from .common import check_models
from .eval_run import perform

if TYPE_CHECKING:
    from facekd.engine.evaluation.evaluation_sets import OpenedSet
    from facekd.engine.evaluation.template_sets import TemplateSet
    from facekd.models.embedder import Embedder

ALONGSIDE = ("verify", "device")


def verify_report(context: click.Context, path: Path, device: str) -> None:
    """Do again what a report says was done, and compare.

    Args:
        context: Of the command, which must have been given nothing else.
        path: Of the report.
        device: From ``device_option``; counts where it was given.

    Raises:
        UsageError: Another option was given.
        InputError: No such report, or a model or set that is gone or another.
        RequirementError: A figure differs; names the first.
    """
    given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    others = [name for name in given if name not in ALONGSIDE]
    if others:
        raise UsageError("--verify", f"takes everything from {path}", f"leave {_called(context, others[0])} out")
    report = read_report(path)
    request = replace(report.request, device=device) if "device" in given else report.request
    check_models([Path(model) for model in request.models])
    for name in (*request.sets, *([request.images] if request.images else [])):
        if not Path(name).exists():
            raise InputError(name, f"no such file or folder, and {path} needs it", f"looked from {Path.cwd()}")

    def opening(opened: OpenedSet | TemplateSet) -> None:
        require_digest(report.where, opened.name, opened.digest, report.set_digests(opened.name))

    def loading(model: Path, embedder: Embedder) -> None:
        require_digest(report.where, embedder.name, embedder.digest, report.model_digests(embedder.name))

    done = perform(request, opening=opening, loading=loading)
    for result in done.results:
        require_digest(report.where, result["set"], result["set_digest"], report.set_digests(result["set"]))
    _compare(report, done.results, _environment(request.device))


def _called(context: click.Context, name: str) -> str:
    (parameter,) = (one for one in context.command.params if one.name == name)
    return parameter.opts[0] if parameter.opts[0].startswith("-") else "MODEL"


def _environment(device: str) -> dict[str, object]:
    from facekd.engine.run_folder import environment
    from facekd.engine.training.build import resolve_device

    return environment(resolve_device(device))


def _compare(report: Report, results: list[dict[str, object]], environment: dict[str, object]) -> None:
    other = [name for name, value in environment.items() if report.environment.get(name) != value]
    found = first_difference(report.results, results, exact=not other)
    found = found or first_difference(report.across_sets, across_sets(results), exact=not other)
    if report.across_groups is not None:
        found = found or first_difference(report.across_groups, across_groups(results), exact=not other)
    if found:
        raise RequirementError(report.where, found)
    how = "to the last bit" if not other else f"within 0.001, for the report was made with another {', '.join(other)}"
    click.echo(f"{report.where}: {len(results)} results computed again, equal {how}")
