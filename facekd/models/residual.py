"""Two backbones as one model: a student, and an assistant that adds what the student lacks."""

from __future__ import annotations

from torch import Tensor, nn


class ResidualPair(nn.Module):
    """A student and an assistant that see the same image and whose raw embeddings are added.

    Residual knowledge distillation of Kong, Zhao, Tu et al., "Cross-Resolution Face Recognition via Prior-Aided Face
    Hallucination and Residual Knowledge Distillation", 2019, arXiv 1905.10777. Its released code gives the assistant a
    residual of each of four stages too; ours is at the embedding alone, where any two backbones can be paired.

    Args:
        student: Maps (batch, 3, height, width) to (batch, dim).
        assistant: Likewise, with the same dim.

    Example:
        >>> import torch
        >>> pair = ResidualPair(nn.Flatten(), nn.Flatten())
        >>> student, assistant = pair.train()(torch.ones(1, 1, 1, 2))
        >>> student.tolist(), assistant.tolist(), pair.eval()(torch.ones(1, 1, 1, 2)).tolist()
        ([[1.0, 1.0]], [[1.0, 1.0]], [[2.0, 2.0]])
    """

    def __init__(self, student: nn.Module, assistant: nn.Module) -> None:
        super().__init__()
        self.student = student
        self.assistant = assistant

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """In training both embeddings, for each has a target of its own; in evaluation their sum."""
        student, assistant = self.student(images), self.assistant(images)
        if self.training:
            return student, assistant
        whole: Tensor = student + assistant
        return whole
