"""What is drawn of measurements: lines with their intervals and the frame they stand in, whatever draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facekd.data.images import shown
from facekd.engine.evaluator import Evaluation
from facekd.engine.resolution_modes import describe_resolution
from facekd.metrics.measured import Details, Measured

LONGEST_LABEL = 60


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
        title: The set, and the resolution where images are brought down.
        evaluations: One a model.
    """

    title: str
    evaluations: tuple[Evaluation, ...]

    @property
    def labels(self) -> list[str]:
        """What the models are called, each name once."""
        names = [_label(evaluation.result["model"]) for evaluation in self.evaluations]
        return [f"{name} ({names[: at + 1].count(name)})" if names.count(name) > 1 else name
                for at, name in enumerate(names)]  # fmt: skip


def grouped(evaluations: Sequence[Evaluation]) -> list[Group]:
    """Evaluations by set and mode, both in the order they come.

    Args:
        evaluations: With details.
    """
    found: dict[tuple[str, str, str], list[Evaluation]] = {}
    for evaluation in evaluations:
        result = evaluation.result
        key = (result["set"], result["set_digest"], describe_resolution(result["resolution"]))
        found.setdefault(key, []).append(evaluation)
    return [
        Group(_label(name) if mode == "full" else f"{_label(name)}, {mode}", tuple(entries))
        for (name, _, mode), entries in found.items()
    ]


def details_of(measured: Measured) -> Details:
    """The details of a measurement.

    Raises:
        ValueError: None were kept.
    """
    if measured.details is None:
        raise ValueError("measured without details; ask for them in the settings")
    return measured.details


def roc(group: Group) -> tuple[Frame, list[Line]]:
    """TPR by FPR, the FPR on a logarithmic axis, with the interval of every operating point."""
    lines = []
    for label, evaluation in zip(group.labels, group.evaluations, strict=True):
        curve = details_of(evaluation.measured).curve
        lines.append(Line(label, curve.fpr, curve.tpr, _marks(evaluation.measured)))
    least = min(_lowest(line) for line in lines)
    bottom = max(0.0, 1 - 1.12 * max(1 - least, 0.01))
    top = 1 + 0.04 * (1 - bottom)
    frame = Frame("ROC", "FPR", "TPR", True, False, _fpr_range(group), (bottom, top), _refused(group))
    return frame, lines


def det(group: Group) -> tuple[Frame, list[Line]]:
    """The share of genuine pairs missed by FPR, both on logarithmic axes; where none is missed the line ends."""
    lines = []
    for line in roc(group)[1]:
        missed = np.where(line.y < 1, 1 - line.y, np.nan)
        marks = [_turned(mark) for mark in line.marks if mark.y < 1]
        lines.append(Line(line.label, line.x, missed, tuple(marks)))
    one = min(1 / evaluation.measured.genuine for evaluation in group.evaluations)
    drawn = [one, *(float(np.nanmax(line.y)) for line in lines if not np.isnan(line.y).all())]
    range_ = 0.7 * one, min(1.5 * max(drawn), 1.2)
    frame = Frame("DET", "FPR", "missed (1 - TPR)", True, True, _fpr_range(group), range_, _refused(group))
    return frame, lines


def _label(name: str) -> str:
    clean = shown(name)
    half = LONGEST_LABEL // 2
    return clean if len(clean) <= LONGEST_LABEL else f"{clean[: half - 2]}...{clean[-half:]}"


def _marks(measured: Measured) -> tuple[Mark, ...]:
    if measured.intervals is None:
        return tuple(Mark(point.fpr, point.tpr) for point in measured.points)
    pairs = zip(measured.points, measured.intervals, strict=True)
    return tuple(Mark(point.fpr, point.tpr, *interval) for point, interval in pairs)


def _turned(mark: Mark) -> Mark:
    low = None if mark.high is None else 1 - mark.high
    return Mark(mark.x, 1 - mark.y, low, None if mark.low is None else 1 - mark.low)


def _lowest(line: Line) -> float:
    return min([float(line.y.min()), *(mark.y if mark.low is None else mark.low for mark in line.marks)])


def _refused(group: Group) -> float:
    return max(details_of(evaluation.measured).curve.fpr[0] for evaluation in group.evaluations)


def _fpr_range(group: Group) -> tuple[float, float]:
    refused = [entry.fpr for evaluation in group.evaluations for entry in evaluation.measured.refused]
    least = min(details_of(evaluation.measured).curve.fpr[0] for evaluation in group.evaluations)
    return min([least / 4, *(fpr / 1.5 for fpr in refused if fpr > least / 100)]), 1.0
