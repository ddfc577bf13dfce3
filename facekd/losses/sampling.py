"""A softmax over some of the classes: those of the batch, and others drawn anew in every step.

An et al., "Killing Two Birds with One Stone: Efficient and Robust Training of Face Recognition CNNs by Partial FC",
CVPR 2022, arXiv 2203.15565. A loss is given the rows of the sample for its classes, and the places of the labels in it.

What is lost: a sum over a sample is no estimate of the sum over all. The classes left out are missing from the
denominator, so the loss is lower, by up to ``ln(1 / rate)`` where no class stands out, and so is the push away from the
classes that are drawn. The classes of the batch are in every sample however few are drawn, so the other ones count less
beside them than in the whole softmax. Of the classes an image is most like, each is missing from ``1 - rate`` of the
steps. Nothing is weighed to make up for it, as nothing is in the paper; losses at two rates do not compare.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ClassSample(NamedTuple):
    """Some of the classes.

    Attributes:
        classes: Which, int64 ``(count,)``, ascending.
        labels: Place among them of each image's class, int64 ``(batch,)``; negative where an image has no label.

    Example:
        >>> drawn = sample_classes(torch.tensor([3, -1]), torch.tensor([0.9, 0.1, 0.5, 0.2]), 3)
        >>> drawn.classes.tolist(), drawn.labels.tolist()
        ([0, 2, 3], [2, -1])
    """

    classes: Tensor
    labels: Tensor


@torch.no_grad()
def sample_classes(labels: Tensor, scores: Tensor, count: int) -> ClassSample:
    """The classes of a batch, and of all others those of the highest scores.

    With scores that are independent and alike distributed, every other class is as likely to be drawn as any.

    Args:
        labels: Class of each image, integers ``(batch,)`` below the number of classes; a negative one is of no class.
        scores: A random number below infinity for each class, ``(classes,)``.
        count: Classes of the sample, those of the batch among them; where the batch has more, these alone.

    Returns:
        The sample; it does not hang on the order of the images.

    Raises:
        ValueError: If there are fewer classes than ``count``, or a label is beyond them.

    Example:
        >>> sample_classes(torch.tensor([1, 0]), torch.zeros(3), 1).classes.tolist()
        [0, 1]
    """
    known = labels[labels >= 0]
    if count > len(scores):
        raise ValueError(f"count is {count}, expected at most the {len(scores)} classes")
    if len(known) and int(known.max()) >= len(scores):
        raise ValueError(f"label {int(known.max())} is outside the {len(scores)} classes")
    ranked = scores.index_fill(0, known, torch.inf)
    drawn = ranked.topk(max(count, len(known.unique())), sorted=False).indices.sort().values
    return ClassSample(drawn, torch.where(labels >= 0, torch.searchsorted(drawn, labels), labels))
