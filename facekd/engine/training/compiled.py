"""The student compiled, where that can be done."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Network = Callable[[Tensor], Tensor | tuple[Tensor, Tensor]]
"""The student as a function, the module itself or its compiled form; with an assistant it gives both embeddings."""


def compiled(student: nn.Module, tell: Callable[[str], None]) -> Network:
    """The student by ``torch.compile``, which works at the first images and may fail there; then it is as it was.

    Args:
        student: The module, in training or not.
        tell: Given one line that says why it is not compiled, where it is not.

    Returns:
        Pixels to embeddings.

    Example:
        >>> told = list[str]()
        >>> network = compiled(nn.Identity(), told.append)
        >>> network(torch.ones(1)), told
        (tensor([1.]), [])
    """
    from torch._dynamo.exc import TorchDynamoException

    fast: Network | None = torch.compile(student)

    def network(pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        nonlocal fast
        if fast is not None:
            try:
                return fast(pixels)
            except TorchDynamoException as error:
                why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
                tell(f"warning: the student is not compiled, torch.compile says: {why[:200]}")
                fast = None
        found: Tensor | tuple[Tensor, Tensor] = student(pixels)
        return found

    return network
