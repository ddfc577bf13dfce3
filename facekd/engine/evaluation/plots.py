"""Pictures of measurements as PNG or SVG files, and as SVG inside a page; the same figures give the same bytes."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facekd.engine.evaluation.curves import Frame, Group, Line, curves_of
from facekd.errors import UsageError
from facekd.files import write_atomic
from facekd.metrics.measured import Histogram, Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f6f00")
"""Okabe and Ito's colours, told apart with every kind of colour blindness; yellow darkened to be seen on white."""
DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.4)), (0, (6, 1.5, 1.4, 1.5)))
INK, MUTED, RULE = "#1f2a37", "#6b7480", "#d9dee4"
SUFFIXES = (".png", ".svg")
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.unicode_minus": False,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "facekd",
    "savefig.dpi": 150,
}
LEGEND_LETTERS = 110
MERGED = 2
"""Bins of a histogram drawn as one."""


def require_plot_suffix(path: Path) -> None:
    """Refuse a name that tells no picture format.

    Raises:
        UsageError: Neither ``.png`` nor ``.svg``.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(str(path), "names no picture format known here", f"end it in {' or '.join(SUFFIXES)}")


def write_plot(path: Path, groups: Sequence[Group]) -> None:
    """Draw every group as a row of ROC, DET and score histograms into one file, whole or not at all.

    Args:
        path: Ends in ``.png`` or ``.svg``.
        groups: From :func:`facekd.engine.evaluation.curves.grouped`, measured with details.

    Raises:
        UsageError: Another suffix, or nothing to draw.
        DeviceError: The disk refused.
    """
    require_plot_suffix(path)
    groups = [group for group in groups if curves_of(group)]
    if not groups:
        raise UsageError(str(path), "no result gives a curve to draw", "leave it out")
    most = max(len(group.evaluations) for group in groups)
    height = max(3.6, 0.9 + 0.95 * most)
    abreast = max(len(curves_of(group)) for group in groups)
    size = (13.5 + 4.3 * max(0, abreast - 2), height * len(groups))
    data = _rendered(lambda figure: _draw_groups(figure, groups), size, path.suffix.lower()[1:])
    write_atomic(path, lambda temporary: temporary.write_bytes(data))


def inline_svg(draw: Callable[[Figure], None], size: tuple[float, float]) -> str:
    """A picture as an ``<svg>`` element for a page, coloured by the page's custom properties.

    Lines take ``--series-0`` and so on, text ``currentColor``, rules ``--rule`` and faint text ``--muted``, so that one
    picture serves a light page and a dark one.

    Args:
        draw: Draws into an empty figure.
        size: Width and height in inches.
    """
    text = _rendered(draw, size, "svg", bare=True).decode()
    text = text[text.index("<svg ") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns:xlink="[^"]*"| xmlns="[^"]*"', "", text).replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", text)
    themes = {INK: "currentColor", RULE: "var(--rule)", MUTED: "var(--muted)"}
    themes |= {color: f"var(--series-{place})" for place, color in enumerate(PALETTE)}
    for color, variable in themes.items():
        text = text.replace(color, variable)
    return re.sub(r'(<svg [^>]*?)width="[^"]*pt" height="[^"]*pt"', r'\1role="img"', text, count=1)


def _rendered(draw: Callable[[Figure], None], size: tuple[float, float], form: str, *, bare: bool = False) -> bytes:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    nothing = {"Software": None} if form == "png" else {"Date": None, "Creator": None}
    stream = io.BytesIO()
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        figure.patch.set_visible(not bare)
        draw(figure)
        figure.savefig(stream, format=form, metadata=nothing)
    return stream.getvalue()


def _draw_groups(figure: Figure, groups: Sequence[Group]) -> None:
    rows = figure.subfigures(len(groups), 1, squeeze=False)[:, 0]
    for row, group in zip(rows, groups, strict=True):
        row.suptitle(group.title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        curves = curves_of(group)
        places = max(2, len(curves))
        left, right = row.subfigures(1, 2, width_ratios=(places, 1.15))
        for axes, (frame, lines) in zip(left.subplots(1, places, squeeze=False)[0], curves, strict=False):
            draw_lines(axes, frame, lines)
        for axes in left.axes[len(curves) :]:
            axes.set_axis_off()
        draw_legend(left, curves[0][1])
        if group.pairwise:
            draw_scores(right, group)


def draw_lines(axes: Axes, frame: Frame, lines: Sequence[Line]) -> None:
    """Draw lines into a frame: any curves that share one, ROC, DET, CMC or error against reject.

    Args:
        axes: Empty.
        frame: Its labels, scales, ends, and where nothing can be said.
        lines: What to draw, at most 28 that can be told apart.
    """
    axes.set(title=frame.title, xlabel=frame.x_label, ylabel=frame.y_label)
    if frame.x_log:
        axes.set_xscale("log")
        _label_decades(axes.xaxis)
    if frame.y_log:
        axes.set_yscale("log")
        _label_decades(axes.yaxis)
    axes.set(xlim=frame.x_range, ylim=frame.y_range)
    axes.grid(True, which="major")
    if frame.refused_below is not None and frame.refused_below > frame.x_range[0]:
        _shade(axes, frame.x_range[0], frame.refused_below)
    for place, line in enumerate(lines):
        color, dash = line_look(place)
        axes.plot(line.x, line.y, color=color, linestyle=dash, linewidth=1.6, zorder=3)
        for mark in line.marks:
            shift = 1.0 if mark.low is None else _apart(frame, place, len(lines))
            _draw_mark(axes, mark.x * shift, mark, color)


def _apart(frame: Frame, place: int, count: int) -> float:
    """A small shift along a logarithmic axis, so that the intervals of several models do not hide each other."""
    return float(1.07 ** (place - (count - 1) / 2)) if frame.x_log else 1.0


def _draw_mark(axes: Axes, x: float, mark: Any, color: str) -> None:
    if mark.low is not None:
        bottom = max(mark.low, axes.get_ylim()[0])
        axes.plot([x, x], [bottom, mark.high], color=color, linewidth=1.2, solid_capstyle="butt", zorder=4)
    axes.plot([x], [mark.y], marker="o", markersize=4, markeredgewidth=0.8, color=color, zorder=5)


def _shade(axes: Axes, start: float, end: float) -> None:
    axes.axvspan(start, end, facecolor="none", edgecolor=RULE, hatch="////", linewidth=0)
    axes.axvline(end, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    (left, _), (right, _) = axes.transAxes.inverted().transform(axes.transData.transform([(start, 0.5), (end, 0.5)]))
    axes.text((left + right) / 2, 0.03, "refused: too few impostors", rotation=90, ha="center", va="bottom",
              fontsize=7.5, color=MUTED, transform=axes.transAxes)  # fmt: skip


def draw_legend(figure: Any, lines: Sequence[Line]) -> None:
    """Name the lines in a row under the axes, where they hide nothing.

    Args:
        figure: Whose axes the lines are in.
        lines: As drawn.
    """
    from matplotlib.lines import Line2D

    looks = [line_look(place) for place in range(len(lines))]
    handles = [Line2D([], [], color=color, linestyle=dash, linewidth=1.8) for color, dash in looks]
    abreast = max(1, min(len(lines), LEGEND_LETTERS // (8 + max(len(line.label) for line in lines))))
    numbers = [str(place) for place in range(len(lines))]
    legend = figure.legend(handles, numbers, loc="outside lower left", frameon=False, ncols=abreast, fontsize=8.5,
                           handlelength=3.2)  # fmt: skip
    for text, line in zip(legend.get_texts(), lines, strict=True):
        text.set_text(line.label)


def draw_scores(figure: Any, group: Group) -> None:
    """Draw the scores of every model as a strip of its own, one under the other on the same axis.

    Genuine scores are filled in the model's colour, impostor scores in grey, each as shares of their kind; a line
    stands at every threshold.

    Args:
        figure: Empty.
        group: Measured with details.
    """
    strips = figure.subplots(len(group.evaluations), 1, sharex=True, squeeze=False)[:, 0]
    edges = [details.histogram.edges for _, _, details in group.measured]
    ends = min(float(each[0]) for each in edges), max(float(each[-1]) for each in edges)
    if ends == (-1.0, 1.0):
        ends = min(_first_score(details.histogram) for _, _, details in group.measured), 1.0
    strips[0].set(xlim=ends, title="Scores, and the threshold of each FPR")
    strips[-1].set_xlabel(group.score)
    for place, (axes, (_, measured, details)) in enumerate(zip(strips, group.measured, strict=True)):
        _draw_strip(axes, measured, details.histogram, line_look(place)[0])


def _draw_strip(axes: Axes, measured: Measured, histogram: Histogram, color: str) -> None:
    edges = histogram.edges[::MERGED]
    top = 0.0
    for counts, shade, name in ((histogram.impostor, MUTED, "impostor"), (histogram.genuine, color, "genuine")):
        shares = counts.reshape(-1, MERGED).sum(axis=1) / counts.sum()
        axes.stairs(shares, edges, fill=True, color=shade, alpha=0.45, linewidth=0)
        axes.stairs(shares, edges, color=shade, linewidth=1.1)
        left = name == "impostor"
        axes.text(0.005 if left else 0.995, 0.5, name, ha="left" if left else "right", va="center", fontsize=8,
                  color=shade, transform=axes.transAxes)  # fmt: skip
        top = max(top, float(shares.max()))
    axes.set(ylim=(0, 2.0 * top), yticks=[])
    axes.spines["left"].set_visible(False)
    for point in measured.points:
        axes.plot([point.threshold] * 2, [0, 1.25 * top], color=INK, linewidth=0.8, linestyle=(0, (2, 1.5)))
        axes.text(point.threshold, 1.3 * top, plain(point.fpr), ha="center", va="bottom", fontsize=7, rotation=90)


def _first_score(histogram: Histogram) -> float:
    filled = np.flatnonzero(histogram.genuine + histogram.impostor)
    return min(float(histogram.edges[filled[0]]) - 0.04, 0.0)


def line_look(place: int) -> tuple[str, Any]:
    """Colour and dashes of a model by its place among the others."""
    return PALETTE[place % len(PALETTE)], DASHES[place % len(DASHES)]


def plain(value: float) -> str:
    """A number of a logarithmic axis in few characters.

    Example:
        >>> plain(0.0001), plain(0.01), plain(1.0), plain(1.5e-5)
        ('1e-4', '0.01', '1', '1.5e-5')
    """
    text = f"{value:.0e}" if f"{value:.0e}" == f"{value:.1e}".replace(".0", "") else f"{value:.3g}"
    return f"{value:g}" if value >= 0.01 else text.replace("e-0", "e-")


def _label_decades(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_formatter(NullFormatter())
