"""What stands on an embedding while training and is left behind at export."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facekd.errors import NonFiniteError

HEADS = ("linear", "mlp")
"""Forms of a variance head."""


class MarginClassifier(nn.Module):
    """One trainable class weight vector an identity; the margin itself is in the loss.

    Args:
        classes: Number of identities.
        embedding_size: Width of the embedding.
        part: The classes that are held; all, where it is None.

    The weights start from a normal distribution of spread 0.01, as the field does; losses normalise them at use. A part
    starts as it does in the whole: all rows are drawn, and of the others a block is held at a time.

    Example:
        >>> MarginClassifier(10, 4).class_weights.shape, MarginClassifier(10, 4, slice(5, 8)).class_weights.shape
        (torch.Size([10, 4]), torch.Size([3, 4]))
    """

    DRAWN_NUMBERS = 2**22  # at a time

    def __init__(self, classes: int, embedding_size: int, part: slice | None = None) -> None:
        super().__init__()
        part = slice(0, classes) if part is None else part
        self.class_weights = nn.Parameter(torch.empty(part.stop - part.start, embedding_size))
        size = 16 * max(1, self.DRAWN_NUMBERS // (16 * embedding_size))  # torch draws by sixteen: blocks do not show
        with torch.no_grad():
            for start in range(0, classes, size):
                block = torch.randn(min(size, classes - start), embedding_size) * 0.01
                kept = block[max(0, part.start - start) : max(0, part.stop - start)]
                place = max(0, start - part.start)
                self.class_weights[place : place + len(kept)] = kept


class FrozenClassifier(nn.Module):
    """A teacher's classifier, inherited and never updated: a buffer, so in no optimizer and never decayed.

    Args:
        class_weights: (classes, dim), kept in the type given; a copy is held.

    Raises:
        NonFiniteError: A row is not finite, or is all zeros and so has no direction.

    Example:
        >>> FrozenClassifier(torch.eye(3)).class_weights.requires_grad
        False
        >>> list(FrozenClassifier(torch.eye(3)).parameters())
        []
    """

    class_weights: Tensor

    def __init__(self, class_weights: Tensor) -> None:
        super().__init__()
        length = torch.linalg.vector_norm(class_weights.float(), dim=1)
        bad = torch.nonzero(~(torch.isfinite(length) & (length > 0))).flatten().tolist()
        if bad:
            raise NonFiniteError(
                "class weights",
                f"class {bad[0]} is zero or not finite ({len(bad)} such classes)",
                "gather the classifier again",
            )
        self.register_buffer("class_weights", class_weights.detach().clone())

    def keep(self, part: slice) -> None:
        """Hold some of the classes and no others; they are then part of no state, as each process has its own."""
        kept = self.class_weights[part].clone()
        del self.class_weights
        self.register_buffer("class_weights", kept, persistent=False)


def linear_projector(embedding_size: int, width: int) -> nn.Linear:
    """A linear map from one embedding width to another, without a bias, so that no direction is preferred.

    It starts with orthonormal columns (rows, where it narrows): a wider embedding has the angles of the one it came
    from.

    Args:
        embedding_size: Width read.
        width: Width written.

    Example:
        >>> weight = linear_projector(2, 4).weight
        >>> torch.allclose(weight.T @ weight, torch.eye(2), atol=1e-6)
        True
    """
    projector = nn.Linear(embedding_size, width, bias=False)
    nn.init.orthogonal_(projector.weight)
    return projector


class Projected(nn.Module):
    """A backbone with a linear projector on its embedding, as one network.

    Args:
        backbone: Gives ``(batch, dim)``.
        projector: Takes ``(batch, dim)``.
    """

    def __init__(self, backbone: nn.Module, projector: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.projector = backbone, projector

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.projector(self.backbone(x))
        return out


class VarianceHead(nn.Module):
    """Log of the variance of the teacher around the student, from the student's embedding.

    ``linear`` is the auxiliary head of PAD (Zhang et al., 2020, arXiv 2008.01458): Linear, then BatchNorm. ``mlp`` is
    the uncertainty module of PFE (Shi and Jain, "Probabilistic Face Embeddings", ICCV 2019, arXiv 1904.09658): Linear,
    BatchNorm, ReLU, Linear, BatchNorm, then one scale and one shift shared by all outputs; there it reads the last
    feature map. No linear layer has a bias, for the normalisation would remove it.

    Args:
        embedding_size: Width of the embedding read.
        outputs: Width written: that of the embedding, or 1 for one variance a sample.
        kind: ``linear`` or ``mlp``.

    Example:
        >>> VarianceHead(8)(torch.randn(4, 8)).shape, VarianceHead(8, outputs=1)(torch.randn(4, 8)).shape
        (torch.Size([4, 8]), torch.Size([4, 1]))
    """

    START_SPREAD = 0.1
    SHARED_SPREAD = 1e-4  # of the shared scale, as published
    SHARED_SHIFT = -7.0  # likewise
    FLOOR = 1e-6

    def __init__(self, embedding_size: int, outputs: int | None = None, kind: str = "linear") -> None:
        super().__init__()
        if kind not in HEADS:
            raise ValueError(f"kind is {kind!r}, expected one of {', '.join(HEADS)}")
        width = outputs or embedding_size
        self.embedding_size, self.outputs, self.kind = embedding_size, width, kind
        self.hidden: nn.Module | None = None
        self.scale: nn.Parameter | None = None
        self.shift: nn.Parameter | None = None
        if kind == "mlp":
            first = nn.Linear(embedding_size, embedding_size, bias=False)
            self.hidden = nn.Sequential(first, nn.BatchNorm1d(embedding_size), nn.ReLU())
            self.scale = nn.Parameter(torch.tensor(self.SHARED_SPREAD))
            self.shift = nn.Parameter(torch.tensor(self.SHARED_SHIFT))
        self.linear = nn.Linear(embedding_size, width, bias=False)
        self.bn = nn.BatchNorm1d(width, affine=kind == "linear")

    def forward(self, embedding: Tensor) -> Tensor:
        """(batch, dim) to log sigma squared, (batch, outputs)."""
        if self.hidden is not None:
            embedding = self.hidden(embedding)
        log_variance: Tensor = self.bn(self.linear(embedding))
        if self.scale is None or self.shift is None:
            return log_variance
        return self.scale * log_variance + self.shift

    @torch.no_grad()
    def initialise(self, mean_squared_residual: Tensor) -> None:
        """Start at the variance seen: bias ln(mean r^2), a spread of 0.1 around it, fresh running statistics.

        With one shift for all outputs that is set to the mean over dimensions, and the shared scale to the spread: from
        the published 1e-4 it takes a short run too long to grow.

        For unit vectors of 512 dimensions r^2 is about 1e-3, so a head left at its standard start would be e^6 wrong.

        Args:
            mean_squared_residual: (dim,) mean over samples of (teacher - student)^2; averaged when the head has one
                output. A dimension below 1e-6 of the mean of all is raised to that.

        Raises:
            NonFiniteError: The residuals are all zero, or one is not finite.
        """
        residual = mean_squared_residual.to(self.linear.weight)
        if self.outputs == 1 or self.shift is not None:
            residual = residual.mean().reshape(1)
        mean = residual.mean()
        if not torch.isfinite(residual).all() or mean <= 0:
            raise NonFiniteError(
                "variance head",
                "the mean squared residual is zero or not finite",
                "teacher and student must differ and be finite",
            )
        start = residual.clamp(min=float(mean) * self.FLOOR).log()
        if self.shift is not None and self.scale is not None:
            self.shift.copy_(start[0])
            self.scale.fill_(self.START_SPREAD)
        else:
            self.bn.bias.copy_(start)
            self.bn.weight.fill_(self.START_SPREAD)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm1d):
                layer.reset_running_stats()
