"""``facekd teacher inspect``: what a model file is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facekd.errors import UsageError

from .common import check_models, console, foreign_options, json_option, progress_bar, write_json

if TYPE_CHECKING:
    from facekd.engine.probe import Fit, Probe
    from facekd.engine.signals import Poll
    from facekd.engine.teacher_inspection import TeacherInspection

MOST_ROWS = 30


@click.command("inspect", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", type=click.Path(path_type=Path))
@foreign_options
@click.option(
    "--on",
    "data",
    metavar="SET",
    type=click.Path(path_type=Path),
    help="Try every colour order and scaling on these faces: pairs, or a folder or list of people.",
)
@click.option("--images", type=click.Path(path_type=Path), help="Root of the paths in a list.  [default: its folder]")
@click.option("--sample", type=click.IntRange(20, 10_000), default=128, show_default=True, help="People of SET to try.")
@json_option
def inspect(
    model: Path,
    color: str | None,
    normalize: str | None,
    data: Path | None,
    images: Path | None,
    sample: int,
    json_path: str | None,
) -> None:
    """Say what MODEL is (run folder, .safetensors, .pt, .pth, .ckpt, .onnx, hf:owner/name/file or timm/NAME).

    Shown are whose file it is, its backbone, depth and sizes, the container and prefixes its tensors came out of, what
    its images must go through and who says so, the classifier beside it, its digest and metadata, and whether two
    different pictures get two different embeddings. A file that cannot be used is compared with the nearest backbone,
    key by key, and refused.

    \b
    Example:
      facekd teacher inspect r50.pth
      facekd teacher inspect ir101.pth --on lfw_pairs.txt --images lfw112
      facekd teacher inspect hf:owner/name/model.safetensors --json model.json
    """
    check_models([model])
    if images is not None and data is None:
        raise UsageError("--images", "has no meaning without --on", "name a set: --on faces.csv")
    from facekd.engine.signals import interruptible
    from facekd.engine.teacher_inspection import inspect_teacher

    probe = None
    with interruptible("facekd teacher inspect", "stopped") as poll:
        found = inspect_teacher(model, color, normalize)
        poll()
        _print(found)
        if data is not None and found.embedder is not None:
            probe = _probe(found, data, images, sample, poll)
            _print_probe(found, probe)
    if json_path:
        write_json({**found.as_dict(), "probe": None if probe is None else _probe_json(found, probe)}, json_path)
    if found.problem is not None:
        raise found.problem


def _print(found: TeacherInspection) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=found.model, show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in _rows(found):
        table.add_row(label, Text(value))
    out = console()
    out.print(table)
    for warning in found.warnings:
        out.print(f"note: {warning}", markup=False, soft_wrap=True)
    if found.keys is not None and found.keys.differences:
        _print_keys(found)


def _rows(found: TeacherInspection) -> Iterator[tuple[str, str]]:
    yield "file", found.kind
    if found.source:
        yield "written by", found.source
    if found.container:
        yield "tensors lie under", found.container
    if found.prefixes:
        yield "taken off the keys", ", ".join(f"{prefix} ({count})" for prefix, count in found.prefixes)
    if found.title:
        yield "backbone", found.title if found.title == found.backbone else f"{found.title} ({found.backbone})"
    if found.tensors:
        yield "tensors", f"{found.tensors:,}"
    if found.parameters:
        yield "parameters", f"{found.parameters:,}"
    if found.embedding_size:
        yield "embedding", f"{found.embedding_size} values{_habits(found)}"
    if found.size[0]:
        yield "input", f"{found.size[0]} x {found.size[1]} pixels"
        yield "colour order", _said(found, found.color, "--color rgb|bgr")
        yield "scaling", _said(found, found.normalize, "--normalize half|128|imagenet|unit|none")
    if found.embedding_size:
        yield "classifier", _classifier(found)
    yield "self-test", found.self_test
    yield "digest", found.digest
    for key, value in sorted(found.metadata.items()):
        yield f"metadata: {key}", value if len(value) <= 200 else f"{value[:200]} ..."


def _habits(found: TeacherInspection) -> str:
    """What the model does to embeddings that a user may think is still to be done."""
    unit = bool(found.lengths) and all(abs(length - 1) < 1e-3 for length in found.lengths)
    told = [", of length one already"] if unit else []
    return "".join([*told, *([", the same for an image and its mirror"] if found.mirrors else [])])


def _said(found: TeacherInspection, value: str | None, option: str) -> str:
    return f"nobody says it; add {option}" if value is None else f"{value}, says {found.preprocessing_source}"


def _classifier(found: TeacherInspection) -> str:
    if found.classifier is None:
        return "none beside the backbone"
    told = found.classifier
    return f"{told['classes']:,} classes of {told['width']} values, stored {told['stored']}"


def _print_keys(found: TeacherInspection) -> None:
    from rich.table import Table

    if found.keys is None:
        return
    rows = found.keys.differences
    table = Table("key", "is", "found", "expected", title=f"against {found.keys.title}", title_justify="left")
    for row in rows[:MOST_ROWS]:
        table.add_row(row.key, row.kind, *("" if shape is None else str(shape) for shape in (row.found, row.expected)))
    out = console()
    out.print(table)
    if len(rows) > MOST_ROWS:
        out.print(f"and {len(rows) - MOST_ROWS:,} more; --json has them all")


def _probe(found: TeacherInspection, data: Path, images: Path | None, sample: int, poll: Poll) -> Probe:
    from facekd.engine.teacher_inspection import probe_teacher

    with progress_bar() as progress:
        return probe_teacher(found, data, images, sample, progress=progress, poll=poll)


def _print_probe(found: TeacherInspection, probe: Probe) -> None:
    from rich.table import Table

    from facekd.engine.probe import advice

    table = Table(title=f"on {probe.people} people, best first", title_justify="left")
    for name in ("colour order", "scaling", "AUC", "separation", ""):
        table.add_column(name, justify="right" if name in ("AUC", "separation") else "left")
    settled = _settled(found)
    for fit in probe.fits:
        mark = "in use" if fit is probe.in_use and settled else ""
        table.add_row(fit.color, fit.normalize, f"{fit.auc:.4f}", f"{fit.separation:.2f}", mark)
    out = console()
    out.print(table)
    best = _best(found, probe)
    told = advice(probe) if settled else f"best: --color {best.color} --normalize {best.normalize}"
    out.print(told or "no other way fits significantly better than the one in use", soft_wrap=True)


def _settled(found: TeacherInspection) -> bool:
    return None not in (found.color, found.normalize)


def _best(found: TeacherInspection, probe: Probe) -> Fit:
    """The way to take: the model's own unless another is significantly better, or nobody says what its own is."""
    return (probe.better or probe.in_use) if _settled(found) else probe.fits[0]


def _probe_json(found: TeacherInspection, probe: Probe) -> dict[str, Any]:
    fits = [
        {"color": fit.color, "normalize": fit.normalize, "auc": fit.auc, "separation": fit.separation}
        for fit in probe.fits
    ]
    best = _best(found, probe)
    return {"people": probe.people, "fits": fits, "best": {"color": best.color, "normalize": best.normalize}}
