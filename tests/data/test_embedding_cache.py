"""A cache of embeddings is computed once, resumes, and notices damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facekd.data import embedding_cache
from facekd.data.embedding_cache import open_cache
from facekd.errors import CheckpointError

COUNT, DIM = 21, 4
SHAPE = (COUNT, 2, DIM)
TRUTH = np.random.default_rng(0).normal(size=(COUNT, 2, DIM)).astype(np.float32)


class Teacher:
    """Hands out rows of the truth; stops once, after ``stop_after`` calls."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.calls: list[int] = []
        self.stop_after = stop_after

    def __call__(self, start: int, stop: int) -> np.ndarray:
        if self.stop_after is not None and len(self.calls) == self.stop_after:
            raise KeyboardInterrupt
        self.calls.append(start)
        return TRUTH[start:stop]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_cache, "BLOCK", 4)


def test_open_cache__holds_what_the_teacher_gave_and_asks_once(tmp_path: Path) -> None:
    first, second = Teacher(), Teacher()
    assert np.array_equal(open_cache(tmp_path, "k", shape=SHAPE, embed=first), TRUTH)
    assert np.array_equal(open_cache(tmp_path, "k", shape=SHAPE, embed=second), TRUTH)
    assert first.calls == [0, 4, 8, 12, 16, 20] and second.calls == []


def test_open_cache__goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        open_cache(tmp_path, "k", shape=SHAPE, embed=Teacher(stop_after=3))
    rest = Teacher()
    assert np.array_equal(open_cache(tmp_path, "k", shape=SHAPE, embed=rest), TRUTH)
    assert rest.calls == [12, 16, 20]


def test_open_cache__what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        open_cache(tmp_path, "k", shape=SHAPE, embed=Teacher(stop_after=3))
    (tmp_path / "k" / "cache.json.tmp.77").write_text("{")
    open_cache(tmp_path, "k", shape=SHAPE, embed=Teacher())
    assert sorted(path.name for path in (tmp_path / "k").iterdir()) == ["cache.json", "embeddings.f32"]


def test_open_cache__a_block_that_was_half_written_is_computed_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        open_cache(tmp_path, "k", shape=SHAPE, embed=Teacher(stop_after=2))
    with open(tmp_path / "k" / "embeddings.f32", "ab") as stream:
        stream.write(b"torn")
    assert np.array_equal(open_cache(tmp_path, "k", shape=SHAPE, embed=Teacher()), TRUTH)


@pytest.mark.parametrize(("multiple", "starts"), [(2, [0, 4, 8, 12, 16, 20]), (3, [0, 6, 12, 18]), (7, [0, 7, 14])])
def test_open_cache__blocks_are_whole_batches(tmp_path: Path, multiple: int, starts: list[int]) -> None:
    teacher = Teacher()
    assert np.array_equal(open_cache(tmp_path, "k", shape=SHAPE, embed=teacher, multiple=multiple), TRUTH)
    assert teacher.calls == starts


def test_open_cache__one_flipped_bit_is_refused(tmp_path: Path) -> None:
    open_cache(tmp_path, "k", shape=SHAPE, embed=Teacher())
    path = tmp_path / "k" / "embeddings.f32"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="digest differs"):
        open_cache(tmp_path, "k", shape=SHAPE, embed=Teacher())


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "7", "[" * 100_000, '{"shape": [21, 2, 4]}', '{"shape": [21, 2, 4], "done": -1}']
    + ['{"shape": [21, 2, 4], "done": "x"}', '{"shape": [21, 2, 4], "done": 99}']
    + ['{"shape": [21, 2, 4], "done": 21, "sha256": 5}'],
)
def test_open_cache__a_rotten_record_is_refused(tmp_path: Path, text: str) -> None:
    open_cache(tmp_path, "k", shape=SHAPE, embed=Teacher())
    (tmp_path / "k" / "cache.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"cache.json: is not a cache record .remove "):
        open_cache(tmp_path, "k", shape=SHAPE, embed=Teacher())
    assert np.array_equal(open_cache(tmp_path, "k", shape=SHAPE, embed=Teacher(), renew=True), TRUTH)


def test_open_cache__another_size_under_the_same_key_is_refused(tmp_path: Path) -> None:
    open_cache(tmp_path, "k", shape=SHAPE, embed=Teacher())
    with pytest.raises(CheckpointError, match=r"holds \[21, 2, 4\], not \[22, 2, 4\]"):
        open_cache(tmp_path, "k", shape=(22, 2, DIM), embed=Teacher())
