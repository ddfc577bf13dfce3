"""What each process holds a part of, the classifier in training: saved whole by rank 0, taken up by any number.

Rank 0 asks for some rows at a time of what the others hold, and they answer until it is done. So it never holds all of
it, it may ask in any order, and whatever ends its work in between ends theirs too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from facekd.engine.training.distributed import World, exchange
from facekd.engine.training.objective import Objective
from facekd.losses import ClassShare
from facekd.models.safetensors_file import Blocks

ASKED_NUMBERS = 2**22
"""Most numbers that are asked for at once, 16 MiB in float32."""
DONE = -1

Ask = Callable[[int, int, int, int], Tensor]
"""Given a process, a table by its place and two rows, answers with those from the first to before the second."""


def answer(world: World, tables: Mapping[str, Tensor]) -> None:
    """Give rank 0 what it asks for, until it is done.

    Args:
        world: The processes.
        tables: What this one holds, ``(rows, dim)`` each; of the same names in all. Without any nothing is exchanged.

    Raises:
        LostProcess: Rank 0 is gone.
    """
    held = list(tables.values())
    asked = torch.empty(3, dtype=torch.int64)
    while held:
        exchange(dist.recv, asked, 0)
        table, start, end = asked.tolist()
        if table == DONE:
            return
        exchange(dist.send, held[table][start:end].detach().cpu().contiguous(), 0)


@contextmanager
def asking(world: World, tables: Mapping[str, Tensor]) -> Iterator[Ask]:
    """A block in which rank 0 may ask the others, all of which :func:`answer` meanwhile.

    Args:
        world: The processes.
        tables: What rank 0 holds.

    Raises:
        LostProcess: One of the others is gone.
    """
    try:
        yield partial(_asked, list(tables.values()))
    finally:
        for rank in range(1, world.size) if tables else ():
            exchange(dist.send, torch.tensor([DONE, 0, 0]), rank)


def _asked(tables: list[Tensor], rank: int, table: int, start: int, end: int) -> Tensor:
    held = tables[table]
    if rank == 0:
        return held[start:end].detach().cpu()
    exchange(dist.send, torch.tensor([table, start, end]), rank)
    rows = torch.empty(end - start, *held.shape[1:], dtype=held.dtype)
    exchange(dist.recv, rows, rank)
    return rows


def norm_of_all(world: World, own: Tensor) -> Tensor:
    """The Euclidean length, shape ``()``, of what all processes hold their own part of."""
    return torch.linalg.vector_norm(world.gather(torch.linalg.vector_norm(own)[None]))


def split_tables(objective: Objective, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What this process holds its own classes of, by its name in a checkpoint; nothing where it holds all of them."""
    if objective.split is None or objective.own is None:
        return {}
    held = objective.own.class_weights
    memory = optimizer.state.get(held, {})
    kept = {key: memory[key] for key in sorted(memory) if torch.is_tensor(memory[key])}
    state = {key: table for key, table in kept.items() if table.shape == held.shape}
    number = _number(objective, optimizer)
    return {f"objective.{objective.split}": held, **{f"optimizer.{number}.{key}": state[key] for key in state}}


def whole_tables(tables: Mapping[str, Tensor], share: ClassShare | None, ask: Ask) -> dict[str, Blocks]:
    """The same tables of all processes, to be asked for as they are written.

    Args:
        tables: What this process holds, which is rank 0.
        share: The classes it holds.
        ask: Asks the others.
    """
    if share is None or share.classes is None:
        return {}
    parts = [share._replace(rank=rank).of(share.classes) for rank in range(share.size)]
    shapes = {name: (share.classes, *held.shape[1:]) for name, held in tables.items()}
    return {
        name: Blocks(shapes[name], held.dtype, partial(_rows, ask, place, parts, held.shape[1]))
        for place, (name, held) in enumerate(tables.items())
    }


def _rows(ask: Ask, place: int, parts: list[slice], dim: int) -> Iterator[Tensor]:
    most = max(1, ASKED_NUMBERS // dim)
    for rank, part in enumerate(parts):
        count = part.stop - part.start
        for start in range(0, count, most):
            yield ask(rank, place, start, min(start + most, count))


def own_part(
    tensors: Mapping[str, Tensor], objective: Objective, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """The tensors of a checkpoint, cut to the classes this process holds.

    Args:
        tensors: As saved, of all classes.
        objective: Of this process.
        optimizer: Likewise.
    """
    share = objective.share
    if objective.split is None or share is None or share.classes is None:
        return dict(tensors)
    classes, starts = share.classes, f"optimizer.{_number(objective, optimizer)}."
    cut = {name for name in tensors if name == f"objective.{objective.split}" or name.startswith(starts)}
    part = share.of(classes)
    return {
        name: held[part].clone() if name in cut and held.dim() == 2 and len(held) == classes else held
        for name, held in tensors.items()
    }


def _number(objective: Objective, optimizer: torch.optim.Optimizer) -> int:
    """Which parameter of the optimizer the classifier in training is."""
    held = objective.own.class_weights if objective.own is not None else None
    listed = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return next(number for number, parameter in enumerate(listed) if parameter is held)
