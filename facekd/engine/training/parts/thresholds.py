"""The thresholds EKD ranks pairs by."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from facekd.engine.training.outputs import Sizes, StepOutputs
from facekd.losses.ranking import batch_pairs, thresholds_at
from facekd.recipe.loss_options import Ekd


class Thresholds(nn.Module):
    """The cosine thresholds EKD ranks pairs by: running means over steps, of the student's and the teacher's impostors.

    The impostor pairs of a step are those of its images with each other and with the images of earlier steps in the
    queue. A mean is divided by the weight it has gathered, so that it is right from its first step on; a rate that the
    pairs of a step are too few for waits, and counts nothing until it was met.

    Args:
        options: The recipe's EKD term.
        sizes: What the run is for.
    """

    sums: Tensor
    gathered: Tensor
    labels: Tensor
    student: Tensor
    teacher: Tensor

    def __init__(self, options: Ekd, sizes: Sizes) -> None:
        super().__init__()
        self.momentum = options.momentum
        batch = sizes.batch_size
        pairs = batch * (batch - 1) // 2 + batch * options.queue
        self.fprs = tuple(fpr for fpr in options.fprs if pairs * fpr >= 1)
        self.dropped = tuple(fpr for fpr in options.fprs if fpr not in self.fprs)
        self.notes = []
        if self.dropped:
            rates = ", ".join(f"{fpr:g}" for fpr in self.dropped)
            self.notes.append(f"ekd: {pairs:,} pairs a step are too few for FPR {rates}; left out")
        self.register_buffer("sums", torch.zeros(2, len(self.fprs)))
        self.register_buffer("gathered", torch.zeros(len(self.fprs)))
        self.register_buffer("labels", torch.full((options.queue,), -1))
        self.register_buffer("student", torch.zeros(options.queue, sizes.embedding_size))
        self.register_buffer("teacher", torch.zeros(options.queue, sizes.teacher_size))

    @torch.no_grad()
    def forward(self, outputs: StepOutputs, step: int) -> dict[str, Tensor]:
        """``student_thresholds`` and ``teacher_thresholds``, each ``(anchors,)``, after this step's labelled images."""
        student, teacher = (outputs.of_labelled(rows).float() for rows in (outputs.student, outputs.of_teacher))
        labels = outputs.of_labelled(outputs.labels)
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
