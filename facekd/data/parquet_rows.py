"""The rows of a Parquet file as those of a CSV file, through pyarrow where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facekd.data.images import shown
from facekd.data.lists import MAX_LIST_BYTES
from facekd.data.stored_file import StoredFile
from facekd.errors import InputError, UsageError

_FIX = "write it again, or give a .csv"


def read_parquet_rows(path: Path, columns: tuple[str, ...]) -> list[tuple[int, list[str]]]:
    """Some columns of a Parquet file as (row number, fields), the names of those it has as row 0.

    Text that repeats is held once, so that memory stays in proportion to the file.

    Args:
        path: The file.
        columns: Names of columns of text or whole numbers; lower case, while those of the file need not be.

    Raises:
        InputError: No Parquet file, a damaged one, more than 1 GiB unpacked, more rows than bytes, or a column of
            another kind.
        UsageError: pyarrow is not installed.
    """
    name, file = shown(path), StoredFile(path)
    if file.read(0, 4) != b"PAR1":
        raise InputError(name, "not a Parquet file", _FIX)
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError(name, "reading Parquet needs pyarrow", "pip install 'facekd[parquet]'") from None
    try:
        with parquet.ParquetFile(path) as table:
            stated = table.metadata
            wanted = [found for found in table.schema_arrow.names if found.strip().lower() in columns]
            unpacked = sum(stated.row_group(k).total_byte_size for k in range(stated.num_row_groups))
        if unpacked > MAX_LIST_BYTES or stated.num_rows > unpacked:
            what = f"{stated.num_rows} rows of {unpacked} bytes unpacked are no list of images"
            raise InputError(name, what, f"at most {MAX_LIST_BYTES} bytes")
        if not wanted:
            return [(0, [])]
        with parquet.ParquetFile(path, read_dictionary=wanted) as table:
            read = table.read(columns=wanted)
        texts = [_texts(f"{name}: column {shown(column)}", read.column(column)) for column in wanted]
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        raise InputError(name, f"damaged: {shown(error, 100)}", _FIX) from None
    return [(0, wanted), *((row, list(fields)) for row, fields in enumerate(zip(*texts, strict=True), 1))]


def _texts(where: str, column: Any) -> list[str]:
    """The cells of a pyarrow column as text, empty where there is none."""
    import pyarrow

    kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
    if pyarrow.types.is_integer(kind):
        return ["" if value is None else str(value) for value in column.to_pylist()]
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        raise InputError(where, f"holds {kind}, not text", "write it as text")
    texts: list[str] = []
    for chunk in column.chunks:
        stored = chunk if pyarrow.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        values = stored.dictionary.to_pylist()
        texts += ["" if place is None else values[place] for place in stored.indices.to_pylist()]
    return texts
