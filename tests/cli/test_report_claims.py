"""No report claims what its comparisons cannot show: 500 of random small sets, as table, JSON and page.

An FPR below 3 / impostors is refused, and one below 30 / impostors is marked, wherever a figure of it is printed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from facekd_cli.eval_table import print_table
from facekd_cli.eval_templates import print_template_tables

from facekd.data.ijb_protocols import TemplateList, TemplateSearch
from facekd.engine.evaluation import report
from facekd.engine.evaluation.evaluator import Evaluation
from facekd.engine.evaluation.figures import EvalSettings, figures, measure_all_pairs
from facekd.engine.evaluation.report_faces import Faces
from facekd.engine.evaluation.template_search import measure_search
from facekd.engine.model_facts import ModelFacts

REPORTS = 500
RATES = (0.5, 0.3, 0.2, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01, 5e-3, 1e-3, 1e-4)
HEAD = {"model": "net", "model_digest": "d", "set": "small", "set_digest": "s", "resolution": None, "flip": True}
TOLD = report.Told([ModelFacts("net", "d")], [], ["facekd"], {"facekd": "0"}, {}, "today")


def verdict(rate: float, comparisons: int) -> str:
    """What a report must make of a rate."""
    return "refused" if rate < 3 / comparisons else "marked" if rate < 30 / comparisons else "plain"


def asked(rng: np.random.Generator) -> tuple[float, ...]:
    return tuple(rng.choice(RATES, int(rng.integers(1, 6)), replace=False).tolist())


def of_pairs(rng: np.random.Generator, fprs: tuple[float, ...]) -> Evaluation:
    people = int(rng.integers(2, 26))
    labels = np.repeat(np.arange(people), 2)
    rows = rng.normal(size=(people, 6))[labels] + rng.normal(size=(labels.size, 6))
    found = measure_all_pairs(rows, rows, labels, EvalSettings(fprs, bootstrap=0, details=True))
    result = {**HEAD, "protocol": "all-pairs", **figures(found), "seconds": {"embed": 1.0, "score": 1.0}}
    return Evaluation(json.loads(json.dumps(result)), found)


def told(cell: str) -> str:
    return "refused" if "refused" in cell else "marked" if "*" in cell else "plain"


def in_table(text: str, fprs: list[str]) -> dict[str, str]:
    """What the table says of each FPR: a column each, or lines below each other."""
    columns = re.findall(r"TPR @ (\S+)", text)
    if columns:
        row = next(line for line in text.splitlines() if line.lstrip().startswith("net "))
        return dict(zip(columns, map(told, re.findall(r"\d\.\d{5}\*?|refused", row)), strict=False))
    found = {fpr: re.search(rf"(?<![\w.]){re.escape(fpr)} +(\d\.\d{{5}}\*?|refused)", text) for fpr in fprs}
    return {fpr: told(match[1]) for fpr, match in found.items() if match}


def on_page(page: str) -> list[tuple[str, str]]:
    """Every FPR with a figure of it, or a refusal: the overview, the figures and the thresholds."""
    page = " ".join(page.split())
    cells = re.findall(r"<tr><th>TPR at FPR (\S+?)</th> ?<td[^>]*>(.*?)</td>", page)
    glance = r"<br>TPR at FPR (\S+?)</th></tr></thead>.*?<td class=\"number\">(<b>.*?)</td>"
    headline = re.search(glance, page)
    cells += [headline.groups()] if headline else []
    deployed = page.partition("Thresholds to deploy")[2].partition("</table>")[0]
    cells += re.findall(r"<tr><th>([\d.e-]+)</th><td>(.*?)</td></tr>", deployed)
    return [(fpr, told(re.sub(r'title="[^"]*"', "", cell))) for fpr, cell in cells]


@pytest.mark.slow
def test_no_report_of_500_breaks_the_rule(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    for name in ("_curve_svg", "_scores_svg"):
        monkeypatch.setattr(report, name, lambda *drawn: "")
    seen: Counter = Counter()
    for seed in range(REPORTS):
        rng = np.random.default_rng([7, seed])
        fprs = asked(rng)
        one = of_pairs(rng, fprs)
        result, short = one.result, {f"{fpr:g}".replace("e-0", "e-"): fpr for fpr in fprs}
        wanted = {name: verdict(fpr, result["impostor"]) for name, fpr in short.items()}
        points = {point["fpr"]: point["supported"] for point in result["tpr_at_fpr"]}
        refused = {entry["fpr"] for entry in result["refused"]}
        for name, fpr in short.items():
            said = "refused" if fpr in refused else "plain" if points[fpr] else "marked"
            assert said == wanted[name] and (fpr in refused) != (fpr in points)
            seen[said] += 1
        print_table([result], [], EvalSettings(fprs, bootstrap=0))
        text = capsys.readouterr().out
        shown = {name for name, what in wanted.items() if what != "refused"}
        found = in_table(text, list(short))
        assert shown <= found.keys() and all(wanted[name] == what for name, what in found.items()), text
        assert ("* rests on fewer than 30" in text) == ("marked" in wanted.values())
        assert text.count(" refused: it needs ") == len(refused)
        if seed % 5 == 0:
            cells = on_page(report.report_html([one], [Faces(str)], TOLD))
            assert {float(name) for name, _ in cells} == set(fprs)
            assert all(what == verdict(float(name), result["impostor"]) for name, what in cells), cells
            seen["cells"] += len(cells)
    assert min(seen[kind] for kind in ("refused", "marked", "plain", "cells")) > 200


def test_searches_are_marked_by_the_probes_of_the_smallest_gallery(capsys: pytest.CaptureFixture) -> None:
    """Two galleries whose probes without a mate are many together and few in one."""
    seen: Counter = Counter()
    for seed in range(60):
        rng = np.random.default_rng([8, seed])
        subjects = np.repeat(np.arange(30), 4)
        rows = rng.normal(size=(30, 6))[subjects] + 0.5 * rng.normal(size=(120, 6))
        templates = torch.nn.functional.normalize(torch.from_numpy(rows), dim=1).float()
        cut = int(rng.integers(3, 27))
        halves = [np.arange(0, 120, 4)[:cut], np.arange(0, 120, 4)[cut:]]
        lists = tuple(TemplateList(f"G{at}", half, subjects[half]) for at, half in enumerate(halves))
        probes = np.flatnonzero(np.arange(120) % 4)
        search = TemplateSearch(lists, TemplateList("probes", probes, subjects[probes]))
        found, _ = measure_search(templates, search, EvalSettings(asked(rng)), (1, 5))
        fewest = {"nist": min(90 - 3 * len(half) for half in halves), "merged": 90}
        text: dict[str, Any] = {}
        for point in found["tpir_at_fpir"]:
            what = verdict(point["fpir"], fewest[point["definition"]])
            assert what == ("plain" if point["supported"] else "marked")
            text[what] = True
            seen[what] += 1
        for entry in found["refused"]:
            assert verdict(entry["fpir"], fewest[entry["definition"]]) == "refused"
        failures = {"failed_images": 0, "failed_templates": 0}
        way = {"protocol": "ijb-1:n", "norm": "keep", "det": True}
        print_template_tables([{**HEAD, **way, **found, **failures}], [], [])
        out = capsys.readouterr().out
        assert ("* rests on fewer than 30 false alarms" in out) == ("marked" in text)
        starred = out.partition("* rests on")[0].count("*")
        assert starred == sum(not point["supported"] for point in found["tpir_at_fpir"])
    assert seen["marked"] > 30 and seen["plain"] > 5
