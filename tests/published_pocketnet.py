"""PocketNet as its authors store it: the names and shapes of its tensors, and what it computes from them.

Written from the published names and genotype alone, without a look at our own modules: what reading is held against.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

NORMAL = (
    (("conv3", 0), ("conv1", 1)),
    (("conv3", 2), ("conv5", 0)),
    (("conv3", 3), ("conv3", 0)),
    (("conv3", 4), ("", 0)),
)
REDUCE = (("conv3", 1), ("conv7", 0)), (("", 2), ("conv5", 1)), (("pool", 0), ("", 2)), (("pool", 0), ("pool", 1))
STATISTICS = ("weight", "bias", "running_mean", "running_var")


def published(channels: int, cells: int, dim: int, seed: int | None = None) -> dict[str, Tensor]:
    """The tensors by their published names; without a seed they have shapes and no values."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in _shapes(channels, cells, dim):
        if generator is None:
            state[name] = torch.empty(shape, device="meta")
        elif name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        else:
            drawn = torch.rand(shape, generator=generator)
            state[name] = drawn + 0.5 if len(shape) == 1 else (drawn - 0.5) * (12 / drawn[0].numel()) ** 0.5
    return state


def forward(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Embeddings (batch, dim) of images (batch, 3, height, width), by the formula, from published names."""
    last = before = _normal(state, "stem.1", functional.conv2d(images, state["stem.0.weight"], stride=2, padding=1))
    cells = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("cells."))
    for number in range(cells):
        before, last = last, _cell(state, f"cells.{number}", number in _reducing(cells), before, last)
    x = _normal(state, "tail.2", functional.conv2d(_prelu(state, "tail.0", last), state["tail.1.weight"]))
    x = functional.conv2d(_prelu(state, "tail.3", x), state["tail.4.weight"], groups=x.shape[1])
    x = functional.conv2d(_normal(state, "tail.5", x), state["tail.6.weight"])
    return _normal(state, "tail.7", x).flatten(1)


def _reducing(cells: int) -> tuple[int, int, int]:
    return cells // 3, 2 * cells // 3, cells - 1


def _cell(state: dict[str, Tensor], name: str, reduces: bool, before: Tensor, last: Tensor) -> Tensor:
    if f"{name}.preproc0.conv11.weight" in state:
        x, halves = _prelu(state, f"{name}.preproc0.relu", before), []
        for shift in (0, 1):
            x_shifted, part = x[:, :, shift:, shift:], f"{name}.preproc0.conv{shift + 1}"
            half = functional.conv2d(x_shifted, state[f"{part}1.weight"], stride=2, groups=x.shape[1])
            halves.append(functional.conv2d(half, state[f"{part}2.weight"]))
        first = _normal(state, f"{name}.preproc0.bn", torch.cat(halves, 1))
    else:
        first = _separable(state, f"{name}.preproc0.net", before, 1)
    nodes = [first, _separable(state, f"{name}.preproc1.net", last, 1)]
    for row, edges in enumerate(REDUCE if reduces else NORMAL):
        summed = torch.zeros(())
        for place, (kind, node) in enumerate(edges):
            part, stride = f"{name}.dag.{row}.{place}", 2 if reduces and node < 2 else 1
            if kind == "pool":
                pooled = functional.max_pool2d(nodes[node], 3, stride, 1)
                summed = summed + _normal(state, f"{part}.bn", pooled)
            else:
                summed = summed + (_separable(state, f"{part}.net", nodes[node], stride) if kind else nodes[node])
        nodes.append(summed)
    return torch.cat(nodes[2:], 1)


def _separable(state: dict[str, Tensor], name: str, x: Tensor, stride: int) -> Tensor:
    depthwise = state[f"{name}.1.weight"]
    x = _prelu(state, f"{name}.0", x)
    x = functional.conv2d(x, depthwise, stride=stride, padding=depthwise.shape[-1] // 2, groups=x.shape[1])
    return _normal(state, f"{name}.3", functional.conv2d(x, state[f"{name}.2.weight"]))


def _prelu(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return functional.prelu(x, state[f"{name}.weight"])


def _normal(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight, bias, mean, variance = (state[f"{name}.{part}"] for part in STATISTICS)
    return functional.batch_norm(x, mean, variance, weight, bias)


def _shapes(channels: int, cells: int, dim: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    wide, reducing = 4 * channels, _reducing(cells)
    yield "stem.0.weight", (wide, 3, 3, 3)
    yield from _normal_shapes("stem.1", wide)
    before, last = wide, wide
    for number in range(cells):
        name, reduces = f"cells.{number}", number in reducing
        channels *= 2 if reduces else 1
        if number - 1 in reducing:
            yield f"{name}.preproc0.relu.weight", (before,)
            for half in (1, 2):
                yield f"{name}.preproc0.conv{half}1.weight", (before, 1, 1, 1)
                yield f"{name}.preproc0.conv{half}2.weight", (channels // 2, before, 1, 1)
            yield from _normal_shapes(f"{name}.preproc0.bn", channels)
        else:
            yield from _separable_shapes(f"{name}.preproc0.net", before, channels, 1)
        yield from _separable_shapes(f"{name}.preproc1.net", last, channels, 1)
        for row, edges in enumerate(REDUCE if reduces else NORMAL):
            for place, (kind, _) in enumerate(edges):
                if kind == "pool":
                    yield from _normal_shapes(f"{name}.dag.{row}.{place}.bn", channels)
                elif kind:
                    yield from _separable_shapes(f"{name}.dag.{row}.{place}.net", channels, channels, int(kind[4:]))
        before, last = last, 4 * channels
    yield "tail.0.weight", (last,)
    yield "tail.1.weight", (512, last, 1, 1)
    yield from _normal_shapes("tail.2", 512)
    yield "tail.3.weight", (512,)
    yield "tail.4.weight", (512, 1, 7, 7)
    yield from _normal_shapes("tail.5", 512)
    yield "tail.6.weight", (dim, 512, 1, 1)
    yield from _normal_shapes("tail.7", dim)


def _separable_shapes(name: str, before: int, after: int, size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.0.weight", (before,)
    yield f"{name}.1.weight", (before, 1, size, size)
    yield f"{name}.2.weight", (after, before, 1, 1)
    yield from _normal_shapes(f"{name}.3", after)


def _normal_shapes(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from ((f"{name}.{part}", (channels,)) for part in STATISTICS)
    yield f"{name}.num_batches_tracked", ()
