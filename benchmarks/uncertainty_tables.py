"""The tables of what a learned uncertainty is good for; what does not help is shown like what does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.tables import (
    Record,
    grouped,
    markdown_table,
    recipe_list,
    spread,
    star_note,
    tpr_cell,
    tpr_heads,
)

WAYS = {"pooled": "over all", "milder": "less the heaviest", "per_image": "within an image"}
SUBJECTS = {
    "perfect": "Faces as a perfect camera takes them, so that the level is all that was lost:",
    "drawn": "Faces as drawn cameras take them, which blur and lose pixels of their own that no level tells:",
}


def correlation_table(rows: Sequence[Record], camera: str, target: float) -> str:
    """Every method's rank correlations on the faces of a camera, the median over seeds, the best over all first."""

    def values(group: Sequence[Record], way: str, kind: str) -> list[float]:
        return [row["cameras"][camera][way][kind] for row in group]

    groups = grouped(rows, "method")
    kinds = list(rows[0]["cameras"][camera]["pooled"])
    order = sorted(groups, key=lambda name: -min(values(groups[name], "pooled", "both")))
    body = []
    for name in order:
        group = groups[name]
        reached = all(min(values(group, "pooled", kind)) >= target for kind in kinds)
        found = [row["cameras"][camera]["spread"] for row in group]
        cells = [spread(values(group, way, kind), 2) for way in WAYS for kind in kinds]
        body.append([name, *cells, "-" if found[0] is None else spread(found, 2), "yes" if reached else "no"])
    head = [f"{kind}, {told}" for told in WAYS.values() for kind in kinds]
    return markdown_table(["uncertainty", *head, "spread", f"all of {target:g} over all"], body)


def uncertainty(data: Record) -> str:
    """How far each method's uncertainty ranks faces by what they lost.

    Args:
        data: ``uncertainty.json``.
    """
    on, student, trained, first = data["measured_on"], data["student"], data["trained_on"], data["rows"][0]
    blurs, sides = (", ".join(f"{value:g}" for value in on[name]) for name in ("blurs", "sides"))
    told = (
        f"Rank correlation (Spearman) of uncertainty with how much was taken from {on['samples']} images each of "
        f"{on['people']} people never trained on: blur of sigma {blurs} of 112 pixels and {sides} pixels a side. Over "
        "all images at once, which is what one threshold for everybody needs; the same less the heaviest blur and the "
        "fewest pixels, because such figures hang on the levels taken; and as the mean within the series of one image, "
        "where nothing of the person is left to confuse it. Spread is the standard deviation of the log uncertainty."
    )
    equal = (
        f"The student is `{student['name']}` ({student['parameters']:,} parameters, {student['epochs']} epochs on "
        f"{student['identities']:,} people), frozen; every head is trained on {trained['identities']:,} people with "
        f"{trained['samples']} images each for {first['steps']:,} steps of `{data['recipe']}`, and differs from the "
        "others in its losses and what they need."
    )
    tables = [
        part
        for camera, text in SUBJECTS.items()
        for part in (text, correlation_table(data["rows"], camera, data["target"]["pooled"]))
    ]
    return "\n\n".join([told, *tables, equal, recipe_list(data["recipes"])])


Heads = Mapping[str, Sequence[Record]]
"""The rows of one set of images by method, a row for each seed."""


def correlations_table(heads: Heads) -> str:
    """How each order of the images goes with the blur that was laid on them, over all of them."""
    found = {name: [row["correlation"]["uncertainty"] for row in rows] for name, rows in heads.items()}
    found |= {name: [value] for name, value in _first(heads)["correlation"].items() if name != "uncertainty"}
    return markdown_table(["images ordered by", "correlation"], [[name, spread(v, 2)] for name, v in found.items()])


def curves_table(heads: Heads, figure: str, rejected: Sequence[float]) -> str:
    """A figure as more and more is turned away, by each method's uncertainty and by the orders that are no method's."""
    curves = {name: [row[figure]["uncertainty"] for row in rows] for name, rows in heads.items()}
    curves |= {name: [curve] for name, curve in _first(heads)[figure].items() if name != "uncertainty"}
    body = [[name, *(spread(values) for values in zip(*found, strict=True))] for name, found in curves.items()]
    return markdown_table(["turned away by", *(f"{share:.0%} away" for share in rejected)], body)


def groups_table(heads: Heads) -> str:
    """TPR and FPR at one threshold for pairs of high, mixed and low quality."""
    body = []
    for name, rows in heads.items():
        for place, found in enumerate(rows[0]["groups"]):
            own = [row["groups"][place] for row in rows]
            cells = [spread([one[key] for one in own], digits) for key, digits in (("tpr", 4), ("fpr", 5))]
            body.append([name, found["quality"], *cells])
    return markdown_table(["uncertainty of", "quality", "TPR", "FPR"], body)


def scores_table(heads: Heads) -> str:
    """TPR of two ways to compare images and of two ways to put templates together, each without and with variances."""
    images = [(name, [row["scores"] for row in rows]) for name, rows in heads.items()]
    templates = [(name, [row["templates"]["tpr_at_fpr"] for row in rows]) for name, rows in heads.items()]
    lines: list[tuple[str, list[Record]]] = []
    for what, found in (("images", images), (f"templates of {_first(heads)['templates']['images']}", templates)):
        plain, heeding = found[0][1][0]
        lines.append((f"{what}: {plain}", [{"tpr_at_fpr": found[0][1][0][plain]}]))
        for name, rows in found:
            lines.append((f"{what}: {heeding}, {name}", [{"tpr_at_fpr": row[heeding]} for row in rows]))
    shown = [row for _, rows in lines for row in rows]
    fprs = sorted({point["fpr"] for row in shown for point in row["tpr_at_fpr"]}, reverse=True)
    body = [[name, *(tpr_cell(rows, fpr) for fpr in fprs)] for name, rows in lines]
    return markdown_table(["compared", *tpr_heads(fprs)], body) + star_note(shown)


def _first(heads: Heads) -> Record:
    return next(iter(heads.values()))[0]


def set_tables(blurred: str, rows: Sequence[Record], data: Record) -> str:
    """All tables of one set of images."""
    heads, templates = grouped(rows, "method"), rows[0]["templates"]
    return "\n\n".join(
        [
            f"### {blurred} pixels",
            "Rank correlation with the sigma of the blur over all images:",
            correlations_table(heads),
            f"FNMR at the threshold of FPR {data['fpr']:g}, as the least sure pairs are turned away:",
            curves_table(heads, "fnmr", data["rejected"]),
            f"TPR at FPR {data['fpr']:g} as the least sure images are turned away, with a new threshold for the rest:",
            curves_table(heads, "kept_tpr", data["rejected"]),
            f"At the one threshold of FPR {data['fpr']:g} over all pairs: high quality is two images surer than the "
            "median, low is two that are not.",
            groups_table(heads),
            f"All pairs; and {templates['templates']:,} templates, {templates['genuine']:,} genuine and "
            f"{templates['impostor']:,} impostor pairs:",
            scores_table(heads),
        ]
    )


def uncertainty_real(data: Record) -> str:
    """What the uncertainty of a finished student is good for on blurred photographs.

    Args:
        data: ``uncertainty_real.json``.
    """
    first, student = data["rows"][0], data["student"]
    told = (
        f"{first['images']:,} photographs of people never trained on, blurred by a sigma drawn for each, in pixels "
        f"of a face of 112: {first['genuine']:,} genuine and {first['impostor']:,} impostor pairs. "
        f"The student is one of `{student['name']}` with {' and '.join(student['losses'])} "
        f"({student['parameters']:,} parameters), frozen; each head learned in "
        f"{first['steps']:,} steps of `{data['recipe']}`, median (smallest to largest) over seeds."
    )
    sets = [set_tables(blurred, rows, data) for blurred, rows in grouped(data["rows"], "blurred").items()]
    return "\n\n".join([told, *sets, recipe_list(data["recipes"])])
