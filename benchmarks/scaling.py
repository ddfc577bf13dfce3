"""A plan on paper: what a step costs on eight H200, for millions of identities.

Nothing of it was measured on an H200. What the accelerator can do is taken from its data sheet, and how much of that
facekd leaves to be used from what was measured on a CPU: the share of a matrix product that the softmax over identities
and the student reach, and the memory an image takes in a step. ``benchmarks/SCALING.md`` is generated from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.tables import Record, markdown_table
from benchmarks.training_speed import FLOOR

GPUS, BATCH, WIDTH = 8, 2048, 512
"""Devices, images of a step over all, numbers of an embedding."""
CLASSES = (2_000_000, 5_000_000, 10_000_000)
IMAGES = 42_500_000
"""Images of an epoch, about those of the largest public set."""
CANDIDATES, SAMPLE_RATE = 100, 0.1
STUDENT = "mobilefacenet 512-d at 112, activation prelu"


@dataclass(frozen=True)
class Sheet:
    """What a data sheet promises of one device.

    Attributes:
        memory: Bytes.
        bandwidth: Bytes a second, to and from its memory.
        link: Bytes a second to the other devices, one way.
        rates: Operations a second in products, by the numbers multiplied.
    """

    memory: float
    bandwidth: float
    link: float
    rates: Mapping[str, float]


H200 = Sheet(141e9, 4.8e12, 450e9, {"float32": 67e12, "TF32": 494e12, "bf16": 989e12})


@dataclass(frozen=True)
class Constants:
    """What was measured.

    Attributes:
        frozen: What the softmax over a classifier that does not move takes, in times of its two bare products.
        trained: The same where the classifier is trained.
        student: Share of the rate of a product that a student reaches.
        macs: Multiply-accumulates of its forward pass.
        parameters: Of the student.
        image_bytes: The most it holds at once for an image of a step, in float32.
        read: Images a second that one process reads out of records and decodes.
    """

    frozen: float
    trained: float
    student: float
    macs: float
    parameters: int
    image_bytes: float
    read: float


def constants(found: Mapping[str, Record]) -> Constants:
    """Out of the raw figures of the benchmarks.

    Raises:
        KeyError: A benchmark was not recorded.
    """
    size = found["classifier_loss"]["sizes"][-1]
    ratio, step = size["ratio"]["two products"], found["training_speed"]
    student = found["student_speed"]["students"][STUDENT]
    return Constants(
        frozen=ratio["blocks, frozen"]["median"],
        trained=ratio["blocks, trained"]["median"],
        student=student["share"]["median"],
        macs=student["macs"],
        parameters=student["parameters"],
        image_bytes=step["peak_mib"][FLOOR] * 2**20 / step["batch"],
        read=found["data_loading"]["reading"]["one process, wall clock"]["read"]["median"],
    )


def loss_seconds(classes: int, rate: float, times: float, share: float = 1.0) -> float:
    """The softmax over the classes of one device, for the images of all.

    Args:
        classes: In all.
        rate: Operations a second in a product.
        times: How much longer than its two products it takes.
        share: Of the classes that take part.

    Example:
        Two products of 2,048 images, 250,000 classes and 512 numbers are 1.05e12 operations.

        >>> round(loss_seconds(2_000_000, 1e12, 1.0), 3)
        1.049
    """
    return times * 2 * 2 * BATCH * (share * classes / GPUS) * WIDTH / rate


def student_seconds(known: Constants, sheet: Sheet) -> tuple[float, float]:
    """A student's share of a step's images: at its share of the bf16 rate, and by what it writes and reads once."""
    images = BATCH / GPUS
    return (
        6 * known.macs * images / (known.student * sheet.rates["bf16"]),
        2 * known.image_bytes / 2 * images / sheet.bandwidth,
    )


def exchanged_seconds(parameters: float, sheet: Sheet) -> float:
    """Embeddings gathered, sums and mean rows of every device gathered, and gradients of the student summed."""
    rows = BATCH * WIDTH * 4
    return (rows + GPUS * (rows + BATCH * 4) + 2 * 4 * parameters) / sheet.link


def page(found: Mapping[str, Record]) -> str:
    """The whole of ``SCALING.md``, as far as the figures it rests on were recorded."""
    head = ["# Millions of identities on eight H200", (__doc__ or "").split("\n\n", 1)[1].split(" ``")[0].strip()]
    try:
        known = constants(found)
    except KeyError as error:
        return "\n\n".join([*head, f"Not to be had yet: {error} was not recorded."]) + "\n"
    return "\n\n".join([*head, assumed(known), memory(known), times(known)]) + "\n"


def assumed(known: Constants) -> str:
    """What the plan rests on."""
    rates = ", ".join(f"{rate / 1e12:,.0f} in {name}" for name, rate in H200.rates.items())
    return (
        f"Of the data sheet: {H200.memory / 1e9:.0f} GB, {H200.bandwidth / 1e12:.1f} TB/s, {H200.link / 1e9:.0f} GB/s "
        f"one way between devices, and in products {rates} TFLOP/s. Measured: the softmax over a frozen classifier "
        f"takes {known.frozen:.2f} times its two products, over a trained one {known.trained:.2f} times; MobileFaceNet "
        f"({known.macs / 1e6:.0f} M multiply-accumulates) reaches {known.student:.2f} of the rate of a product and "
        f"holds {known.image_bytes / 2**20:.0f} MiB an image. Batch {BATCH:,} over {GPUS} devices, {WIDTH} numbers an "
        f"embedding, {IMAGES / 1e6:.1f} M images an epoch."
    )


def memory(known: Constants) -> str:
    """Gigabytes on each device."""
    rows = []
    for classes in CLASSES:
        held = classes * WIDTH * 4 / GPUS
        cells = [held, held / 2, classes * CANDIDATES * 4 + held * GPUS, 3 * held]
        rows.append([f"{classes:,}", *(f"{cell / 1e9:.1f}" for cell in cells)])
    head = ["identities", "frozen, float32", "frozen, bf16", f"frozen, {CANDIDATES} candidates", "trained"]
    images = BATCH / GPUS * known.image_bytes / 1e9
    told = (
        "Gigabytes of the classifier on each device. It is shared out; candidates need all rows and a table of "
        "neighbours on each; a trained one has its gradient and its momentum beside it. Logits are never held. The "
        f"student's {BATCH // GPUS} images take {images:.1f} GB in float32, about half in bf16."
    )
    return f"## Memory\n\n{told}\n\n{markdown_table(head, rows)}"


def times(known: Constants) -> str:
    """Milliseconds of a step, minutes of an epoch, and the images that must be read for it."""
    computed, moved = student_seconds(known, H200)
    exchange = exchanged_seconds(known.parameters, H200)
    rest = max(computed, moved) + exchange
    rows = []
    for classes in CLASSES:
        for kind, factor, share in (
            ("frozen", known.frozen, 1.0),
            ("trained", known.trained, 1.0),
            (f"trained, {SAMPLE_RATE:g} of the classes drawn", known.trained, SAMPLE_RATE),
        ):
            losses = [loss_seconds(classes, rate, factor, share) for rate in H200.rates.values()]
            minutes = [(one + rest) * IMAGES / BATCH / 60 for one in losses]
            cells = [*(f"{1e3 * one:.1f}" for one in losses), *(f"{one:.1f}" for one in minutes)]
            cells.append(f"{BATCH / (losses[-1] + rest) / 1e3:,.0f}")
            rows.append([f"{classes:,}", kind, *cells])
    head = ["identities", "classifier", *(f"loss in {name}, ms" for name in H200.rates)]
    head += [f"epoch in {name}, min" for name in H200.rates]
    head.append("thousand images a second in bf16")
    told = (
        f"The student takes {1e3 * computed:.1f} ms of a step by its products and {1e3 * moved:.1f} ms by what it must "
        f"write and read in bf16, of which the longer counts; the exchange {1e3 * exchange:.2f} ms. A cached teacher "
        "adds the rows that are looked up, nothing else. The loss is computed in float32 today, which PyTorch "
        "multiplies in TF32 where it is allowed to; the columns for TF32 and bf16 say what that would be worth. One "
        f"process reads {known.read:,.0f} images a second out of records, unchanged: above {GPUS} times that, or with "
        "heavier augmentation, reading needs more than one process for each device."
    )
    return f"## Time\n\n{told}\n\n{markdown_table(head, rows)}"
