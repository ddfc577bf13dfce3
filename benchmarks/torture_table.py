"""The tables of what runs and readers stand."""

from __future__ import annotations

from benchmarks.tables import Record, markdown_table


def torture(record: Record) -> str:
    """Trials of each kind and those that ended as the unbroken run did; files of each format and what came of them."""
    told = (
        f"At a scale of {record['scale']:g}, in {record['seconds'] / 60:.0f} minutes. Runs are broken, resumed and "
        "compared bit for bit with one that nobody broke; a damaged checkpoint is to be passed over for the one "
        "before it. Those with a planted defect must not all end alike."
    )
    runs = [(_name(row), f"{row['trials']:,}", f"{row['identical']:,}") for row in record["runs"]]
    files = [
        (row["reader"], f"{row['read']:,}", f"{row['refused']:,}", str(len(row["findings"]))) for row in record["files"]
    ]
    tables = (
        markdown_table(["run", "trials", "ended alike"], runs),
        markdown_table(["damaged files of", "read", "refused in a line", "findings"], files),
    )
    return "\n\n".join((told, *tables))


def _name(row: Record) -> str:
    name = f"{row['what']} (planted defect)" if row["control"] else row["what"]
    if row.get("unresumable"):
        name += f", {row['unresumable']} could not be gone on with"
    slowest = row.get("slowest_answer_seconds")
    return name if slowest is None else f"{name}, ended within {slowest:g} s"
