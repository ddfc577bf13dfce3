"""What every loss does first: agree on sizes, widen the precision, normalise the rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def widen(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Bring tensors to one floating type of at least float32, so that bf16 and fp16 never carry a sum.

    Args:
        tensors: Floating-point tensors of any shape.

    Returns:
        The tensors in the widest of their types and float32; gradients flow back through the cast.

    Example:
        >>> a, b = widen(torch.ones(1, dtype=torch.float16), torch.ones(1, dtype=torch.bfloat16))
        >>> a.dtype, b.dtype
        (torch.float32, torch.float32)
    """
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)


def unit_rows(rows: Tensor) -> Tensor:
    """Divide every row by its Euclidean length, in float32 or wider.

    Args:
        rows: Raw embeddings or class weights, ``(rows, dim)``. A row of zeros stays zero and
            receives no gradient.

    Returns:
        Rows of length 1, ``(rows, dim)``.

    Example:
        >>> [round(x, 4) for x in unit_rows(torch.tensor([[3.0, 4.0]]))[0].tolist()]
        [0.6, 0.8]
    """
    (rows,) = widen(rows)
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(lengths == 0.0, math.inf, lengths)


def sine_of(cosine: Tensor) -> Tensor:
    """The sine of angles in [0, pi] from their cosines; value and gradient are 0 at 1 and -1 and beyond.

    Args:
        cosine: Of any shape; rounding may have put it a little outside [-1, 1].

    Returns:
        The sines, at least 0, shape of ``cosine``.

    Example:
        >>> [round(x, 4) for x in sine_of(torch.tensor([0.6, 1.0, -1.0000001])).tolist()]
        [0.8, 0.0, 0.0]
    """
    squared = (1.0 - cosine) * (1.0 + cosine)
    inside = squared > 0.0
    return torch.where(inside, torch.where(inside, squared, 1.0).sqrt(), 0.0)


def check_embeddings(name: str, embeddings: Tensor) -> None:
    """Refuse anything but a filled, two-dimensional, floating-point table.

    Args:
        name: What the table is, used in the message.
        embeddings: The table, to be ``(rows, dim)``.

    Raises:
        ValueError: If the table has another number of axes, is empty, or holds integers.

    Example:
        >>> check_embeddings("student", torch.zeros(4))
        Traceback (most recent call last):
        ValueError: student has shape (4,), expected (rows, dim)
    """
    shape = tuple(embeddings.shape)
    if embeddings.dim() != 2:
        raise ValueError(f"{name} has shape {shape}, expected (rows, dim)")
    if embeddings.numel() == 0:
        raise ValueError(f"{name} has shape {shape}, expected at least one row and one dimension")
    if not embeddings.is_floating_point():
        raise ValueError(f"{name} holds {embeddings.dtype}, expected floating-point embeddings")


def check_pair(student: Tensor, teacher: Tensor) -> None:
    """Refuse two tables that cannot be compared row by row.

    Args:
        student: Student embeddings, to be ``(batch, dim)``.
        teacher: Teacher embeddings, to be ``(batch, dim)``.

    Raises:
        ValueError: If the batches or the dimensions differ; the message names both sizes.

    Example:
        >>> check_pair(torch.zeros(4, 128), torch.zeros(4, 512))
        Traceback (most recent call last):
        ValueError: student has 128 dimensions, teacher 512; give the student a projector or the same embedding_size
    """
    check_embeddings("student", student)
    check_embeddings("teacher", teacher)
    if student.shape[0] != teacher.shape[0]:
        raise ValueError(f"student has {student.shape[0]} rows, teacher {teacher.shape[0]}; one row per image in both")
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"student has {student.shape[1]} dimensions, teacher {teacher.shape[1]}; "
            "give the student a projector or the same embedding_size"
        )


def check_log_variance(student: Tensor, log_variance: Tensor) -> None:
    """Refuse a variance that is neither one per element of the embeddings nor one per image.

    Args:
        student: The embeddings, to be ``(batch, dim)``.
        log_variance: To be ``(batch, dim)`` or ``(batch, 1)``.

    Raises:
        ValueError: If it has another shape; the message names both.

    Example:
        >>> check_log_variance(torch.zeros(4, 8), torch.zeros(4, 2))
        Traceback (most recent call last):
        ValueError: log_variance has shape (4, 2), student (4, 8); expected (4, 8) or (4, 1)
    """
    check_embeddings("student", student)
    check_embeddings("log_variance", log_variance)
    batch, dim = student.shape
    if tuple(log_variance.shape) not in {(batch, dim), (batch, 1)}:
        raise ValueError(
            f"log_variance has shape {tuple(log_variance.shape)}, student {(batch, dim)}; "
            f"expected {(batch, dim)} or {(batch, 1)}"
        )


def check_classifier(name: str, embeddings: Tensor, weights_name: str, class_weights: Tensor) -> None:
    """Refuse embeddings that do not live in the space of a classifier.

    Args:
        name: What the embeddings are, used in the message.
        embeddings: The embeddings, to be ``(batch, dim)``.
        weights_name: What the classifier is, used in the message.
        class_weights: The classifier, to be ``(classes, dim)``.

    Raises:
        ValueError: If the dimensions differ; the message names both.

    Example:
        >>> check_classifier("student", torch.zeros(4, 128), "class_weights", torch.zeros(9, 512))
        Traceback (most recent call last):
        ValueError: student has 128 dimensions, class_weights 512; give it a projector or the classifier's size
    """
    check_embeddings(name, embeddings)
    check_embeddings(weights_name, class_weights)
    if embeddings.shape[1] != class_weights.shape[1]:
        raise ValueError(
            f"{name} has {embeddings.shape[1]} dimensions, {weights_name} {class_weights.shape[1]}; "
            "give it a projector or the classifier's size"
        )


def on_the_machine(values: Tensor) -> bool:
    """Whether values can be looked at without waiting for an accelerator.

    Args:
        values: Of any shape.

    Example:
        >>> on_the_machine(torch.zeros(1)), on_the_machine(torch.zeros(1, device="meta"))
        (True, False)
    """
    return values.device.type == "cpu"


def check_positive(name: str, value: float) -> None:
    """Refuse a hyper-parameter that is not a finite number above 0.

    Args:
        name: The hyper-parameter's name, used in the message.
        value: Its value.

    Raises:
        ValueError: If the value is 0, negative, infinite or not a number.

    Example:
        >>> check_positive("scale", 0.0)
        Traceback (most recent call last):
        ValueError: scale is 0.0, expected a finite number greater than 0
    """
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}, expected a finite number greater than 0")
