"""From an identity source to batches of augmented pixels, the same bits for any number of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import active_children

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from facekd.data.augment import AugmentSettings, augment, blend
from facekd.data.identities import IdentitySource
from facekd.data.images import resize
from facekd.data.loading_workers import (
    WatchedImages,
    dead_workers_named,
    deaths_unheeded,
    full_memory_named,
    leave_signals_to_parent,
    under_way,
)
from facekd.data.resolution import AT_FULL_RESOLUTION, ResolutionSettings, at_resolution, drawn_resolution
from facekd.data.samplers import StepBatches
from facekd.errors import FacekdError

MEMORY_LIMIT = 1 << 30  # bytes of decoded images worth keeping
AUGMENT_STREAM = 2  # first word of the seed of an augmentation

NOBODY = -1  # label of a blend of two people

Sample = tuple[np.ndarray, int, int, int]  # pixels, label, index, view


@dataclass(frozen=True)
class Batch:
    """What a step is given.

    Attributes:
        images: Augmented pixels, uint8 RGB ``(batch, 3, height, width)``.
        labels: Class of each image, int64 ``(batch,)``; :data:`NOBODY` for a blend of two people.
        indices: Place of each image in the data set, int64 ``(batch,)``; what is looked up by it lies in the memory of
            the machine, and so it stays there.
        views: The view of the image in the teacher cache, int64 ``(batch,)``: its version where versions are kept,
            else 1 where it was mirrored. It stays there too.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    views: Tensor

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; called by the loader when it pins."""
        return Batch(*(tensor.pin_memory() for tensor in (self.images, self.labels, self.indices, self.views)))

    def to(self, device: torch.device) -> Batch:
        """The same batch, its pixels and labels on ``device``, copied while that works where the memory is pinned."""
        images, labels = (tensor.to(device, non_blocking=True) for tensor in (self.images, self.labels))
        return Batch(images, labels, self.indices, self.views)


class RememberedImages:
    """Decoded images of one size, kept in memory after the first read.

    Args:
        source: Where the images come from.
        read: How an image of it is read; ``source.read``, or what refuses some of them.
        size: ``(height, width)`` in pixels to which every image is brought.
        shared: Whether several processes read: what one has decoded the others need not.

    Raises:
        DeviceError: There is no room in shared memory.
    """

    def __init__(
        self, source: IdentitySource, read: Callable[[int], np.ndarray], size: tuple[int, int], *, shared: bool
    ) -> None:
        self.source, self.decode, self.size = source, read, size
        keep = len(source) * size[0] * size[1] * 3 <= MEMORY_LIMIT
        self.pixels = torch.zeros((len(source) if keep else 0, *size, 3), dtype=torch.uint8)
        self.known = torch.zeros(len(self.pixels), dtype=torch.bool)
        if shared:
            with full_memory_named():
                self.pixels.share_memory_()
                self.known.share_memory_()

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> np.ndarray:
        """Pixels of image ``index``, uint8 RGB ``(height, width, 3)``."""
        if not len(self.known):
            return resize(self.decode(index), self.size)
        if not self.known[index]:
            self.pixels[index].numpy()[...] = resize(self.decode(index), self.size)
            self.known[index] = True
        return self.pixels[index].numpy()


class TrainingImages(Dataset):
    """Augmented images addressed by ``(epoch, index)``.

    The augmentation of an image is drawn from ``(seed, epoch, index)``: no worker, order or resume changes it. With
    ``versions`` it is drawn from ``(version, index)`` alone, version = epoch modulo ``versions``, so that a teacher
    can be asked once about exactly the pixels every student will see, whatever its seed. The resolution an image is
    brought down to is drawn from ``(seed, epoch, index)`` all the same, last of all and for the student alone.

    Args:
        images: Pixels by index.
        labels: Class by index, int64 ``(count,)``.
        settings: What to draw.
        seed: The run's seed.
        size: ``(height, width)`` the student takes.
        versions: Augmented versions kept of each image; None draws a new one every epoch.
        resolutions: What the images are brought down to.
    """

    def __init__(
        self,
        images: RememberedImages,
        labels: np.ndarray,
        settings: AugmentSettings,
        *,
        seed: int,
        size: tuple[int, int],
        versions: int | None = None,
        resolutions: ResolutionSettings = AT_FULL_RESOLUTION,
    ) -> None:
        self.images, self.labels, self.settings = images, labels, settings
        self.seed, self.size, self.versions, self.resolutions = seed, size, versions, resolutions

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: tuple[int, int]) -> Sample | FacekdError:
        """The sample, or the refusal to decode it: an exception loses its type on the way out of a worker."""
        epoch, index = key
        try:
            image, label, flipped = self.augmented(epoch, index)
        except FacekdError as error:
            return error
        side = drawn_resolution(self.resolutions, self.seed, epoch, index)
        if side is not None:
            image = at_resolution(image, side)
        view = int(flipped) if self.versions is None else epoch % self.versions
        return resize(image, self.size), label, index, view

    def name_of(self, index: int) -> str:
        """What image ``index`` is called in messages."""
        return self.images.source.sample_name(index)

    def augmented(self, epoch: int, index: int) -> tuple[np.ndarray, int, bool]:
        """Image ``index`` as epoch ``epoch`` shows it, at its stored size and full resolution; its label, and whether
        it was mirrored."""
        draw = (self.seed, epoch) if self.versions is None else (epoch % self.versions,)
        generator = np.random.default_rng([AUGMENT_STREAM, *draw, index])
        image, flipped = augment(self.images.read(index), generator, self.settings)
        if generator.random() >= self.settings.mix:
            return image, int(self.labels[index]), flipped
        other, _ = augment(self.images.read(int(generator.integers(len(self)))), generator, self.settings)
        return blend(image, other, generator), NOBODY, flipped


def _collate(samples: Sequence[Sample | FacekdError]) -> Batch | FacekdError:
    for sample in samples:
        if isinstance(sample, FacekdError):
            return sample
    images, labels, indices, views = zip(*samples, strict=True)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return Batch(pixels, torch.tensor(labels), torch.tensor(indices), torch.tensor(views))


def step_data(dataset: TrainingImages, batches: StepBatches, workers: int, pin: bool) -> Iterator[Batch]:
    """One :class:`Batch` per step.

    Args:
        dataset: The augmented images.
        batches: Which images make up which step.
        workers: Processes that decode and augment; 0 works in this one.
        pin: Whether to page-lock batches for a transfer to an accelerator.

    Raises:
        DataError: An image does not decode; it is named.
        DeviceError: A worker was killed, if that is met while waiting for a batch; or shared memory is full.
    """
    watched = WatchedImages(dataset, workers)
    loader = DataLoader(
        watched,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin,
        worker_init_fn=leave_signals_to_parent,
        generator=torch.Generator().manual_seed(batches.seed),
        prefetch_factor=4 if workers else None,
    )
    others = set(active_children())
    with full_memory_named():
        loaded = iter(loader)
    started = set(active_children()) - others
    under_way.append(watched)
    try:
        while True:
            with full_memory_named(), dead_workers_named(started):
                batch = next(loaded, None)
            if batch is None:
                return
            if isinstance(batch, FacekdError):
                raise batch
            yield batch
    finally:
        under_way.remove(watched)
        # Workers heed no signal, and Python waits for them at exit without end: none may outlive the loop.
        with deaths_unheeded():
            del loaded
            for worker in started:
                worker.kill()
                worker.join()
