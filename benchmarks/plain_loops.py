"""The training loops people write, restated: what facekd's own is compared with.

Images are decoded, mirrored, turned to floats and normalised one by one; all logits of the softmax are held. A teacher
either embeds every batch, or was asked beforehand and its answers lie in one file for each image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from facekd.data.identities import IdentitySource

SCALE, MARGIN = 64.0, 0.5
Taught = Callable[[Tensor, Tensor], Tensor]
"""The teacher's embeddings for normalised pixels and what was loaded with them."""


class DecodedFaces(Dataset):
    """Normalised images, labels, and what a teacher said of each where that is kept.

    Args:
        source: The images.
        answers: Folder with ``INDEX.npy`` for each image; None where nothing is kept.
    """

    def __init__(self, source: IdentitySource, answers: Path | None = None) -> None:
        self.source, self.answers = source, answers

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        image = cv2.imdecode(np.frombuffer(self.source.encoded(index), np.uint8), cv2.IMREAD_COLOR)
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        if torch.rand(()) < 0.5:
            image = image[:, ::-1].copy()
        pixels = torch.from_numpy(image).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5)
        kept = torch.empty(0) if self.answers is None else torch.from_numpy(np.load(self.answers / f"{index}.npy"))
        return pixels, int(self.source.labels[index]), kept


class ArcFaceHead(nn.Module):
    """The margin softmax with every logit held (Deng et al., CVPR 2019).

    Args:
        classes: Rows of its matrix.
        width: Of the embedding.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, width) * 0.01)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        cosines = F.normalize(embeddings) @ F.normalize(self.weight).T
        one_hot = F.one_hot(labels, cosines.shape[1]).bool()
        angles = cosines.clamp(-1 + 1e-7, 1 - 1e-7).acos()
        easy = angles <= math.pi - MARGIN
        moved = torch.where(easy, (angles + MARGIN).cos(), cosines - MARGIN * math.sin(MARGIN))
        return F.cross_entropy(SCALE * torch.where(one_hot, moved, cosines), labels)


def plain_loop(
    student: nn.Module,
    head: nn.Module,
    source: IdentitySource,
    batch: int,
    *,
    taught: Taught | None,
    answers: Path | None,
) -> Callable[[], float]:
    """A loop of SGD; each call takes one step.

    Args:
        student: The network in training.
        head: Loss of embeddings and labels, trained with it.
        source: The images.
        batch: Images in a step.
        taught: Gives the teacher's embeddings, which the student's are drawn to; None for no teacher.
        answers: Folder of the teacher's kept answers.
    """
    parameters = [*student.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4)
    steps = _batches(DataLoader(DecodedFaces(source, answers), batch, shuffle=True, drop_last=True))

    def step() -> float:
        pixels, labels, kept = next(steps)
        embeddings = student(pixels)
        loss = head(embeddings, labels)
        if taught is not None:
            distance = F.normalize(embeddings) - F.normalize(taught(pixels, kept))
            loss = loss + distance.square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def _batches(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    while True:
        yield from loader
