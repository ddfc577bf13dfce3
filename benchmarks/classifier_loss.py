"""What the softmax over identities costs, forward and backward, beside the two bare products it cannot do without.

Prints one JSON object and, with ``--out FILE``, writes it there too. Embeddings lie about their own rows of a random
classifier. In every round all ways take turns on the same numbers, so that a busy machine slows all of them; a
``ratio`` is within a round. Memory is the most that PyTorch handed out at once above what was there before, exactly.

* ``two products``: ``e W^T`` and its result times ``W``, the floor with a frozen classifier; nothing else is computed.
* ``materialised``: the plain form, all logits held, the classifier frozen or trained.
* ``blocks``: ``margin_softmax`` of this package, the classifier frozen or trained.
* ``candidates``: the same among the nearest classes of a frozen classifier, found before the clock runs.
* ``attention kernel``: PyTorch's attention on the CPU with the unit rows as keys and values: the gradient of a softmax
  without a margin and with all rows at length 1, which is less than the others compute.
* ``pytorch-metric-learning``: its ``ArcFaceLoss``, which trains its own classifier; left out where it is not installed.

    python -m benchmarks.classifier_loss --out benchmarks/results/classifier_loss.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.all_pairs import precise, seconds
from benchmarks.record import hand_over, surroundings
from facekd.engine.allocations import peak_bytes
from facekd.losses import apply_margin, cosine_logits, margin_softmax
from facekd.losses.candidates import Neighbours

BATCH, DIM, SCALE, MARGIN = 128, 512, 64.0, 0.5
CLASSES = (10_000, 100_000)
CANDIDATES = (100, 1000)
FLOOR, PLAIN = "two products", ("materialised, frozen", "materialised, trained")

Way = Callable[[], object]


def inputs(classes: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings about 45 degrees from their own rows, rows of many lengths, and labels."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(classes, DIM, generator=draw)
    labels = torch.randint(classes, (BATCH,), generator=draw)
    return rows[labels] + torch.randn(BATCH, DIM, generator=draw), rows, labels


def materialised(student: Tensor, class_weights: Tensor, labels: Tensor) -> Tensor:
    """The plain form: every cosine, the margin written into its place, cross-entropy."""
    cosines = cosine_logits(student, class_weights)
    index = labels[:, None]
    target = apply_margin(cosines.gather(1, index), margin=MARGIN)
    return F.cross_entropy(SCALE * cosines.scatter(1, index, target), labels)


def attention_gradient(student: Tensor, unit: Tensor) -> Tensor:
    """The mean row under the softmax of all logits, by PyTorch's kernel."""
    query, keys = F.normalize(student)[None, None], unit[None, None]
    found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, keys, keys, 0.0, False, scale=SCALE)
    mean: Tensor = found[0]
    return mean


def metric_learning(classes: int, rows: Tensor, student: Tensor, labels: Tensor) -> Way | None:
    """The other library's loss with the same rows, where it is installed."""
    try:
        from pytorch_metric_learning.losses import ArcFaceLoss
    except ImportError:
        return None
    loss = ArcFaceLoss(classes, DIM, margin=28.6479, scale=SCALE)  # degrees: 0.5 radians
    with torch.no_grad():
        loss.W.copy_(rows.T)
    return lambda: _derived(loss(student.requires_grad_(), labels), student, loss.W)


def _derived(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


def drawn_neighbours(classes: int, count: int, seed: int) -> Neighbours:
    """As many candidates as asked for, drawn: which they are does not change what the loss costs."""
    draw = torch.Generator().manual_seed(seed)
    found = torch.randint(classes, (classes, count), generator=draw, dtype=torch.int32)
    return Neighbours(found, torch.zeros(classes))


def ways(classes: int, seed: int) -> dict[str, Way]:
    """Every way to compute the loss and its gradients."""
    student, rows, labels = inputs(classes, seed)
    unit, bare, given = F.normalize(rows), F.normalize(student), student.clone().requires_grad_()
    trained = rows.clone().requires_grad_()
    options = {"margin": MARGIN, "scale": SCALE}
    found: dict[str, Way] = {
        FLOOR: lambda: (bare @ unit.T) @ unit,
        PLAIN[0]: lambda: _derived(materialised(given, rows, labels), given),
        "blocks, frozen": lambda: _derived(margin_softmax(given, rows, labels, **options), given),
        "attention kernel, no margin": lambda: attention_gradient(student, unit),
    }
    for count in CANDIDATES:
        near = drawn_neighbours(classes, count, seed)
        found[f"{count:,} candidates, frozen"] = lambda near=near: _derived(  # type: ignore[misc]
            margin_softmax(given, rows, labels, near, **options), given
        )
    found[PLAIN[1]] = lambda: _derived(materialised(given, trained, labels), given, trained)
    found["blocks, trained"] = lambda: _derived(margin_softmax(given, trained, labels, **options), given, trained)
    other = metric_learning(classes, rows, student.clone(), labels)
    return found | ({} if other is None else {"pytorch-metric-learning, trained": other})


def measured(classes: int, repeats: int, seed: int) -> dict[str, Any]:
    """Times, ratios and memory at one number of classes."""
    taken: dict[str, list[float]] = {}
    chosen = ways(classes, seed)
    for turn in range(repeats + 1):
        for name in list(chosen)[:: 1 if turn % 2 else -1]:
            value = seconds(chosen[name], "cpu")
            if turn:  # the first round warms up
                taken.setdefault(name, []).append(value)
    taken = {name: taken[name] for name in chosen}
    ratios = {
        base: {name: precise([own / one for own, one in zip(taken[name], taken[base], strict=True)]) for name in taken}
        for base in (FLOOR, *PLAIN)
    }
    return {
        "classes": classes,
        "class_weights_mib": classes * DIM * 4 / 2**20,
        "seconds": {name: precise(values) for name, values in taken.items()},
        "ratio": ratios,
        "peak_mib": {name: round(peak_bytes(way) / 2**20, 1) for name, way in chosen.items()},
    }


def report(classes: tuple[int, ...], repeats: int, threads: int, seed: int) -> dict[str, Any]:
    """Everything measured and everything it depends on."""
    torch.set_num_threads(threads)
    try:
        other = {"pytorch-metric-learning": version("pytorch-metric-learning")}
    except PackageNotFoundError:
        other = {}
    return {
        "benchmark": "classifier_loss",
        "command": "python -m benchmarks.classifier_loss --out benchmarks/results/classifier_loss.json",
        "batch": BATCH,
        "dim": DIM,
        "scale": SCALE,
        "margin": MARGIN,
        "repeats": repeats,
        "threads": threads,
        "seeds": [seed],
        "device": "cpu",
        "sizes": [measured(size, repeats, seed) for size in classes],
        **surroundings("torch", *other),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=CLASSES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the JSON object here too")
    given = parser.parse_args()
    hand_over(report(tuple(given.classes), given.repeats, given.threads, given.seed), given.out)


if __name__ == "__main__":
    main()
