"""Embedding a data set to a file: stopped anywhere and gone on, it gives the bytes of one go."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from facekd.data import embedding_cache
from facekd.data.synthetic import SyntheticFaces
from facekd.engine.embed import Passes, embed_images, load_embeddings
from facekd.engine.embed_file import embed_to_file, partial_folder
from facekd.errors import CheckpointError, DataError, NonFiniteError
from facekd.models.preprocessing import Preprocessing

BLOCK, BATCH = 4, 2
FACES = SyntheticFaces(identities=7, samples=3)
COUNT = len(FACES)


@dataclass(frozen=True)
class FirstRow:
    """Embeds an image as its first row of red values; an image that is zero there stays zero."""

    digest: str = "aa"
    name: str = "first"
    embedding_size: int = 16
    parameters: int = 0
    preprocessing: Preprocessing = Preprocessing.named("none", size=(16, 16))
    metadata: dict[str, str] = field(default_factory=dict)

    def embed(self, images: Tensor) -> Tensor:
        return images[:, 0, 0].float()


@dataclass
class Watched:
    """The faces, and which of them were read."""

    digest: str = FACES.digest
    read_image: Callable[[int], np.ndarray] = FACES.read
    seen: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=lambda: FACES.names)
    labels: np.ndarray = field(default_factory=lambda: FACES.labels)
    warnings: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return COUNT

    def read(self, index: int) -> np.ndarray:
        self.seen.append(index)
        return self.read_image(index)

    def encoded(self, index: int) -> bytes:
        return FACES.encoded(index)

    def sample_name(self, index: int) -> str:
        return FACES.sample_name(index)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_cache, "BLOCK", BLOCK)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file written in one go."""
    path = tmp_path_factory.mktemp("whole") / "e.npz"
    embed_to_file(FirstRow(), Watched(), path, passes=Passes(BATCH))
    return path.read_bytes()


def stop_after(batches: int) -> Callable[[], None]:
    left = iter(range(batches))

    def poll() -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    return poll


def stopped(output: Path, batches: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed_to_file(FirstRow(), Watched(), output, passes=Passes(BATCH), poll=stop_after(batches))
    assert not output.exists()


def test_the_file_holds_the_embeddings_of_every_image(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "e.npz").write_bytes(whole)
    found = load_embeddings(tmp_path / "e.npz")
    assert np.array_equal(found.embeddings, embed_images(FirstRow(), FACES.read, COUNT, batch_size=BATCH))
    assert np.array_equal(found.labels, FACES.labels) and found.identities == FACES.names
    assert found.names == [FACES.sample_name(index) for index in range(COUNT)]
    assert (found.model, found.model_digest, found.flip) == ("first", "aa", True)
    with zipfile.ZipFile(tmp_path / "e.npz") as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}


@pytest.mark.parametrize("batches", range(1 + (COUNT - 1) // BATCH))
def test_stopped_at_any_batch_and_gone_on_gives_the_same_bytes(whole: bytes, tmp_path: Path, batches: int) -> None:
    output, rest = tmp_path / "e.npz", Watched()
    stopped(output, batches)
    assert partial_folder(output).is_dir()
    embed_to_file(FirstRow(), rest, output, passes=Passes(BATCH))
    assert output.read_bytes() == whole
    done = BATCH * batches // BLOCK * BLOCK
    assert rest.seen == list(range(done, COUNT))
    assert list(tmp_path.iterdir()) == [output]


def test_progress_goes_on_where_the_work_does(tmp_path: Path) -> None:
    output, told = tmp_path / "e.npz", []
    stopped(output, 6)
    embed_to_file(FirstRow(), Watched(), output, passes=Passes(BATCH), progress=lambda *state: told.append(state))
    assert told[0] == ("embed", 14, COUNT) and told[-1] == ("embed", COUNT, COUNT)


@pytest.mark.parametrize(
    ("model", "source", "options"),
    [
        (FirstRow(digest="bb"), Watched(), {}),
        (FirstRow(preprocessing=Preprocessing.named("half", size=(16, 16))), Watched(), {}),
        (FirstRow(), Watched(digest="other"), {}),
        (FirstRow(), Watched(), {"flip": False}),
        (FirstRow(), Watched(), {"batch_size": 3}),
    ],
    ids=["model", "preprocessing", "data", "flip", "batch"],
)
def test_anything_else_starts_anew(model: FirstRow, source: Watched, options: dict, tmp_path: Path) -> None:
    output, source = tmp_path / "e.npz", replace(source, seen=[])
    stopped(output, 6)
    embed_to_file(model, source, output, passes=Passes(**{"batch_size": BATCH, **options}))
    assert source.seen == list(range(COUNT))
    assert list(tmp_path.iterdir()) == [output]


def test_an_image_that_cannot_be_used_stops_the_work_and_keeps_what_is_done(whole: bytes, tmp_path: Path) -> None:
    def torn(index: int) -> np.ndarray:
        if index == 13:
            raise DataError("13.jpg", "ends early")
        return FACES.read(index)

    output, rest = tmp_path / "e.npz", Watched()
    with pytest.raises(DataError, match="13.jpg"):
        embed_to_file(FirstRow(), Watched(read_image=torn), output, passes=Passes(BATCH))
    assert not output.exists()
    embed_to_file(FirstRow(), rest, output, passes=Passes(BATCH))
    assert rest.seen[0] == 12 and output.read_bytes() == whole


def test_an_unusable_embedding_is_told_at_its_block(tmp_path: Path) -> None:
    black = Watched(read_image=lambda index: FACES.read(index) * np.uint8(index != 9))
    with pytest.raises(NonFiniteError, match=f"first: the embedding of {FACES.sample_name(9)} is zero"):
        embed_to_file(FirstRow(), black, tmp_path / "e.npz", passes=Passes(BATCH))
    assert black.seen[-1] == 11 and not (tmp_path / "e.npz").exists()


def test_partial_work_that_was_damaged_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "e.npz"
    stopped(output, 6)
    (record,) = partial_folder(output).glob("*/cache.json")
    record.write_text(json.dumps({"shape": [COUNT + 1, 1, 16], "done": 12}))
    with pytest.raises(CheckpointError, match=r"holds \[22, 1, 16\], not \[21, 1, 16\] .remove "):
        embed_to_file(FirstRow(), Watched(), output, passes=Passes(BATCH))


def test_the_batch_is_as_large_as_asked_beyond_a_block(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Counting(FirstRow):
        def embed(self, images: Tensor) -> Tensor:
            sizes.append(len(images))
            return torch.ones(len(images), 16)

    embed_to_file(Counting(), Watched(), tmp_path / "e.npz", passes=Passes(3 * BLOCK, flip=False))
    assert sizes == [12, 9]
