"""Unfinished work whose records cannot be read is refused, never guessed at."""

from __future__ import annotations

from pathlib import Path

import pytest

from facekd.engine.resumable import partial_work
from facekd.errors import InputError

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "text", ["", "7", "[]", DEEP, "{}", '{"done": "x", "sizes": {}}', '{"done": -1, "sizes": {}}', '{"done": true}']
    + ['{"done": 1, "sizes": []}', '{"done": 1, "sizes": {"a": "b"}}', '{"done": 1, "sizes": {"a": -4}}'],
)  # fmt: skip
def test_a_rotten_state_is_refused(tmp_path: Path, text: str) -> None:
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    with partial_work(out, {"digest": "a"}):
        (partial / "state.json").write_text(text)
        partial.rename(tmp_path / "kept")
    (tmp_path / "kept").rename(partial)
    with (
        pytest.raises(InputError, match=r"state.json: .*.remove the folder to start anew"),
        partial_work(out, {"digest": "a"}),
    ):
        pass


@pytest.mark.parametrize("text", ["", "7", DEEP])
def test_a_rotten_job_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "job.json").write_text(text)
    with (
        pytest.raises(InputError, match=r"job.json: .*.remove the folder to start anew"),
        partial_work(tmp_path / "out", {}),
    ):
        pass
