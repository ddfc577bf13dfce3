"""What evaluation costs, and how often its intervals are right, as Markdown."""

from __future__ import annotations

from benchmarks.tables import Record, markdown_table

KINDS = ("people", "pairs")


def all_pairs(data: Record) -> str:
    """Sweeping all pairs beside the bare products and scikit-learn."""
    ratios = data["ratio"]
    rows = [[name, _spread(data["seconds"][name]), _spread(ratios.get(name))] for name in data["seconds"]]
    size = (
        f"{data['images']:,} embeddings of {data['dim']} numbers, {data['pairs']:,} pairs, figures at FPR 1e-2 to 1e-6"
    )
    parts = [
        f"{size}. The whole product computes every pair twice, the half once. Median and middle half of "
        f"{data['repeats']} rounds:",
        markdown_table(["", "seconds", f"the {data.get('usual', 'sweep')} takes, times as long"], rows),
    ]
    small = data.get("small_list")
    if small:
        seconds, memory = small["seconds"], small["added_mib"]
        rows = [[way, _spread(seconds[way]), f"{memory[way]:,.0f}"] for way in seconds]
        told, differ = _spread(small["times_faster"]), f"{small['largest_difference_of_tpr']:g}"
        parts += [
            f"{small['images']:,} embeddings, each way in a process of its own; scikit-learn's `roc_curve` on the "
            f"scores of all pairs. Faster by a factor of {told}; the TPRs differ by {differ} at most:",
            markdown_table(["", "seconds", "added memory, MiB"], rows),
        ]
    if large := data.get("large_lists"):
        rows = [
            [
                f"{one['images']:,}",
                f"{one['pairs']:,}",
                f"{one['seconds']:.0f}",
                f"{one['added_mib']:,.0f}",
                f"{min(point['fpr'] for point in one['points']):g}",
            ]
            for one in large
        ]
        head = ["embeddings", "impostor pairs", "seconds", "added memory, MiB", "smallest FPR they show"]
        parts += ["Longer lists, at every FPR from 1e-2 to 1e-9 that they can show:", markdown_table(head, rows)]
    return "\n\n".join(parts)


def embedding_speed(data: Record) -> str:
    """Embedding images beside the bare passes of the model."""
    head = ["model", "images a second", "decoding, s", "bare passes, s", "embedding, s", "by the bare passes"]
    rows = [
        [
            row["model"],
            f"{row['images_per_second']:,.0f}",
            *(_spread(row["seconds"][way]) for way in ("decode", "bare passes", "embed")),
            _spread(row["ratio"]),
        ]
        for row in data["rows"]
    ]
    effects = [
        f"{row['model']}: cosines to its fp32 embeddings from {row['lowest_cosine_to_fp32']:.5f} up."
        for row in data["rows"]
        if "lowest_cosine_to_fp32" in row
    ]
    told = (
        f"{data['images']:,} images and their mirrors in batches of {data['batch']}, {data['cores']} cores, median and "
        f"middle half of {data['repeats']} rounds. {' '.join(effects)}"
    )
    return f"{told}\n\n{markdown_table(head, rows)}"


def lfw_models(data: Record) -> str:
    """Pretrained models on LFW, and how far the figures are from others'."""
    head = ["model", "set", "accuracy", "AUC", "EER", "TPR at 1e-2", "1e-3", "1e-4", "1e-5", "off scikit-learn"]
    rows = []
    for row in data["rows"]:
        found = row["figures"]
        accuracy = f"{found['accuracy']:.4f} +- {found['accuracy_std']:.4f}" if "accuracy" in found else "-"
        tprs = [found.get(f"tpr@{fpr}") for fpr in ("0.01", "0.001", "0.0001", "1e-05")]
        cells = [f"{found['auc']:.5f}", f"{found['eer']:.4f}", *("-" if tpr is None else f"{tpr:.5f}" for tpr in tprs)]
        worst = max(row["differs_from_scikit_learn"].values())
        rows.append([row["model"], f"`{row['set']}`", accuracy, *cells, f"{worst:.1g}"])
    stated = [row for row in data["rows"] if row["stated"]]
    count = sum(len(row["stated"]) for row in stated)
    apart = [
        f"{name} of {row['model']} on {row['set']} by {value:g}"
        for row in stated
        for name, value in row["differs_from_stated"].items()
    ]
    told = f"Of {count} figures that others computed, {count - len(apart)} are met to their last digit"
    return f"{told}{'; off are ' + ', '.join(apart) if apart else ''}.\n\n{markdown_table(head, rows)}"


def templates(data: Record) -> str:
    """A 1:1 protocol of the size of IJB-C."""
    size = f"{data['templates']:,} templates of {data['dim']} numbers, {data['pairs']:,} pairs"
    rows = [[name, _spread(found)] for name, found in data["seconds"].items()]
    memory = [[name, f"{found:,.0f}"] for name, found in data["added_mib"].items()]
    return "\n\n".join(
        [
            f"{size}, {data['replicates']:,} replicates. Scoring takes {_spread(data['ratio'])} times the floor: "
            "rows gathered and multiplied.",
            markdown_table(["", "seconds"], rows),
            "Memory above what the embeddings take, at most:",
            markdown_table(["up to", "MiB"], memory),
        ]
    )


def _spread(found: Record | None) -> str:
    return "-" if found is None else "{:.2f} ({:.2f} to {:.2f})".format(found["median"], *found["iqr"])


def interval_coverage(data: Record) -> str:
    """How often 95 % intervals hold the truth, by whom they resample, and how long those of a list take."""
    rows = []
    for row in data["rows"]:
        held = [f"{row['coverage'][kind]:.3f} +- {row['standard_error'][kind]:.3f}" for kind in KINDS]
        rows.append(
            [f"{row['people']:,}", f"{row['fpr']:.2g}", f"{row['false_accepts']:.0f}", f"{row['truth']:.4f}", *held]
        )
    told = (
        f"{data['rows'][0]['worlds']:,} worlds of each size, whose TPR is known in closed form; {data['replicates']} "
        "replicates behind each interval. The share of intervals that hold it:"
    )
    head = ["people", "FPR", "expected false accepts", "true TPR", *(f"resampling {kind}" for kind in KINDS)]
    listed, seconds = data["list"], data["list"]["seconds"]
    timed = (
        f"{listed['replicates']:,} replicates of {listed['pairs']:,} pairs of {listed['people']:,} people at "
        f"{len(listed['fprs'])} FPRs take {_spread(seconds)} s."
    )
    return "\n\n".join([told, markdown_table(head, rows), timed])


def figure_coverage(data: Record) -> str:
    """How often 95 % intervals of other figures than the TPR hold the truth."""
    people = sorted({row["people"] for row in data["rows"]})
    rows = []
    for name in dict.fromkeys(row["figure"] for row in data["rows"]):
        own = {row["people"]: row for row in data["rows"] if row["figure"] == name}
        held = [f"{own[size]['coverage']:.3f} +- {own[size]['standard_error']:.3f}" for size in people]
        rows.append([name, f"{own[people[0]]['truth']:.4f}", *held])
    told = (
        f"{data['rows'][0]['worlds']:,} worlds of each size whose truth is known, {data['replicates']} replicates "
        "behind each interval. The share of intervals that hold the truth:"
    )
    return f"{told}\n\n{markdown_table(['figure', 'truth', *(f'{size} people' for size in people)], rows)}"
