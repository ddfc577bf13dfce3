"""One page of HTML that tells an evaluation: figures, curves, the hardest faces, and how to compute it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facekd.engine.evaluation.across_groups import across_groups
from facekd.engine.evaluation.across_sets import across_sets
from facekd.engine.evaluation.curves import Evaluated, Frame, Group, Line, curves_of, grouped
from facekd.engine.evaluation.plots import DASHES, PALETTE, draw_lines, draw_scores, inline_svg, plain
from facekd.engine.evaluation.report_faces import Card, Faces, hardest_cards
from facekd.engine.evaluation.resolution_modes import describe_resolution
from facekd.engine.model_facts import ModelFacts
from facekd.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WELL_FOUNDED = 30
"""False accepts below which a threshold is called uncertain."""


@dataclass(frozen=True)
class Told:
    """What a report says beside the figures.

    Attributes:
        models: Every model, as it was loaded.
        warnings: Of models and sets, a line each.
        command: That computes the figures again.
        environment: Where they were computed; see :func:`facekd.engine.run_folder.environment`.
        arguments: As in the JSON.
        date: When, in words.
    """

    models: Sequence[ModelFacts]
    warnings: Sequence[str]
    command: Sequence[str]
    environment: Mapping[str, Any]
    arguments: Mapping[str, Any]
    date: str


@dataclass(frozen=True)
class Column:
    """One model in the section of a set."""

    label: str
    look: int
    result: Mapping[str, Any]
    points: Mapping[float, Mapping[str, Any]]
    refused: Mapping[float, Mapping[str, Any]]
    impostor_cards: Sequence[Card]
    genuine_cards: Sequence[Card]


@dataclass(frozen=True)
class Section:
    """A set in one mode, every model side by side.

    Attributes:
        title: The set and the mode.
        columns: The models.
        fprs: Every FPR that was asked for, the largest first.
        headline: The smallest of those all models could answer on enough false accepts; None without one.
        ranks: Every rank that was asked for; none where pairs were compared.
        pictures: Curves and scores.
    """

    title: str
    columns: Sequence[Column]
    fprs: Sequence[float]
    headline: float | None
    ranks: Sequence[str]
    pictures: Sequence[str]

    def refused_alike(self, fpr: float) -> bool:
        """Whether every model was refused this FPR for the same reason."""
        found = [column.refused.get(fpr) for column in self.columns]
        return found[0] is not None and all(entry == found[0] for entry in found)


def write_report(path: Path, evaluations: Sequence[Evaluated], faces: Sequence[Faces], told: Told) -> None:
    """Write the page, whole or not at all; it needs nothing but itself.

    Args:
        path: The file.
        evaluations: With details.
        faces: Of the set of each evaluation, at the size its model takes.
        told: What else it says.

    Raises:
        DataError: A face can no longer be read.
        DeviceError: The disk refused.
    """
    write_text(path, report_html(evaluations, faces, told))


def report_html(evaluations: Sequence[Evaluated], faces: Sequence[Faces], told: Told) -> str:
    """The page; see :func:`write_report`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("facekd.engine.evaluation", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {
        "amount": _amount,
        "size": _size,
        "short": plain,
        "exactly": json.dumps,
        "resolution": describe_resolution,
    }
    whose = {id(evaluation): one for evaluation, one in zip(evaluations, faces, strict=True)}
    results = [one.result for one in evaluations]
    sections = [_section(group, [whose[id(one)] for one in group.evaluations]) for group in grouped(evaluations)]
    return pages.get_template("report.html").render(
        told=told,
        command=shlex.join(told.command),
        sections=sections,
        summaries=across_sets(results),
        divided=across_groups(results),
        palette=PALETTE,
        dashes=[_css_dashes(dash) for dash in DASHES],
        well_founded=WELL_FOUNDED,
        digests=sorted({(one.result["set"], one.result.get("set_digest", "")) for one in evaluations}),
    )


def _section(group: Group, faces: Sequence[Faces]) -> Section:
    columns = []
    for look, (label, one, pictures) in enumerate(zip(group.labels, group.evaluations, faces, strict=True)):
        points = {point["fpr"]: point for point in one.result["tpr_at_fpr"]}
        refused = {entry["fpr"]: entry for entry in one.result["refused"] if "fpr" in entry}
        columns.append(Column(label, look, one.result, points, refused, *hardest_cards(one, pictures)))
    shared = [fpr for fpr in columns[0].points if all(fpr in column.points for column in columns)]
    firm = [fpr for fpr in shared if all(column.points[fpr]["supported"] for column in columns)]
    asked = dict.fromkeys(fpr for column in columns for fpr in (*column.points, *column.refused))
    return Section(
        title=group.title,
        columns=columns,
        fprs=sorted(asked, reverse=True),
        headline=min(firm or shared, default=None),
        ranks=list(columns[0].result.get("rank") or ()),
        pictures=[
            *(_curve_svg(*curve) for curve in curves_of(group)),
            *([_scores_svg(group)] if group.pairwise else []),
        ],
    )


def _curve_svg(frame: Frame, lines: Sequence[Line]) -> str:
    return _markup(inline_svg(lambda figure: draw_lines(figure.subplots(), frame, lines), (4.3, 3.2)))


def _scores_svg(group: Group) -> str:
    def draw(figure: Figure) -> None:
        draw_scores(figure, group)

    return _markup(inline_svg(draw, (4.3, max(3.2, 0.7 + 0.95 * len(group.evaluations)))))


def _markup(svg: str) -> str:
    from markupsafe import Markup

    return Markup(svg)


def _css_dashes(dash: Any) -> str:
    return "none" if isinstance(dash, str) else " ".join(f"{2 * length:g}" for length in dash[1])


def _amount(value: float | None) -> str:
    """A large number in few characters."""
    if value is None:
        return "unknown"
    for unit, word in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:.3g}{word}"
    return f"{value:g}"


def _size(value: float | None) -> str:
    return "unknown" if value is None else f"{value / 1e6:.2f} MB"
