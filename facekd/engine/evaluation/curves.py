"""What is drawn of measurements: lines with their intervals and the frame they stand in, whatever draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from facekd.data.images import shown
from facekd.engine.evaluation.resolution_modes import describe_resolution
from facekd.metrics.measured import Details, Measured, SearchDetails
from facekd.metrics.templates import Aggregation

LONGEST_LABEL = 60


class Evaluated(Protocol):
    """What is drawn and told of: one model on one set in one mode."""

    @property
    def result(self) -> Mapping[str, Any]:
        """One entry of ``results`` in the JSON of ``facekd eval``."""

    @property
    def measured(self) -> Measured | None:
        """What it was written from; None where no pairs were compared."""

    @property
    def search_details(self) -> SearchDetails | None:
        """What is drawn of it; None where no gallery was searched, or no details were asked for."""


@dataclass(frozen=True)
class Mark:
    """A point of a line with its 95 % interval, where there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, eq=False)
class Line:
    """A curve of one model; where ``y`` is NaN nothing is drawn."""

    label: str
    x: np.ndarray
    y: np.ndarray
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Frame:
    """Axes that several lines share.

    Attributes:
        title: Above the axes.
        x_label: Under the x axis.
        y_label: Beside the y axis.
        x_log: A logarithmic x axis.
        y_log: A logarithmic y axis.
        x_range: Ends of the x axis.
        y_range: Ends of the y axis.
        refused_below: Left of this x nothing can be said; None where everything can.
    """

    title: str
    x_label: str
    y_label: str
    x_log: bool
    y_log: bool
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    refused_below: float | None = None


@dataclass(frozen=True)
class Group:
    """What stands side by side: every model on one set in one mode.

    Attributes:
        title: The set, and the mode where there are several.
        evaluations: One a model.
    """

    title: str
    evaluations: tuple[Evaluated, ...]

    @property
    def labels(self) -> list[str]:
        """What the models are called, each name once; of probes in the gallery of another model, both."""
        names = [_who(evaluation.result) for evaluation in self.evaluations]
        return [
            f"{name} ({names[: at + 1].count(name)})" if names.count(name) > 1 else name
            for at, name in enumerate(names)
        ]

    @property
    def pairwise(self) -> bool:
        """Whether pairs were compared, so that there are scores and a curve."""
        return all(one.measured is not None and one.measured.details is not None for one in self.evaluations)

    @property
    def score(self) -> str:
        """What compared the pairs, in words."""
        return str(self.evaluations[0].result.get("score", "cosine")).replace("-", " ")

    @property
    def searched(self) -> bool:
        """Whether galleries were searched, so that there are ranks."""
        return all(one.search_details is not None for one in self.evaluations)

    @property
    def measured(self) -> list[tuple[str, Measured, Details]]:
        """Label and measurement of each model, with its details.

        Raises:
            ValueError: None were kept, or no pairs were compared.
        """
        found = []
        for label, one in zip(self.labels, self.evaluations, strict=True):
            if one.measured is None or one.measured.details is None:
                raise ValueError("measured without details; ask for them in the settings")
            found.append((label, one.measured, one.measured.details))
        return found


def grouped(evaluations: Sequence[Evaluated]) -> list[Group]:
    """Evaluations by set and mode, both in the order they come.

    Args:
        evaluations: With details.
    """
    found: dict[tuple[str, str, str], list[Evaluated]] = {}
    for evaluation in evaluations:
        result = evaluation.result
        key = (result["set"], result.get("set_digest", ""), _mode(result))
        found.setdefault(key, []).append(evaluation)
    return [
        Group(f"{_label(name)}, {mode}" if mode else _label(name), tuple(entries))
        for (name, _, mode), entries in found.items()
    ]


def _mode(result: Mapping[str, Any]) -> str:
    """What sets a result apart from others of its model on its set, in words; empty for the usual."""
    resolution, part = describe_resolution(result["resolution"]), result.get("group")
    words = [f"{part['column']} {part['value']}"] if part else []
    words += [] if resolution == "full" else [resolution]
    words += [str(result[name]).replace("-", " ") for name in ("fusion", "score") if name in result]
    if "norm" in result and "fusion" not in result:
        words.append(Aggregation(result["norm"], result["det"], result["flip"]).told)
    if "norm" in result or result.get("rank"):
        words.insert(0, result["protocol"])
    return ", ".join(words)


def curves_of(group: Group) -> list[tuple[Frame, list[Line]]]:
    """Every curve that the results of a group give."""
    found = [roc(group), det(group)] if group.pairwise else []
    if group.searched:
        found.append(cmc(group))
        found += [tpir(group)] if all(one.result["tpir_at_fpir"] for one in group.evaluations) else []
    if all(one.result.get("by_uncertainty") for one in group.evaluations):
        found.append(reject(group))
    return found


def roc(group: Group) -> tuple[Frame, list[Line]]:
    """TPR by FPR, the FPR on a logarithmic axis, with the interval of every operating point."""
    lines = []
    for label, measured, details in group.measured:
        lines.append(Line(label, details.curve.fpr, details.curve.tpr, _marks(measured)))
    frame = Frame("ROC", "FPR", "TPR", True, False, _fpr_range(group), _above_least(lines), _refused(group))
    return frame, lines


def det(group: Group) -> tuple[Frame, list[Line]]:
    """The share of genuine pairs missed by FPR, both on logarithmic axes; where none is missed the line ends."""
    lines = []
    for line in roc(group)[1]:
        missed = np.where(line.y < 1, 1 - line.y, np.nan)
        marks = [_turned(mark) for mark in line.marks if mark.y < 1]
        lines.append(Line(line.label, line.x, missed, tuple(marks)))
    one = min(1 / measured.genuine for _, measured, _ in group.measured)
    drawn = [one, *(float(np.nanmax(line.y)) for line in lines if not np.isnan(line.y).all())]
    range_ = 0.7 * one, min(1.5 * max(drawn), 1.2)
    frame = Frame("DET", "FPR", "missed (1 - TPR)", True, True, _fpr_range(group), range_, _refused(group))
    return frame, lines


def cmc(group: Group) -> tuple[Frame, list[Line]]:
    """Cumulative match: the share of probes whose mate is among the first k, the ranks that were asked for marked."""
    lines = []
    for label, one in zip(group.labels, group.evaluations, strict=True):
        if one.search_details is None:
            raise ValueError("searched without details; ask for them in the settings")
        found = one.search_details.cmc
        marks = tuple(Mark(int(rank), rate) for rank, rate in one.result["rank"].items())
        lines.append(Line(label, np.arange(1, len(found) + 1), found, marks))
    most = max(float(line.x.max()) for line in lines)
    return Frame("CMC", "rank", "found", True, False, (0.9, 1.2 * most), _above_least(lines)), lines


def reject(group: Group) -> tuple[Frame, list[Line]]:
    """Error versus reject: genuine pairs missed at the smallest FPR, as those the model is least sure of go."""
    fpr = min(point["fpr"] for point in group.evaluations[0].result["by_uncertainty"])
    lines = []
    for label, one in zip(group.labels, group.evaluations, strict=True):
        (point,) = (told for told in one.result["by_uncertainty"] if told["fpr"] == fpr)
        shares, missed = zip(*((step["turned_away"], step["missed"]) for step in point["reject"]), strict=True)
        lines.append(Line(label, np.array(shares), np.array(missed)))
    top = 1.1 * max(float(line.y.max()) for line in lines) or 1.0
    return Frame(
        "Error versus reject", "turned away", f"missed at FPR {fpr:g}", False, False, (0, 0.5), (0, top)
    ), lines


def tpir(group: Group) -> tuple[Frame, list[Line]]:
    """Identification: TPIR by FPIR as NIST defines them, at the points that were asked for."""
    lines = []
    for label, one in zip(group.labels, group.evaluations, strict=True):
        points = [point for point in one.result["tpir_at_fpir"] if point["definition"] == "nist"]
        lines.append(_through(label, tuple(Mark(point["fpir"], point["tpir"]) for point in points)))
    ends = [end for line in lines for end in line.x.tolist()] or [1.0]
    frame_range = min(ends) / 2, min(1.0, 2 * max(ends))
    return Frame("Identification", "FPIR", "TPIR", True, False, frame_range, _above_least(lines)), lines


def _through(label: str, marks: tuple[Mark, ...]) -> Line:
    ordered = sorted(marks, key=lambda mark: mark.x)
    return Line(label, np.array([mark.x for mark in ordered]), np.array([mark.y for mark in ordered]), marks)


def _above_least(lines: Sequence[Line]) -> tuple[float, float]:
    """Ends of an axis of rates, which leaves out what no line reaches."""
    least = min((_lowest(line) for line in lines if line.y.size), default=0.0)
    bottom = max(0.0, 1 - 1.12 * max(1 - least, 0.01))
    return bottom, 1 + 0.04 * (1 - bottom)


def _who(result: Mapping[str, Any]) -> str:
    """The model, or whose probes met whose gallery."""
    gallery = result.get("gallery_model")
    return _label(result["model"]) if gallery is None else f"{_label(result['model'])} in {_label(gallery)}"


def _label(name: str) -> str:
    clean = shown(name)
    half = LONGEST_LABEL // 2
    return clean if len(clean) <= LONGEST_LABEL else f"{clean[: half - 2]}...{clean[-half:]}"


def _marks(measured: Measured) -> tuple[Mark, ...]:
    if measured.intervals is None:
        return tuple(Mark(point.fpr, point.tpr) for point in measured.points)
    pairs = zip(measured.points, measured.intervals, strict=True)
    return tuple(Mark(point.fpr, point.tpr, *(interval or (None, None))) for point, interval in pairs)


def _turned(mark: Mark) -> Mark:
    low = None if mark.high is None else 1 - mark.high
    return Mark(mark.x, 1 - mark.y, low, None if mark.low is None else 1 - mark.low)


def _lowest(line: Line) -> float:
    return min([float(line.y.min()), *(mark.y if mark.low is None else mark.low for mark in line.marks)])


def _refused(group: Group) -> float:
    return float(max(details.curve.fpr[0] for _, _, details in group.measured))


def _fpr_range(group: Group) -> tuple[float, float]:
    refused = [entry.fpr for _, measured, _ in group.measured for entry in measured.refused]
    least = float(min(details.curve.fpr[0] for _, _, details in group.measured))
    return min([least / 4, *(fpr / 1.5 for fpr in refused if fpr > least / 100)]), 1.0
