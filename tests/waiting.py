"""What of a computation would wait for an accelerator, found without one.

A program waits where it asks a tensor for its values: to turn them into Python numbers or NumPy arrays, to bring them
to the memory of the machine, or to learn how many rows a condition picks.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ATEN = torch.ops.aten
ASKING = {
    ATEN._local_scalar_dense.default,
    ATEN.nonzero.default,
    ATEN.equal.default,
    ATEN.is_nonzero.default,
    ATEN.masked_select.default,
    ATEN._unique2.default,
    ATEN.unique_dim.default,
    ATEN.unique_consecutive.default,
}
INDEXING = {ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default, ATEN._index_put_impl_.default}
READING = ("tolist", "numpy", "cpu")


class _Watch(TorchDispatchMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        picks = function in INDEXING and any(index is not None and index.dtype == torch.bool for index in args[1])
        if picks or function in ASKING:
            self.found.append(_place(str(function)))
        return function(*args, **(kwargs or {}))


def _place(what: str) -> str:
    frames = [frame for frame in traceback.extract_stack() if "/facekd/" in frame.filename]
    return f"{what} by {frames[-1].name} of {frames[-1].filename.rsplit('/', 1)[1]}" if frames else what


@contextmanager
def waits(*on_the_machine: Tensor) -> Iterator[list[str]]:
    """Where the block would wait, in order.

    Args:
        on_the_machine: Tensors that no accelerator holds, from which may be read.
    """
    found: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in READING:
            read = getattr(Tensor, name)

            def told(tensor: Tensor, *args: Any, _read: Any = read, _name: str = name) -> Any:
                if not any(tensor is other for other in on_the_machine):
                    found.append(_place(_name))
                return _read(tensor, *args)

            patch.setattr(Tensor, name, told)
        with _Watch(found):
            yield found
