"""Two backbones as one model: a student, and an assistant that adds what the student lacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Scaled(nn.Module):
    """A backbone whose embedding takes the length and the mean it needs, element by element.

    Many backbones end in a BatchNorm that fixes the spread of every element. That is no loss where angles count, but
    embeddings that are to be added must have lengths that can be learned.

    Args:
        backbone: Maps (batch, 3, height, width) to (batch, embedding_size).
        embedding_size: Width of the embedding.

    Example:
        >>> scaled = Scaled(nn.Flatten(), 2)
        >>> unit = scaled.unit.fill_(3.0)
        >>> scaled(torch.ones(1, 1, 1, 2)).tolist()
        [[3.0, 3.0]]
    """

    unit: Tensor

    def __init__(self, backbone: nn.Module, embedding_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.weight = nn.Parameter(torch.ones(embedding_size))
        self.bias = nn.Parameter(torch.zeros(embedding_size))
        self.register_buffer("unit", torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        """``unit * (weight * embedding + bias)``, (batch, embedding_size)."""
        scaled: Tensor = self.unit * (self.weight * self.backbone(images) + self.bias)
        return scaled


class ResidualPair(nn.Module):
    """A student and an assistant that see the same image and whose raw embeddings are added.

    Residual knowledge distillation of Kong, Zhao, Tu et al., "Cross-Resolution Face Recognition via Prior-Aided Face
    Hallucination and Residual Knowledge Distillation", 2019, arXiv 1905.10777. Its released code gives the assistant a
    residual of each of four stages too; ours is at the embedding alone, where any two backbones can be paired, and
    either embedding is :class:`Scaled`.

    Args:
        student: Maps (batch, 3, height, width) to (batch, embedding_size).
        assistant: Likewise.
        embedding_size: Width of the embedding.

    Example:
        >>> pair = ResidualPair(nn.Flatten(), nn.Flatten(), 2)
        >>> student, assistant = pair.train()(torch.ones(1, 1, 1, 2))
        >>> student.tolist(), assistant.tolist(), pair.eval()(torch.ones(1, 1, 1, 2)).tolist()
        ([[1.0, 1.0]], [[1.0, 1.0]], [[2.0, 2.0]])
    """

    def __init__(self, student: nn.Module, assistant: nn.Module, embedding_size: int) -> None:
        super().__init__()
        self.student = Scaled(student, embedding_size)
        self.assistant = Scaled(assistant, embedding_size)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """In training both embeddings, for each has a target of its own; in evaluation their sum."""
        student, assistant = self.student(images), self.assistant(images)
        if self.training:
            return student, assistant
        whole: Tensor = student + assistant
        return whole

    @torch.no_grad()
    def start_at(self, teacher: Tensor) -> None:
        """Take the root mean square element of some teacher embeddings (count, dim) for the unit of both lengths.

        Without it a student of spread 1 would first spend epochs on shrinking to a teacher of spread 0.1.

        Example:
            >>> pair = ResidualPair(nn.Flatten(), nn.Flatten(), 2)
            >>> pair.start_at(torch.tensor([[3.0, 4.0], [0.0, 5.0]]))
            >>> round(float(pair.student.unit), 4) == round(12.5**0.5, 4)
            True
        """
        unit = teacher.float().square().mean().sqrt()
        for part in (self.student, self.assistant):
            part.unit.copy_(unit)
