"""What stands on an embedding while training and is left behind at export."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facekd.errors import NonFiniteError


class MarginClassifier(nn.Module):
    """One trainable class weight vector an identity; the margin itself is in the loss.

    Args:
        classes: Number of identities.
        embedding_size: Width of the embedding.

    The weights start from a normal distribution of spread 0.01, as the field does; losses normalise them at use.

    Example:
        >>> MarginClassifier(10, 4).class_weights.shape
        torch.Size([10, 4])
    """

    def __init__(self, classes: int, embedding_size: int) -> None:
        super().__init__()
        self.class_weights = nn.Parameter(torch.randn(classes, embedding_size) * 0.01)


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


class VarianceHead(nn.Module):
    """Log of the variance of the teacher around the student, from the student's embedding.

    The auxiliary head of PAD (Zhang et al., 2020, arXiv 2008.01458): Linear, then BatchNorm. The linear layer has no
    bias, for the normalisation would remove it.

    Args:
        embedding_size: Width of the embedding read.
        outputs: Width written: that of the embedding, or 1 for one variance a sample.

    Example:
        >>> VarianceHead(8)(torch.randn(4, 8)).shape, VarianceHead(8, outputs=1)(torch.randn(4, 8)).shape
        (torch.Size([4, 8]), torch.Size([4, 1]))
    """

    START_SPREAD = 0.1
    FLOOR = 1e-6

    def __init__(self, embedding_size: int, outputs: int | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(embedding_size, outputs or embedding_size, bias=False)
        self.bn = nn.BatchNorm1d(outputs or embedding_size)

    def forward(self, embedding: Tensor) -> Tensor:
        """(batch, dim) to log sigma squared, (batch, outputs)."""
        log_variance: Tensor = self.bn(self.linear(embedding))
        return log_variance

    @torch.no_grad()
    def initialise(self, mean_squared_residual: Tensor) -> None:
        """Start at the variance seen: bias ln(mean r^2), a spread of 0.1 around it, fresh running statistics.

        For unit vectors of 512 dimensions r^2 is about 1e-3, so a head left at its standard start would be e^6 wrong.

        Args:
            mean_squared_residual: (dim,) mean over samples of (teacher - student)^2; averaged when the head has one
                output. A dimension below 1e-6 of the mean of all is raised to that.

        Raises:
            NonFiniteError: The residuals are all zero, or one is not finite.
        """
        residual = mean_squared_residual.to(self.bn.bias)
        if self.bn.num_features == 1:
            residual = residual.mean().reshape(1)
        mean = residual.mean()
        if not torch.isfinite(residual).all() or mean <= 0:
            raise NonFiniteError(
                "variance head",
                "the mean squared residual is zero or not finite",
                "teacher and student must differ and be finite",
            )
        self.bn.bias.copy_(residual.clamp(min=float(mean) * self.FLOOR).log())
        self.bn.weight.fill_(self.START_SPREAD)
        self.bn.reset_running_stats()
