"""Training by several processes: each runs the student on its share of a step's images, every one the whole loss.

The embeddings of all shares are gathered, and each process computes the objective of the joined batch. So a loss that
compares images with each other, a threshold or centre kept from step to step, and a head with BatchNorm see what they
see in one process, and change alike everywhere without being exchanged. The student's gradients are summed. Of the
classifier each process holds, and trains, some classes and no others, unless a loss asks for the logits of all.

Rank 0 writes while the others wait; embeddings of many images are made by all of them (``shares.py``). What one process
alone may meet (an undecodable image, a signal, a full disk) is agreed upon at places where every one of them passes,
and ends all of them with one message.

A student with BatchNorm in training mode normalises on a GPU by the statistics of all shares. On a CPU it does so by
those of its own share, and the running statistics are averaged: it does not train to the bits of one process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from facekd.errors import Elsewhere, FacekdError, LostProcess, UsageError
from facekd.losses import ClassShare

Made = TypeVar("Made")

PATIENCE = timedelta(days=1)  # to wait while rank 0 writes, or takes figures of many pairs; a death is met at once
LINGER = timedelta(seconds=20)  # the launcher ends everybody once one has ended: whoever speaks must be first
STRIDE = 0x9E3779B97F4A7C15  # between the seeds of two ranks


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them; by default there is this one only.

    Attributes:
        rank: Of this process, from 0.
        size: Processes in all.
        local: Rank among those of this machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes, and takes the figures."""
        return self.rank == 0

    def share_of(self, batch_size: int) -> int:
        """Images of a step each process takes.

        Raises:
            UsageError: They do not divide, or are fewer than 2.

        Example:
            >>> World(rank=1, size=4).share_of(32)
            8
        """
        share, rest = divmod(batch_size, self.size)
        if rest or share < 2:
            what = f"{batch_size} images cannot be shared out evenly among {self.size} processes, 2 or more to each"
            raise UsageError("train.batch_size", what, f"a multiple of {self.size}, or start fewer processes")
        return share

    def own_device(self, name: str) -> str:
        """The device of this process, where the user asked for ``name``.

        Raises:
            UsageError: All processes would share one.
        """
        if self.size == 1 or name == "cpu":
            return name
        if name not in ("auto", "cuda"):
            raise UsageError("--device", f"{name} for each of {self.size} processes", "write auto, cuda or cpu")
        if name == "auto" and not torch.cuda.is_available():
            return "cpu"
        return f"cuda:{self.local}"

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that ends for all as soon as it ended badly for one; it may exchange nothing itself.

        Raises:
            Elsewhere: Another process raised; the first of those that did raises its own error.
        """
        if self.size == 1:
            yield
            return
        problem: BaseException | None = None
        try:
            yield
        except LostProcess:
            raise
        except BaseException as error:
            problem = error
        met = 0 if problem is None or isinstance(problem, Elsewhere) else getattr(problem, "exit_code", 1)
        codes = self.gather(torch.tensor([met])).tolist()
        first = next((rank for rank, code in enumerate(codes) if code), None)
        if problem is not None and first == self.rank:
            raise problem
        if first is not None:
            raise Elsewhere(first, self.size, codes[first]) from problem

    @contextmanager
    def alike(self) -> Iterator[None]:
        """A block whose refusals every process meets alike: rank 0 tells them.

        Raises:
            Elsewhere: This is another rank.
        """
        try:
            yield
        except (Elsewhere, LostProcess):
            raise
        except FacekdError as error:
            if self.leads:
                raise
            raise Elsewhere(0, self.size, error.exit_code) from error

    def agreed(self, items: Iterator[Made]) -> Iterator[Made]:
        """The same items; trouble with the next one of any process is everybody's."""
        return items if self.size == 1 else self._agreed(items)

    def _agreed(self, items: Iterator[Made]) -> Iterator[Made]:
        while True:
            with self.together():
                item = next(items, None)
            if item is None:
                return
            yield item

    @contextmanager
    def own_draws(self, seed: int) -> Iterator[None]:
        """A block that draws random numbers for this process's images alone; all draw alike again after it.

        Args:
            seed: What PyTorch's generator was seeded with for the step.
        """
        if self.size > 1:
            torch.manual_seed((seed + (self.rank + 1) * STRIDE) % 2**63)
        yield
        if self.size > 1:
            torch.manual_seed(seed)

    def gather(self, share: Tensor) -> Tensor:
        """The rows of all processes in the order of their ranks; a gradient comes back to the own rows.

        Every process differentiates the whole loss, so the gradient of its rows is already complete.

        Args:
            share: Rows of this process, ``(count, ...)``; as many in every process.

        Returns:
            ``(size * count, ...)``.

        Example:
            >>> World().gather(torch.tensor([1, 2]))
            tensor([1, 2])
        """
        if self.size == 1:
            return share
        gathered: Tensor = _Gather.apply(share, self.rank, self.size)  # type: ignore[no-untyped-call]
        return gathered

    @property
    def class_share(self) -> ClassShare | None:
        """The classes of a classifier that this process sums over; None where it is alone."""
        return None if self.size == 1 else ClassShare(self.rank, self.size, self.gather)

    @torch.no_grad()
    def sum_gradients(self, student: nn.Module) -> None:
        """Give every process the gradient of the whole batch, and the mean of BatchNorm's running statistics."""
        if self.size == 1:
            return
        statistics = _statistics(student)
        for held in statistics:
            held.div_(self.size)
        tensors = [p.grad for p in student.parameters() if p.grad is not None] + statistics
        if not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        exchange(dist.all_reduce, flat)
        for tensor, summed in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(summed.view(tensor.shape))

    def same(self, held: Tensor) -> Tensor:
        """What rank 0 holds, in every process; of the same shape in all."""
        if self.size == 1:
            return held
        received = held.clone(memory_format=torch.contiguous_format)
        exchange(dist.broadcast, received, 0)
        return received

    def follow(self, *modules: nn.Module, besides: str | None = None) -> None:
        """Give every process rank 0's parameters and buffers, bit for bit, besides one of which each has its own."""
        if self.size == 1:
            return
        for held in (held for module in modules for name, held in module.state_dict().items() if name != besides):
            held.copy_(self.same(held))


ALONE = World()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, share: Tensor, rank: int, size: int) -> Tensor:
        context.rows = slice(rank * len(share), (rank + 1) * len(share))
        whole = share.new_empty((size * len(share), *share.shape[1:]))
        exchange(dist.all_gather_into_tensor, whole, share.contiguous())
        return whole

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0][context.rows], None, None


def exchange(operation: Callable[..., object], *arguments: object) -> None:
    """Do something of ``torch.distributed``; where another process is gone, that is a :class:`LostProcess`."""
    try:
        operation(*arguments)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        what = "lost another process of the run, in the middle of common work"
        fix = "see what that one or its launcher said, then go on with --resume"
        raise LostProcess(f"process {dist.get_rank()} of {dist.get_world_size()}", what, fix) from error


def _statistics(module: nn.Module) -> list[Tensor]:
    """Running statistics that this process alone is changing."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    own = [norm for norm in norms if not isinstance(norm, nn.SyncBatchNorm)]
    return [held for norm in own for held in (norm.running_mean, norm.running_var) if held is not None]


def _place() -> World:
    """This process's place, of which a launcher tells in the environment."""
    found = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")}
    bad = [name for name, text in found.items() if not text.isdecimal()]
    bad += [] if os.environ.get("MASTER_ADDR") else ["MASTER_ADDR"]
    if bad or int(found["RANK"]) >= int(found["WORLD_SIZE"]):
        what = f"{', '.join(bad) or 'RANK'} of the environment does not say which of {found['WORLD_SIZE']} this is"
        raise UsageError("several processes", what, "start them with torchrun, or unset WORLD_SIZE for one")
    return World(int(found["RANK"]), int(found["WORLD_SIZE"]), int(found["LOCAL_RANK"]))


@contextmanager
def joined() -> Iterator[World]:
    """The processes a launcher such as ``torchrun`` started, connected; one alone where none did.

    Yields:
        This process's place among them.

    Raises:
        UsageError: The launcher's variables are incomplete.

    Example:
        >>> with joined() as world:
        ...     world.size, world.leads
        (1, True)
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield ALONE
        return
    import torch._dynamo  # the optimizer imports it: later than the group is made, it would keep it alive to the end

    world = _place()
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield world
    except Elsewhere as error:
        with suppress(RuntimeError):
            _until_gone(error.rank)
        raise
    dist.destroy_process_group()


def _until_gone(rank: int) -> None:
    """Wait until the connection to a process breaks, for it is about to say why the run ends."""
    message = dist.irecv(torch.zeros(1), src=rank)
    if message is not None:
        message.wait(LINGER)
