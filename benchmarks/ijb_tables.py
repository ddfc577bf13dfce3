"""An IJB folder of real photographs measured in all modes, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.tables import WELL_FOUNDED, Record, fprs_of, markdown_table, short_fpr, star_note, tpr_cell, tpr_heads

HEAD = ("norm", "det", "flip")
OFF = ("figures off", "thresholds off", "seconds")


def ijb_real(data: Record) -> str:
    """Templates compared and searched for, and how far the figures are from the reference."""
    compared, searched = ([row for row in data["rows"] if row["protocol"] == name] for name in ("ijb-1:1", "ijb-1:n"))
    return "\n\n".join(
        [
            _told(data),
            f"Templates compared (1:1), {compared[0]['genuine']:,} genuine and {compared[0]['impostor']:,} impostor "
            f"pairs:\n\n{_verification(compared)}{star_note(compared)}",
            f"Templates searched for (1:N), {compared_with(searched[0])}:\n\n{_identification(searched)}",
            "Apart: galleries are searched one by one, and probes without a mate raise alarms. Merged: one gallery "
            f"of all, and any probe's scores with other people do.{_note(searched)}",
        ]
    )


def compared_with(row: Record) -> str:
    """How many probes are searched for in which galleries.

    Example:
        >>> compared_with({"probes": 1200, "gallery": {"G1": 40, "G2": 41}})
        '1,200 probes in galleries of 40 and 41'
    """
    return f"{row['probes']:,} probes in galleries of {' and '.join(f'{count:,}' for count in row['gallery'].values())}"


def _told(data: Record) -> str:
    folder, seconds = data["folder"], data["seconds"]
    low, middle, high = folder["detector_scores"]
    verified = "; ".join(f"{name}: {found['verified']['said']}" for name, found in data["evaluations"].items())
    faces = " and ".join(str(found["page"]["faces"]) for found in data["evaluations"].values())
    elsewhere = sum(found["page"]["loads_from_elsewhere"] for found in data["evaluations"].values())
    busy = data["busy"]
    told = [
        f"{folder['images']:,} photographs of {folder['people']:,} people laid loose again, seen by `{data['model']}`; "
        f"{folder['unseen_by_the_detector']} more in which YuNet found no face were left out. "
        f"{sum(folder['templates'].values()):,} templates of {folder['media']:,} media: "
        f"{folder['templates_of_several_media']:,} templates have several media, {folder['media_of_several_images']:,} "
        f"media several images; detector scores from {low:.2f} to {high:.2f}, half of them above {middle:.2f}.",
        "The reference aligns, embeds and measures the same files without facekd. The figures (AUC, EER, TPR, rank, "
        "TPIR) and the thresholds of each mode are off it by at most what their columns say.",
        f"Images are embedded once, in {seconds['ijb-1:1 embeds']:.0f} s (by the reference in "
        f"{seconds['reference embeds']:.0f} s), on {busy['cores']} cores whose load, of this and other work, was "
        f"{busy['load_of_15_minutes']:g}; every further mode and 1:N take them from the cache.",
        f"`--verify`, {verified}. Pages of `--report` show {faces} faces and load {elsewhere} things from elsewhere.",
    ]
    return " ".join(told)


def _verification(rows: Sequence[Record]) -> str:
    fprs = fprs_of(rows)
    cells = [
        [*_mode(row), f"{row['auc']:.7f}", f"{row['eer']['value']:.4f}"]
        + [tpr_cell([row], fpr) for fpr in fprs]
        + _off(row)
        for row in rows
    ]
    return markdown_table([*HEAD, "AUC", "EER", *tpr_heads(fprs), *OFF], cells)


def _identification(rows: Sequence[Record]) -> str:
    shown = sorted(
        {(point["definition"], point["fpir"]) for row in rows for point in row["tpir_at_fpir"]}, reverse=True
    )
    cells = [
        [*_mode(row), f"{row['rank']['1']:.4f}", f"{row['rank_merged']['1']:.4f}"]
        + [_tpir(row, definition, fpir) for definition, fpir in shown]
        + _off(row)
        for row in rows
    ]
    heads = [f"{'apart' if definition == 'nist' else 'merged'}, TPIR @ {short_fpr(fpir)}" for definition, fpir in shown]
    return markdown_table([*HEAD, "apart, rank 1", "merged, rank 1", *heads, *OFF], cells)


def _mode(row: Record) -> list[str]:
    return [row["norm"], *("on" if row[name] else "off" for name in ("det", "flip"))]


def _off(row: Record) -> list[str]:
    """The largest differences of figures and of thresholds, and the seconds of this mode."""
    limits = [value for name, value in row["differs_from_reference"].items() if name.startswith("threshold")]
    others = [value for name, value in row["differs_from_reference"].items() if not name.startswith("threshold")]
    return [f"{max(others):.1g}", f"{max(limits, default=0.0):.1g}", f"{row['seconds']:.2f}"]


def _tpir(row: Record, definition: str, fpir: float) -> str:
    for point in row["tpir_at_fpir"]:
        if (point["definition"], point["fpir"]) == (definition, fpir):
            return f"{point['tpir']:.4f}{_star(point)}"
    return "refused"


def _star(point: Record) -> str:
    return "\\*" if point["fpir"] < WELL_FOUNDED / point["nonmated"] else ""


def _note(rows: Sequence[Record]) -> str:
    weak = any(_star(point) for row in rows for point in row["tpir_at_fpir"])
    return f"\n\n\\* rests on fewer than {WELL_FOUNDED} false alarms: the threshold is uncertain." if weak else ""
