"""Lists in Parquet files pass the checks of text lists and come out the same."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facekd.data.image_list import ImageList
from facekd.data.images import encode_png
from facekd.data.open_source import open_identities
from facekd.errors import InputError, UsageError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("ann/0.png", "ann/1.png", "bob/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode_png(np.full((8, 8, 3), len(name), np.uint8)))
    return tmp_path


def write(root: Path, **columns: Any) -> Path:
    table = pyarrow.table(columns)
    parquet.write_table(table, root / "list.parquet", row_group_size=max(2, len(table) // 2))
    return root / "list.parquet"


PATHS = ["bob/0.png", "ann/0.png", "ann/1.png"]


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
def test_the_same_list_gives_the_same_source(kind: str, root: Path) -> None:
    kinds = {
        "string": pyarrow.string(),
        "large_string": pyarrow.large_string(),
        "dictionary": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    }
    identities = pyarrow.array(["b", "a", "a"]).cast(kinds[kind])
    found = open_identities(write(root, age=[1, 2, 3], Path=PATHS, identity=identities))
    rows = "".join(f"{path},{identity}\n" for path, identity in zip(PATHS, ["b", "a", "a"], strict=True))
    (root / "list.csv").write_text("path,identity\n" + rows)
    text = ImageList(root / "list.csv")
    assert (found.names, found.labels.tolist(), found.digest) == (text.names, text.labels.tolist(), text.digest)
    assert found.encoded(0) == (root / "bob" / "0.png").read_bytes()


def test_numbers_are_identities_and_a_root_may_be_given(root: Path) -> None:
    (root / "lists").mkdir()
    path = write(root / "lists", path=PATHS, identity=[7, 10, 10])
    assert ImageList(path, root).names == ["10", "7"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": PATHS}, "list.parquet:0: the header 'path' lacks identity"),
        ({"age": [1, 2]}, "list.parquet:0: the header '' lacks path and identity"),
        ({"path": PATHS, "identity": [1.5, 2.0, 3.0]}, "list.parquet: column identity: holds double, not text"),
        ({"path": PATHS, "identity": ["a", None, "b"]}, "list.parquet:2: the identity is empty"),
        ({"path": [*PATHS[:2], "../x"], "identity": ["a", "a", "b"]}, "list.parquet:3: path '../x' leads upwards"),
        ({"path": [*PATHS[:2], PATHS[0]], "identity": ["a", "a", "b"]}, "list.parquet:3: 'bob/0.png' is listed on"),
        ({"path": ["x.png", *PATHS], "identity": ["a", "a", "b", "c"]}, "1 image is missing: line 1: "),
        ({"path": PATHS[:0], "identity": PATHS[:0]}, "list.parquet: column path: holds null, not text"),
        ({"path": ["a"] * 200_000, "identity": ["b"] * 200_000}, "200000 rows of "),
    ],
)
def test_bad_lists_are_refused_with_the_row(columns: dict[str, Any], message: str, root: Path) -> None:
    with pytest.raises(InputError) as caught:
        ImageList(write(root, **columns))
    assert message in str(caught.value)


def test_text_that_repeats_does_not_fill_the_memory(root: Path) -> None:
    count = 20_000
    identity = pyarrow.DictionaryArray.from_arrays([0] * count, ["x" * 50_000])
    path = write(root, path=[f"{k}.png" for k in range(count)], identity=identity)
    assert path.stat().st_size < 10**6
    with pytest.raises(InputError, match="20000 images are missing"):
        ImageList(path)
    assert pyarrow.default_memory_pool().max_memory() < 10**8  # 10**9, were the identities copied


def test_what_is_no_parquet_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(root, path=PATHS, identity=["a", "a", "b"])
    data = path.read_bytes()
    for damage in (b"path,identity\n", b""):
        path.write_bytes(damage)
        with pytest.raises(InputError, match="list.parquet: not a Parquet file .write it again, or give a .csv"):
            ImageList(path)
    for cut in range(4, len(data), 97):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError, match="list.parquet: damaged: "):
            ImageList(path)
    path.write_bytes(data)
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match="reading Parquet needs pyarrow .pip install 'facekd.parquet.'"):
        ImageList(path)
