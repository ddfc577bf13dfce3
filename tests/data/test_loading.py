"""Batches are the same bits for any number of workers, and a bad image is named."""

from __future__ import annotations

import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch

from facekd.data.augment import AugmentSettings
from facekd.data.loading import NOBODY, RememberedImages, TrainingImages, step_data
from facekd.data.loading_workers import dead_workers_named
from facekd.data.samplers import StepBatches, shuffled
from facekd.errors import DataError, DeviceError

SETTINGS = AugmentSettings(flip=0.5, shift=0.1, scale=0.1, rotate=10, color=0.3, erase=0.3)
MIXED = AugmentSettings(flip=0.5, shift=0.1, color=0.3, mix=0.5)


class Noise:
    """An identity source of deterministic noise; image ``broken`` does not decode."""

    def __init__(self, broken: int | None = None) -> None:
        self.names = ["a", "b"]
        self.labels = np.arange(12) % 2
        self.digest = "noise"
        self.broken, self.reads = broken, 0

    def __len__(self) -> int:
        return 12

    def sample_name(self, index: int) -> str:
        return f"image {index}"

    def read(self, index: int) -> np.ndarray:
        self.reads += 1
        if index == self.broken:
            raise DataError(self.sample_name(index), "does not decode")
        return np.random.default_rng(index).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def _batches(source: Noise, workers: int, first: int = 0) -> list:
    dataset = TrainingImages(
        RememberedImages(source, source.read, (40, 40), shared=True), source.labels, SETTINGS, seed=7, size=(32, 32)
    )
    return list(step_data(dataset, StepBatches(shuffled(12, 4, 7), 3, 7, first, 6), workers, pin=False))


def test_step_data__same_bits_for_0_and_2_workers_and_for_a_later_start() -> None:
    plain, parallel, late = _batches(Noise(), 0), _batches(Noise(), 2), _batches(Noise(), 0, first=4)
    for one, other in zip(plain, parallel, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
        assert torch.equal(one.indices, other.indices) and torch.equal(one.views, other.views)
    for one, other in zip(plain[4:], late, strict=True):
        assert torch.equal(one.images, other.images)


def test_step_data__the_augmentation_changes_with_the_epoch() -> None:
    by_epoch = [
        {int(i): image for b in part for i, image in zip(b.indices, b.images, strict=True)}
        for part in (_batches(Noise(), 0)[:3], _batches(Noise(), 0)[3:])
    ]
    assert any(not torch.equal(by_epoch[0][i], by_epoch[1][i]) for i in by_epoch[0])


def test_versions__repeat_after_their_number_and_do_not_depend_on_the_seed() -> None:
    sets = [
        TrainingImages(
            RememberedImages(Noise(), Noise().read, (40, 40), shared=True),
            Noise().labels,
            MIXED,
            seed=seed,
            size=(40, 40),
            versions=3,
        )
        for seed in (0, 1)
    ]
    for index in range(12):
        first, again, other_seed = sets[0][(1, index)], sets[0][(4, index)], sets[1][(1, index)]
        assert np.array_equal(first[0], again[0]) and np.array_equal(first[0], other_seed[0])
        assert first[3] == again[3] == 1
        assert not np.array_equal(first[0], sets[0][(2, index)][0])


def test_mix__a_blend_has_no_label_and_the_share_is_the_asked_one() -> None:
    dataset = TrainingImages(
        RememberedImages(Noise(), Noise().read, (40, 40), shared=True), Noise().labels, MIXED, seed=0, size=(40, 40)
    )
    labels = [dataset[(epoch, index)][1] for epoch in range(50) for index in range(12)]
    assert {label for label in labels if label != NOBODY} == {0, 1}
    assert labels.count(NOBODY) / len(labels) == pytest.approx(0.5, abs=0.07)


def test_remembered_images__reads_each_image_once() -> None:
    source = Noise()
    _batches(source, 0)
    assert source.reads == 12


def test_item_126_shared_memory_is_asked_for_by_several_processes_alone_and_named_when_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(tensor: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    assert RememberedImages(Noise(), Noise().read, (40, 40), shared=True).pixels.is_shared()
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    assert not RememberedImages(Noise(), Noise().read, (40, 40), shared=False).pixels.is_shared()
    with pytest.raises(DeviceError, match="shared memory: is full; .*set train.workers=0, or give /dev/shm more room"):
        RememberedImages(Noise(), Noise().read, (40, 40), shared=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_step_data__an_image_that_does_not_decode_is_named(workers: int) -> None:
    before = set(multiprocessing.active_children())
    with pytest.raises(DataError, match="image 5: does not decode") as caught:
        _batches(Noise(broken=5), workers)
    assert caught and set(multiprocessing.active_children()) <= before


def test_step_data__workers_end_with_the_loop_that_is_left() -> None:
    dataset = TrainingImages(
        RememberedImages(Noise(), Noise().read, (40, 40), shared=True), Noise().labels, SETTINGS, seed=7, size=(32, 32)
    )
    before = set(multiprocessing.active_children())
    batches = step_data(dataset, StepBatches(shuffled(12, 4, 7), 3, 7, 0, 6), 2, pin=False)
    next(batches)
    assert len(set(multiprocessing.active_children()) - before) == 2
    batches.close()
    assert set(multiprocessing.active_children()) <= before


class Deadly(Noise):
    """Noise whose image 5 takes the process that reads it with it."""

    def read(self, index: int) -> np.ndarray:
        if index == 5 and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(index)


def test_item_070_a_killed_worker_is_one_line_with_its_last_file_and_no_hang() -> None:
    before = set(multiprocessing.active_children())
    with pytest.raises(DeviceError) as caught:
        _batches(Deadly(), 2)
    assert caught.value.where.startswith("loading process ")
    assert caught.value.what == "was killed (Killed), likely for want of memory; its last file: image 5"
    assert "train.workers" in caught.value.fix and len(caught.value.lines) == 1
    assert set(multiprocessing.active_children()) <= before


def test_item_070_a_death_met_outside_the_loop_names_the_last_file_too() -> None:
    dataset = TrainingImages(
        RememberedImages(Noise(), Noise().read, (40, 40), shared=True), Noise().labels, SETTINGS, seed=7, size=(32, 32)
    )
    before = set(multiprocessing.active_children())
    batches = step_data(dataset, StepBatches(shuffled(12, 4, 7), 3, 7, 0, 6), 1, pin=False)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - before
    with pytest.raises(DeviceError, match=r"want of memory; its last file: image \d+ \(lower"), dead_workers_named():
        raise RuntimeError(f"DataLoader worker (pid {worker.pid}) is killed by signal: Killed. ")
    batches.close()
    with pytest.raises(DeviceError, match=r"likely for want of memory \(lower"), dead_workers_named():
        raise RuntimeError(f"DataLoader worker (pid {worker.pid}) is killed by signal: Killed. ")


def test_dead_workers_named__lets_every_other_error_pass() -> None:
    with pytest.raises(RuntimeError, match="out of memory") as caught, dead_workers_named():
        raise RuntimeError("CUDA out of memory")
    assert type(caught.value) is RuntimeError
    with pytest.raises(DeviceError, match="loading process 3, 4: ended unexpectedly"), dead_workers_named():
        raise RuntimeError("DataLoader worker (pid(s) 3, 4) exited unexpectedly")


def _end_as(code: int) -> None:
    os.kill(os.getpid(), -code) if code < 0 else os._exit(code)


@pytest.mark.parametrize(("code", "told"), [(-9, r"was killed \(Killed\)"), (3, "ended unexpectedly")])
def test_dead_workers_named__knows_a_broken_connection_for_what_it_is(code: int, told: str) -> None:
    worker = multiprocessing.get_context("fork").Process(target=_end_as, args=(code,))
    worker.start()
    with pytest.raises(DeviceError, match=f"loading process {worker.pid}: {told}"), dead_workers_named([worker]):
        raise ConnectionResetError(104, "Connection reset by peer")
    with pytest.raises(ConnectionResetError), dead_workers_named():
        raise ConnectionResetError(104, "Connection reset by peer")
