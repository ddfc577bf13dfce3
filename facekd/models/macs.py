"""The size of a network: parameters, and multiply-accumulates of one image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def count_parameters(module: nn.Module) -> int:
    """Number of values in parameters, frozen ones too; buffers (running statistics) are not counted.

    Example:
        >>> count_parameters(nn.Linear(3, 2))
        8
    """
    return sum(p.numel() for p in module.parameters())


def count_macs(module: nn.Module, input_size: int) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one image.

    What a fused kernel computes without such a layer (attention scores, pooling, activations) is not counted.

    Args:
        module: Maps float (batch, 3, input_size, input_size) to anything; left in the mode it was in.
        input_size: Side of the square input in pixels.

    Example:
        >>> count_macs(nn.Conv2d(3, 8, 3, padding=1), 10)   # 3*3*3 for each of 8*10*10 outputs
        21600
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += output.numel() * layer.in_channels // layer.groups * math.prod(layer.kernel_size)
        elif isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features

    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    training = {m: m.training for m in module.modules()}
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    try:
        module.eval()
        with torch.no_grad():
            module(torch.zeros(1, 3, input_size, input_size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
        for m, mode in training.items():
            m.training = mode
    return total
