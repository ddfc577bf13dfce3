"""What ``facekd eval`` has for sets of templates: options, settings and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from facekd.errors import UsageError

from .common import console
from .interval_lines import interval_lines

if TYPE_CHECKING:
    from facekd.engine.evaluation.figures import EvalSettings
    from facekd.engine.evaluation.request import Request
    from facekd.engine.evaluation.template_evaluation import TemplateEvaluation
    from facekd.engine.evaluation.template_sets import TemplateSet
    from facekd.engine.resumable import Watched
    from facekd.models.embedder import Embedder

Command = TypeVar("Command", bound=Callable[..., object])

PROTOCOLS = ("ijb-1:1", "ijb-1:n", "tinyface")
CACHE = Path("runs/eval-cache")
WELL_FOUNDED = 30
OPTIONS = {"norm": "--norm", "det": "--det/--no-det", "all_modes": "--all-modes", "count_failures": "--count-failures"}


def template_options(command: Command) -> Command:
    """Add ``--norm``, ``--det``, ``--all-modes``, ``--count-failures`` and ``--cache``."""
    options = (
        click.option(
            "--norm",
            type=click.Choice(["keep", "unit"]),
            default="keep",
            show_default=True,
            help="Templates: leave the length of an image's embedding as it is, or divide it out.",
        ),
        click.option(
            "--det/--no-det",
            default=True,
            show_default=True,
            help="Templates: weigh an image with the score of the face detector.",
        ),
        click.option(
            "--all-modes", is_flag=True, help="Templates: a result for each of the eight ways of norm, det and flip."
        ),
        click.option(
            "--count-failures",
            is_flag=True,
            help="Templates: count an image that is missing, damaged or without an embedding as failed, and a template "
            "that holds one as well: every comparison with it is an error, so that no failure raises a figure. Without "
            "it such an image ends the evaluation.",
        ),
        click.option(
            "--cache",
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder the embeddings are kept in, by model and content of the images: a pass that was "
            "stopped goes on, a second one needs no model.  "
            f"[default: of templates {CACHE}, of other sets none]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_template_options(context: click.Context, sets: Sequence[Path], protocol: str) -> None:
    """Refuse options of which one leaves the other without effect.

    Args:
        context: Of the command.
        sets: From ``--on``.
        protocol: From ``--protocol``.

    Raises:
        UsageError: An option that no set heeds, ``--all-modes`` beside one of the modes, or an option that templates
            do not heed.
    """
    from facekd.engine.evaluation.template_sets import is_template_set

    written = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    found = [is_template_set(path, protocol) for path in sets]
    heeded = [called for name, called in OPTIONS.items() if name in written]
    if heeded and not any(found):
        what = "has no effect: no set has templates"
        raise UsageError(heeded[0], what, "leave it out, or name an IJB or TinyFace folder with --on")
    modes = [called for name, called in (("norm", "--norm"), ("det", "--det"), ("flip", "--flip")) if name in written]
    if "all_modes" in written and modes:
        what = f"evaluates every mode, and {modes[0]} asks for one"
        raise UsageError("--all-modes", what, "leave one of them out")
    if any(found) and "sides" in written:
        raise UsageError("--resolution", "images of templates are not brought down", "leave it out for such sets")
    if any(found) and "cross" in written:
        raise UsageError("--cross", "templates are not compared across models", "leave it out for such sets")


def usual_rates(sets: Sequence[Path], protocol: str, plain: Sequence[float]) -> list[float]:
    """The FPRs or FPIRs that are usual for some sets, where nobody asks for others.

    Args:
        sets: From ``--on``.
        protocol: From ``--protocol``.
        plain: Those of sets without templates.
    """
    from facekd.engine.evaluation.template_evaluation import IJB_FPIRS, IJB_FPRS
    from facekd.engine.evaluation.template_sets import is_template_set

    if protocol in ("ijb-1:n", "tinyface"):
        return list(IJB_FPIRS)
    found = {is_template_set(path, protocol) for path in sets}
    return list(dict.fromkeys([*(plain if False in found or not sets else ()), *(IJB_FPRS if True in found else ())]))


def evaluate_template_set(
    embedder: Embedder, opened: TemplateSet, settings: EvalSettings, request: Request, cache: Path, watched: Watched
) -> Iterator[TemplateEvaluation]:
    """Every result of one model on one set of templates.

    Args:
        embedder: The model.
        opened: The set.
        settings: As for other sets.
        request: What was asked.
        cache: Folder the embeddings are kept in.
        watched: Progress and stopping.
    """
    from facekd.engine.evaluation.template_evaluation import evaluate_templates
    from facekd.engine.evaluation.two_views import ViewCache
    from facekd.metrics.templates import AGGREGATIONS, Aggregation

    modes = AGGREGATIONS if request.all_modes else [Aggregation(request.norm, request.det, request.flip)]
    if opened.protocol == "tinyface":
        modes = [mode for mode in modes if (mode.norm, mode.det) == ("keep", True)] or [Aggregation(flip=request.flip)]
    kept = ViewCache(cache, "", settings.batch_size, request.count_failures)
    yield from evaluate_templates(embedder, opened, settings, modes, kept, watched)


def print_template_tables(results: Sequence[dict[str, Any]], sets: Sequence[TemplateSet], notes: Iterable[str]) -> None:
    """Print the figures for people: a table a protocol, then what they must know to read them.

    Args:
        results: Of sets of templates.
        sets: Those sets.
        notes: Lines on the results.
    """
    out = console()
    tables = {"ijb-1:1": _verification, "ijb-1:n": _identification, "tinyface": _ranks}
    for protocol, fill in tables.items():
        own = [result for result in results if result["protocol"] == protocol]
        if own:
            out.print(_table(*fill(own)))
    for line in dict.fromkeys([*notes, *_notes(results, sets)]):
        out.print(line, markup=False, soft_wrap=True)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for number, name in enumerate(columns):
        if number < 2:
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, justify="right" if number > 2 else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _verification(results: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of 1:1."""
    shown = sorted({point["fpr"] for result in results for point in result["tpr_at_fpr"]})
    rows = []
    for result in results:
        row = [*_head(result), f"{result['genuine']:,}\n{result['impostor']:,}"]
        row += [_tpr_cell(result, fpr) for fpr in shown]
        rows.append([*row, f"{result['auc']:.5f}\n{result['eer']['value']:.4f}"])
    columns = ["model", "set", "norm\ndet\nflip", "genuine\nimpostor", *(f"TPR @\n{_short(fpr)}" for fpr in shown)]
    return [*columns, "AUC\nEER"], rows


def _identification(results: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of 1:N: galleries apart, and below them merged."""
    shown = sorted({point["fpir"] for result in results for point in result["tpir_at_fpir"]})
    ranks = list(results[0]["rank"])
    rows = []
    for result in results:
        galleries = " + ".join(f"{count:,}" for count in result["gallery"].values())
        row = [*_head(result), f"{galleries}\n{result['probes']:,}", "apart\nmerged"]
        row += [f"{result['rank'][rank]:.4f}\n{result['rank_merged'][rank]:.4f}" for rank in ranks]
        rows.append([*row, *(_tpir_cell(result, fpir) for fpir in shown)])
    columns = ["model", "set", "norm\ndet\nflip", "gallery\nprobes", "galleries"]
    return [*columns, *(f"rank {rank}" for rank in ranks), *(f"TPIR @\n{_short(fpir)}" for fpir in shown)], rows


def _ranks(results: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of TinyFace."""
    ranks = list(results[0]["rank"])
    rows = []
    for result in results:
        counts = f"{sum(result['gallery'].values()):,}\n{result['probes']:,}"
        shares = [f"{result['rank'][rank]:.4f}" for rank in ranks]
        way = "\n".join(["on" if result["flip"] else "off", *([result["fusion"]] if "fusion" in result else [])])
        rows.append([result["model"], result["set"], way, counts, *shares])
    return ["model", "set", "flip", "gallery\nprobes", *(f"rank {rank}" for rank in ranks)], rows


def _head(result: dict[str, Any]) -> list[str]:
    det, flip = ("on" if result[name] else "off" for name in ("det", "flip"))
    way = [result["norm"], det, flip]
    if "fusion" in result:
        way = [result["fusion"], result.get("score"), flip]
    return [result["model"], result["set"], "\n".join(line for line in way if line)]


def _short(rate: float) -> str:
    return f"{rate:g}".replace("e-0", "e-")


def _tpr_cell(result: dict[str, Any], fpr: float) -> str:
    for point in result["tpr_at_fpr"]:
        if point["fpr"] == fpr:
            star = "" if point["supported"] else "*"
            interval = "" if point["ci95"] is None else "\n{:.4f}-\n{:.4f}".format(*point["ci95"])
            return f"{point['tpr']:.5f}{star}{interval}"
    return "refused"


def _tpir_cell(result: dict[str, Any], fpir: float) -> str:
    cells = []
    for definition in ("nist", "merged"):
        found = [p for p in result["tpir_at_fpir"] if (p["definition"], p["fpir"]) == (definition, fpir)]
        star = "*" if found and not found[0]["supported"] else ""
        cells.append(f"{found[0]['tpir']:.4f}{star}" if found else "refused")
    return "\n".join(cells)


def _notes(results: Sequence[dict[str, Any]], sets: Sequence[TemplateSet]) -> Iterator[str]:
    points = [point for result in results for point in result["tpr_at_fpr"]]
    if not all(point["supported"] for point in points):
        yield f"* rests on fewer than {WELL_FOUNDED} false accepts: the threshold is uncertain"
    searched = [point for result in results for point in result.get("tpir_at_fpir", ())]
    if searched:
        yield "apart: a probe without mate in a gallery is a false alarm by its highest score, galleries are averaged"
        yield "merged: one gallery of all, and the threshold is a highest score of any probe with anybody else"
    if not all(point["supported"] for point in searched):
        yield f"* rests on fewer than {WELL_FOUNDED} false alarms: the threshold is uncertain"
    for result in results:
        if result["failed_templates"]:
            yield _failures(result)
        for entry in result["refused"]:
            yield f"{result['set']}: {_refusal(entry)}"
    told = {result["set"] for result in results if any(point["ci95"] for point in result["tpr_at_fpr"])}
    heads = [" ".join([result["model"], "on", *" ".join(_head(result)[1:]).split()]) for result in results]
    yield from interval_lines(zip(heads, results, strict=True))
    for one in sets:
        if not one.subjects_known and one.name in told:
            yield f"intervals on {one.name} resample pairs, for the people are unknown: take them as too narrow"


def _failures(result: dict[str, Any]) -> str:
    """What failed, and what the figures would be if it were only never accepted."""

    def star(point: dict[str, Any]) -> str:
        return "" if point["supported"] else "*"

    plain, templates = result["failed_as_non_matches"], f"{result['failed_templates']:,} templates failed"
    if "rank" in result:
        told = [f"rank {rank} {rate:.4f}" for rank, rate in plain["rank"].items()]
        told += [
            f"TPIR ({p['definition']}) @ {_short(p['fpir'])} {p['tpir']:.4f}{star(p)}" for p in plain["tpir_at_fpir"]
        ]
    else:
        told = [f"TPR @ {_short(point['fpr'])} {point['tpr']:.5f}{star(point)}" for point in plain["tpr_at_fpr"]]
    rule = "every comparison with one is an error, so that no failure raises a figure"
    other = "with failed images left out and failed templates as non-matches, which may flatter"
    return f"{result['model']} on {result['set']}: {templates}: {rule}; {other}: {', '.join(told) or 'refused as well'}"


def _refusal(entry: dict[str, Any]) -> str:
    if entry.get("failed"):
        rate, what = ("fpr", "FPR") if "fpr" in entry else ("fpir", f"FPIR ({entry['definition']})")
        return f"{what} {_short(entry[rate])} refused: it allows less than the {entry['failed']:,} that failed"
    if "fpr" in entry:
        has = f"{entry['needed']:,} impostor pairs, the set has {entry['impostors']:,}"
        return f"FPR {_short(entry['fpr'])} refused: it needs {has}"
    who = "probes without mate, a gallery has" if entry["definition"] == "nist" else "probes, the set has"
    has = f"{entry['needed']:,} {who} {entry['nonmated']:,}"
    return f"FPIR {_short(entry['fpir'])} ({entry['definition']}) refused: it needs {has}"
