"""What training through a classifier costs, as Markdown."""

from __future__ import annotations

from benchmarks.tables import Record, markdown_table


def classifier_loss(data: Record) -> str:
    """The softmax over identities beside the two bare products and the plain form."""
    parts = [
        f"Forward and backward at batch {data['batch']}, width {data['dim']}, {data['threads']} thread. "
        f"Median and middle half of {data['repeats']} rounds; ratios are within a round. Memory is the most held at "
        "once beside the classifier; where it is trained, its gradient is part of it. `attention kernel` computes the "
        "gradient of a softmax without a margin, on rows brought to length 1 beforehand; candidates "
        "are found beforehand too."
    ]
    for size in data["sizes"]:
        rows = [_row(size, name) for name in size["seconds"]]
        head = ["", "seconds", "times the two products", "times the plain form", "memory, MiB"]
        parts.append(f"{size['classes']:,} classes, a classifier of {size['class_weights_mib']:,.0f} MiB:")
        parts.append(markdown_table(head, rows))
    if "pytorch-metric-learning" not in data["versions"]:
        parts.append("pytorch-metric-learning was not installed and is left out.")
    return "\n\n".join(parts)


def _row(size: Record, name: str) -> list[str]:
    """One way; a trained classifier is compared with a trained one."""
    plain = "materialised, trained" if name.endswith("trained") else "materialised, frozen"
    ratios = size["ratio"]
    return [
        name,
        spread_cell(size["seconds"][name], 3),
        spread_cell(ratios["two products"][name], 2),
        spread_cell(ratios[plain][name], 2),
        f"{size['peak_mib'][name]:,.0f}",
    ]


def spread_cell(found: Record, digits: int) -> str:
    """Median and middle half."""
    low, high = found["iqr"]
    return f"{found['median']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
