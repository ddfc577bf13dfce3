"""How much memory a computation takes at once, by what PyTorch hands out and takes back: no matter of time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile

CPU = torch.device("cpu")


def peak_bytes(call: Callable[[], object], device: torch.device = CPU) -> int:
    """Most bytes held at any time of a call above what was held before it, of tensors on the CPU or a CUDA device.

    Args:
        call: What is measured; temporaries inside PyTorch's own operations count.
        device: Whose memory; that of the CPU is looked at for any but CUDA.

    Example:
        Of two tensors one after the other, one is held at a time; of two together, both.

        >>> peak_bytes(lambda: [float(torch.ones(1000).sum()) for _ in range(2)]) < 8000
        True
        >>> peak_bytes(lambda: (torch.ones(1000), torch.ones(1000))) >= 8000
        True
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with _silenced(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        kept = call()
    del kept
    held = peak = 0
    for event in seen.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


@contextmanager
def _silenced() -> Iterator[None]:
    """Without what the profiler itself writes on stderr, past Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
