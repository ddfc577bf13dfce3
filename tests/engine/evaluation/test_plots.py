"""Pictures: valid files that hold every series, the same bytes for the same figures, and nothing that was refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from facekd.data.ijb_protocols import TemplateList, TemplateSearch
from facekd.data.images import decode
from facekd.engine.evaluation.curves import Frame, Group, Line, Mark, cmc, curves_of, det, grouped, roc, tpir
from facekd.engine.evaluation.evaluator import Evaluation
from facekd.engine.evaluation.figures import EvalSettings, figures, measure_all_pairs
from facekd.engine.evaluation.plots import draw_lines, draw_scores, inline_svg, plain, write_plot
from facekd.engine.evaluation.template_evaluation import TemplateEvaluation
from facekd.engine.evaluation.template_search import measure_search
from facekd.errors import UsageError
from facekd.metrics.measured import Measured

SETTINGS = EvalSettings(fprs=(0.1, 1e-2, 1e-4), bootstrap=20, details=True)
LABELS = np.repeat(np.arange(20), 4)


def measured(spread: float, seed: int = 0) -> Measured:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(20, 16))[LABELS] + spread * rng.normal(size=(80, 16))
    return measure_all_pairs(rows, rows, LABELS, SETTINGS)


def evaluation(model: str, spread: float = 0.9, name: str = "faces", **head: object) -> Evaluation:
    found = measured(spread)
    told = {"model": model, "model_digest": "d", "set": name, "set_digest": "s", "resolution": None, **head}
    return Evaluation({**told, **figures(found)}, found)


@pytest.fixture(scope="module")
def groups() -> list[Group]:
    lowered = {"resolution": {"probe": 14, "gallery": None}}
    entries = [evaluation("runs/teacher", 0.5), evaluation("runs/_$tudent<&>", 1.2)]
    return grouped([*entries, evaluation("runs/_$tudent<&>", 1.5, **lowered)])


def test_groups_hold_models_side_by_side_by_set_and_mode(groups: list[Group]) -> None:
    assert [group.title for group in groups] == ["faces", "faces, 14 px to full"]
    assert [group.labels for group in groups] == [["runs/teacher", "runs/_$tudent<&>"], ["runs/_$tudent<&>"]]
    twice = grouped([evaluation("a"), evaluation("a"), evaluation("x" * 200), evaluation("a", set_digest="other")])
    assert twice[0].labels[:2] == ["a (1)", "a (2)"] and len(twice[0].labels[2]) <= 61 and len(twice) == 2


def test_probes_in_the_gallery_of_another_model_name_both() -> None:
    alone, crossed = evaluation("a"), evaluation("a", gallery_model="b", gallery_model_digest="e")
    assert grouped([alone, crossed])[0].labels == ["a", "a in b"]


def test_lines_are_the_curves_and_the_marks_the_figures(groups: list[Group]) -> None:
    frame, lines = roc(groups[0])
    assert frame.refused_below == 3 / 3040 and frame.x_log and frame.x_range[0] < 1e-4
    for line, one, (_, _, details) in zip(lines, groups[0].evaluations, groups[0].measured, strict=True):
        curve, points = details.curve, one.result["tpr_at_fpr"]
        assert (line.x == curve.fpr).all() and (line.y == curve.tpr).all()
        assert [(m.x, m.y, [m.low, m.high]) for m in line.marks] == [(p["fpr"], p["tpr"], p["ci95"]) for p in points]
        assert all(frame.y_range[0] <= mark.low <= mark.high <= frame.y_range[1] for mark in line.marks)
    for line, turned in zip(lines, det(groups[0])[1], strict=True):
        caught = line.y == 1
        assert np.isnan(turned.y[caught]).all() and np.allclose(turned.y[~caught], 1 - line.y[~caught])
        missed = {mark.x: (mark.y, mark.low, mark.high) for mark in turned.marks}
        wanted = {m.x: (1 - m.y, 1 - m.high, 1 - m.low) for m in line.marks if m.y < 1}
        assert missed == wanted and any(wanted)


def test_without_intervals_or_details(groups: list[Group]) -> None:
    found = measured(0.9)
    bare = Evaluation(groups[0].evaluations[0].result, replace(found, intervals=None))
    assert {mark.low for line in roc(Group("g", (bare,)))[1] for mark in line.marks} == {None}
    with pytest.raises(ValueError, match="measured without details"):
        roc(Group("g", (Evaluation(bare.result, replace(found, details=None)),)))


def test_a_model_without_a_miss_can_be_drawn(tmp_path: Path) -> None:
    perfect = evaluation("perfect", 0.01)
    assert perfect.result["auc"] == 1.0
    assert np.isnan(det(grouped([perfect])[0])[1][0].y).all()
    write_plot(tmp_path / "p.png", grouped([perfect]))


@pytest.mark.parametrize("suffix", ["png", "SVG"])
def test_a_picture_is_valid_and_its_bytes_are_decided_by_the_figures(
    groups: list[Group], tmp_path: Path, suffix: str
) -> None:
    files = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    shown = groups[1:]
    for file in files:
        write_plot(file, shown)
    data = files[0].read_bytes()
    assert data == files[1].read_bytes() and [path.name for path in sorted(tmp_path.iterdir())] == [
        f.name for f in files
    ]
    write_plot(files[1], [replace(shown[0], title="another")])
    assert data != files[1].read_bytes()
    if suffix == "png":
        image = decode(data, "a.png")
        assert image.shape[1] > 1500 and len(np.unique(image.reshape(-1, 3), axis=0)) > 50
    else:
        words = "".join(ElementTree.fromstring(data).itertext())
        for text in ("faces, 14 px to full", "runs/_$tudent<&>", "ROC", "DET", "refused", "1e-3"):
            assert text in words
        assert b"<!--" not in data or b"date" not in data.lower()


def test_another_suffix_is_refused(groups: list[Group], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"end it in .png or .svg"):
        write_plot(tmp_path / "p.pdf", groups)
    assert list(tmp_path.iterdir()) == []


def paths(svg: str, color: str) -> list[int]:
    """Points of every path stroked in a colour."""
    found = re.findall(rf'<path d="([^"]*)"[^>]*style="[^"]*stroke: {re.escape(color)}', svg)
    return [len(re.findall("[ML]", path)) for path in found]


def test_any_lines_in_a_frame_can_be_drawn_into_a_page() -> None:
    """Such as identification by rank, and errors as unsure pairs are turned away."""
    frame = Frame("CMC", "rank", "found", True, False, (1, 20), (0, 1.02))
    ranks = np.arange(1, 21)
    lines = [
        Line("a", ranks, np.linspace(0.5, 1, 20), (Mark(5, 0.6, 0.5, 0.7),)),
        Line("b", ranks, np.sqrt(ranks / 20)),
    ]

    def draw(figure: Figure) -> None:
        draw_lines(figure.subplots(), frame, lines)

    svg = inline_svg(draw, (4, 3))
    assert svg.startswith("<svg ") and svg.rstrip().endswith("</svg>") and svg == inline_svg(draw, (4, 3))
    assert (
        "http" not in svg
        and "#ffffff" not in svg
        and "#0072b2" not in svg
        and "currentColor" in svg
        and "CMC" in svg
        and "rank" in svg
    )
    assert sorted(paths(svg, "var(--series-0)"))[-2:] == [2, 20] and 20 in paths(svg, "var(--series-1)")
    ids = re.findall(r' id="([^"]+)"', svg)
    assert all(f"#{name}" in svg for name in ids)
    ElementTree.fromstring(svg)


def searched(model: str, spread: float, galleries: int = 2) -> TemplateEvaluation:
    """A model on the 1:N protocol: 15 of 20 people enrolled in galleries, 60 probes."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(20, 16))[LABELS] + spread * rng.normal(size=(80, 16))
    templates = torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True)).float()
    enrolled = np.array_split(np.arange(0, 60, 4), galleries)
    lists = tuple(TemplateList(f"G{at + 1}", part, LABELS[part]) for at, part in enumerate(enrolled))
    probes = np.flatnonzero(np.arange(80) % 4)
    search = TemplateSearch(lists, TemplateList("probes", probes, LABELS[probes]))
    head = {"model": model, "model_digest": "d", "set": "IJBC", "protocol": "ijb-1:n", "resolution": None}
    how = {"norm": "keep", "det": True, "flip": True, "failed_images": 3, "failed_templates": 1}
    found, drawn = measure_search(templates, search, EvalSettings((0.3, 1e-3), details=True), (1, 5, 10))
    return TemplateEvaluation({**head, **how, **found, "seconds": {"embed": 1.5, "score": 0.25}}, None, drawn, ())


def test_identification_is_drawn_by_rank_and_by_false_alarms(tmp_path: Path) -> None:
    entries = [searched("a", 0.5), searched("b", 1.4)]
    (group,) = grouped(entries)
    assert group.title == "IJBC, ijb-1:n, norm keep, det on, flip on" and group.searched and not group.pairwise
    assert [frame.title for frame, _ in curves_of(group)] == ["CMC", "Identification"]
    for line, one in zip(cmc(group)[1], entries, strict=True):
        assert line.x.tolist() == list(range(1, 11)) and one.search_details is not None
        assert line.y.tolist() == one.search_details.cmc.tolist() == sorted(line.y)
        assert {str(mark.x): mark.y for mark in line.marks} == one.result["rank"]
        assert [line.y[mark.x - 1] for mark in line.marks] == [mark.y for mark in line.marks]
    assert cmc(group)[0].x_log and len(set(cmc(group)[1][1].y)) > 5
    for line, one in zip(tpir(group)[1], entries, strict=True):
        points = [point for point in one.result["tpir_at_fpir"] if point["definition"] == "nist"]
        assert line.x.tolist() == [0.3] and line.y.tolist() == [point["tpir"] for point in points]
    write_plot(tmp_path / "p.svg", [group])
    text = (tmp_path / "p.svg").read_text()
    assert "CMC" in text and "rank" in text and "Scores" not in text and "IJBC" in text
    with pytest.raises(ValueError, match="measured without details"):
        roc(group)


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    one = searched("a", 0.5)
    with pytest.raises(UsageError, match="no result gives a curve"):
        write_plot(tmp_path / "p.png", grouped([replace(one, search_details=None)]))
    with pytest.raises(ValueError, match="searched without details"):
        cmc(Group("g", (replace(one, search_details=None),)))


def test_scores_of_every_model_stand_under_each_other(groups: list[Group]) -> None:
    svg = inline_svg(lambda figure: draw_scores(figure, groups[0]), (4, 3))
    assert svg.count(">genuine<") == svg.count(">impostor<") == 2
    points = sum(len(one.measured.points) for one in groups[0].evaluations)
    assert svg.count(">0.1<") + svg.count(">0.01<") == points == 4


def test_numbers_of_an_axis() -> None:
    assert [plain(10.0**-power) for power in range(6)] == ["1", "0.1", "0.01", "1e-3", "1e-4", "1e-5"]
    assert plain(3e-4) == "3e-4" and plain(1.25e-5) == "1.25e-5"
