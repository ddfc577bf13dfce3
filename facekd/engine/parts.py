"""What a loss needs beside a step's embeddings and keeps from step to step: variances, thresholds, centres.

A part is called before the losses of a step with the images that have a label and those that have none, and answers
with fields of ``StepOutputs``. Its tensors are saved with the run, so a resumed run goes on as the unbroken one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from facekd.losses.adaptive import moved_centres
from facekd.losses.ranking import batch_pairs, thresholds_at
from facekd.models.heads import VarianceHead
from facekd.recipe.loss_options import AdaDistill, Ekd, Pad

RESIDUAL_MEMORY = 0.9  # share of the old value kept by the running mean squared residual
CENTRE_SPREAD = 0.01  # of the random centres before their first image, as published


class Variance(nn.Module):
    """The log variance that PAD weighs by: constant during warm-up, then the head's answer.

    One constant variance makes the term a rescaled L2, so its weight means the same before and after the switch, at
    which the head is set to the residual of each dimension that the warm-up measured.

    Args:
        options: The recipe's PAD term.
        embedding_size: Width of the embeddings.
        steps_per_epoch: To turn the warm-up into steps.
    """

    residual: Tensor

    def __init__(self, options: Pad, embedding_size: int, steps_per_epoch: int) -> None:
        super().__init__()
        self.head = VarianceHead(embedding_size, 1 if options.variance == "scalar" else embedding_size)
        self.start = round((options.start_epoch + options.warmup_epochs) * steps_per_epoch)
        self.detached = options.detach_variance
        self.register_buffer("residual", torch.zeros(embedding_size))

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, step: int) -> dict[str, Tensor]:
        """``log_variance`` of the teacher about the student, ``(batch, 1)`` or ``(batch, dim)``.

        Args:
            student: Raw student embeddings, ``(batch, dim)``.
            teacher: Raw teacher embeddings, ``(batch, dim)``.
            labels: Not looked at: images without a label have a variance too.
            step: 0-based step.
        """
        if step < self.start or step == 0:
            self._measure(student.detach(), teacher, first=step == 0)
        if step < self.start:
            return {"log_variance": self.residual.mean().log().expand(len(student), 1)}
        if step == self.start:
            self.head.initialise(self.residual)
        return {"log_variance": self.head(student.detach() if self.detached else student)}

    @torch.no_grad()
    def _measure(self, student: Tensor, teacher: Tensor, first: bool) -> None:
        apart = functional.normalize(teacher.float()) - functional.normalize(student.float())
        now = apart.square().mean(0)
        self.residual.copy_(now if first else self.residual * RESIDUAL_MEMORY + now * (1 - RESIDUAL_MEMORY))


class Thresholds(nn.Module):
    """The cosine thresholds EKD ranks pairs by: running means over steps, of the student's and the teacher's impostors.

    The impostor pairs of a step are those of its images with each other and with the images of earlier steps in the
    queue. A mean is divided by the weight it has gathered, so that it is right from its first step on; a rate that the
    pairs of a step are too few for waits, and counts nothing until it was met.

    Args:
        options: The recipe's EKD term.
        embedding_size: Width of the student's embedding.
        teacher_size: Width of the teacher's.
        batch_size: Images in a step.
    """

    sums: Tensor
    gathered: Tensor
    labels: Tensor
    student: Tensor
    teacher: Tensor

    def __init__(self, options: Ekd, embedding_size: int, teacher_size: int, batch_size: int) -> None:
        super().__init__()
        self.momentum = options.momentum
        pairs = batch_size * (batch_size - 1) // 2 + batch_size * options.queue
        self.fprs = tuple(fpr for fpr in options.fprs if pairs * fpr >= 1)
        self.dropped = tuple(fpr for fpr in options.fprs if fpr not in self.fprs)
        self.pairs = pairs
        self.register_buffer("sums", torch.zeros(2, len(self.fprs)))
        self.register_buffer("gathered", torch.zeros(len(self.fprs)))
        self.register_buffer("labels", torch.full((options.queue,), -1))
        self.register_buffer("student", torch.zeros(options.queue, embedding_size))
        self.register_buffer("teacher", torch.zeros(options.queue, teacher_size))

    @torch.no_grad()
    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, step: int) -> dict[str, Tensor]:
        """``student_thresholds`` and ``teacher_thresholds``, each ``(anchors,)``, after this step's images.

        Args:
            student: Raw student embeddings, ``(batch, dim)``.
            teacher: Raw teacher embeddings, ``(batch, teacher_dim)``.
            labels: Classes, ``(batch,)``; images without one are left out.
            step: 0-based step.
        """
        known = labels >= 0
        student, teacher, labels = student[known].float(), teacher[known].float(), labels[known]
        found = [
            thresholds_at(self._impostors(now, labels, held), self.fprs)
            for now, held in ((student, self.student), (teacher, self.teacher))
        ]
        self._remember(student, teacher, labels)
        met = torch.isfinite(found[0])
        share = 1.0 - self.momentum
        fresh = torch.stack(found).where(met, 0.0)
        self.sums.copy_(torch.where(met, self.momentum * self.sums + share * fresh, self.sums))
        self.gathered.copy_(torch.where(met, self.momentum * self.gathered + share, self.gathered))
        means = torch.where(self.gathered > 0, self.sums / self.gathered.clamp(min=share), torch.inf)
        return {"student_thresholds": means[0], "teacher_thresholds": means[1]}

    def _impostors(self, embeddings: Tensor, labels: Tensor, held: Tensor) -> Tensor:
        within, genuine = batch_pairs(embeddings, labels)
        filled = self.labels >= 0
        across = functional.normalize(embeddings) @ functional.normalize(held[filled]).T
        return torch.cat([within[~genuine], across[labels[:, None] != self.labels[filled]]])

    def _remember(self, student: Tensor, teacher: Tensor, labels: Tensor) -> None:
        for queue, new in ((self.labels, labels), (self.student, student), (self.teacher, teacher)):
            queue.copy_(torch.cat([queue, new])[len(new) :])


class Centres(nn.Module):
    """AdaDistill's class centres, moved by each step before its loss.

    Args:
        options: The recipe's AdaDistill term.
        classes: Identities in the training data.
        embedding_size: Width of the embeddings.
    """

    centres: Tensor

    def __init__(self, options: AdaDistill, classes: int, embedding_size: int) -> None:
        super().__init__()
        self.weighted = options.weighted
        self.register_buffer("centres", CENTRE_SPREAD * torch.randn(classes, embedding_size))

    @torch.no_grad()
    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, step: int) -> dict[str, Tensor]:
        """``centres``, ``(classes, dim)``, after this step's images; those without a label move none."""
        known = labels >= 0
        if known.any():
            moved = moved_centres(self.centres, student[known], teacher[known], labels[known], weighted=self.weighted)
            self.centres.copy_(moved)
        return {"centres": self.centres}
