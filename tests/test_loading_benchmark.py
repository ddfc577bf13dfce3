"""The benchmark of records runs at a small size, and its table shows what it measured."""

from __future__ import annotations

import json

import pytest

from benchmarks.data_loading import report
from benchmarks.sections import SECTIONS


@pytest.mark.slow
def test_data_loading__measures_and_shows_opening_and_reading() -> None:
    found = json.loads(json.dumps(report(count=400, repeats=2, images=50, seed=0)))
    assert found["benchmark"] == "data_loading" and found["images"] == 400
    assert set(found["opening"]) == {"with_index", "without_index"}
    for rates in found["reading"].values():
        assert rates["read"]["median"] > 0 and rates["decode"]["median"] > 0 and rates["ratio"]["median"] > 0
    title, command, table = SECTIONS["data_loading"]
    assert title and command == found["command"]
    shown = table(found)
    assert "Opening 400 images" in shown and all(f"| {name} |" in shown for name in found["reading"])
