"""Joined processes on this machine, for tests."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path

import torch

from facekd.engine.training.distributed import World, joined

Work = Callable[[World, Path], None]
"""A function of a test module, run in each; it writes what it finds into the folder."""


def launcher_variables(rank: int, port: int, count: int = 2) -> dict[str, str]:
    """What a launcher puts into the environment of one of several processes."""
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    return place | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def threads() -> list[str]:
    """The names of this process's threads; none where the system does not list them."""
    return [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]


def _enter(work: Work, folder: Path, rank: int, port: int, count: int) -> None:
    os.environ.update(launcher_variables(rank, port, count))
    torch.set_num_threads(1)
    with joined() as world:
        work(world, folder)
    left = [name for name in threads() if "gloo" in name]
    assert not left, f"{left} outlive the group and abort the process when they need Python as it ends"


def in_several(work: Work, folder: Path, count: int = 2) -> list[int | None]:
    """The exit codes of processes that do the same work."""
    port, spawn = free_port(), multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_enter, args=(work, folder, rank, port, count)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=400)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]
