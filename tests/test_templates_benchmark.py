"""The benchmark of templates at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import templates
from facekd.data.ijb_protocols import read_pairs
from facekd.metrics.templates import template_pair_scores


def test_the_benchmark_measures_what_facekd_reads_and_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates.torch, "set_num_threads", lambda count: None)
    rows, subjects = templates.drawn_templates(0, 0.003)
    templates.write_pairs(tmp_path, subjects, 0, 0.003)
    pairs = read_pairs(templates.opened(tmp_path, len(rows)))
    assert pairs.subjects is not None and pairs.genuine.sum() == int(templates.GENUINE * 0.003)
    found = template_pair_scores(rows, pairs.left, pairs.right)
    assert (found - templates.bare_scores(rows, pairs)).abs().max() < 1e-6
    assert found[pairs.genuine].mean() > found[~pairs.genuine].mean() + 0.1
    templates.tell(tmp_path, 0, 0.003, repeats=1, replicates=5)
    told = json.loads(capsys.readouterr().out)
    assert told["pairs"] == len(pairs.left) and told["intervals"] and told["seconds"]["scoring"]["median"] >= 0
