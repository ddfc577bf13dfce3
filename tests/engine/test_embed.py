"""Embedding in batches, and the file embeddings are kept in."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from facekd.engine.embed import StoredEmbeddings, embed_images, load_embeddings, require_usable, save_embeddings
from facekd.errors import DataError, InputError, NonFiniteError
from facekd.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class LeftSide:
    """Embeds an image as its leftmost column of red values; remembers the batches it saw."""

    seen: list[int]
    name: str = "left"
    digest: str = "00"
    embedding_size: int = 8
    parameters: int = 0
    preprocessing: Preprocessing = Preprocessing.named("none", size=(8, 8))

    @property
    def metadata(self) -> dict[str, str]:
        return {}

    def embed(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8 and images.shape[1:] == (3, 8, 8)
        self.seen.append(len(images))
        return images[:, 0, :, 0].float()


def images(count: int, side: int = 8) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype(np.uint8))


def test_flip_adds_the_mirrored_image_and_order_is_kept() -> None:
    faces = images(7)
    plain = embed_images(LeftSide([]), faces.__getitem__, 7, flip=False, batch_size=3)
    summed = embed_images(LeftSide([]), faces.__getitem__, 7, batch_size=3)
    assert plain.dtype == np.float32
    for index, face in enumerate(faces):
        assert plain[index].tolist() == face[:, 0, 0].tolist()
        assert summed[index].tolist() == (face[:, 0, 0].astype(float) + face[:, -1, 0]).tolist()


@pytest.mark.parametrize("batch", [1, 2, 5, 7, 100])
def test_every_image_once_whatever_the_batch(batch: int) -> None:
    faces, model, told, polled = images(7), LeftSide([]), [], []
    found = embed_images(
        model,
        faces.__getitem__,
        7,
        batch_size=batch,
        flip=False,
        progress=lambda *state: told.append(state),
        poll=lambda: polled.append(1),
    )
    assert np.array_equal(found, embed_images(LeftSide([]), faces.__getitem__, 7, flip=False))
    assert sum(model.seen) == 7
    assert told[-1] == ("embed", 7, 7) and len(polled) == len(told) == len(model.seen)


def test_other_sizes_are_resized() -> None:
    flat = [np.full((20, 30, 3), value, np.uint8) for value in (10, 200)]
    assert embed_images(LeftSide([]), flat.__getitem__, 2, flip=False)[:, 0].tolist() == [10, 200]


def test_an_unreadable_image_stops_the_work() -> None:
    def read(index: int) -> np.ndarray:
        raise DataError(f"{index}.jpg", "zero bytes")

    with pytest.raises(DataError, match="0.jpg"):
        embed_images(LeftSide([]), read, 3)


@pytest.mark.parametrize(("bad", "what"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "zero")])
def test_unusable_embeddings_are_named(bad: float, what: str) -> None:
    rows = np.ones((4, 2), np.float32)
    rows[2] = bad
    with pytest.raises(NonFiniteError, match=f"model: the embedding of image 2 is {what}, 1 of 4"):
        require_usable(rows, "model", lambda index: f"image {index}")


def stored(**changes: object) -> StoredEmbeddings:
    rows = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    labels = np.array([0, 0, 1, 1])
    return replace(StoredEmbeddings(rows, labels, list("abcd"), ["ann", "bob"], "net", "ab12", True), **changes)


@pytest.mark.parametrize("flip", [True, False, None])
def test_round_trip(tmp_path: Path, flip: bool | None) -> None:
    given = stored(flip=flip)
    save_embeddings(tmp_path / "e.npz", given)
    found = load_embeddings(tmp_path / "e.npz")
    assert np.array_equal(found.embeddings, given.embeddings) and np.array_equal(found.labels, given.labels)
    assert replace(found, embeddings=given.embeddings, labels=given.labels) == given
    assert list(tmp_path.iterdir()) == [tmp_path / "e.npz"]


def test_a_foreign_file_with_names_as_labels(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "f.npz", embeddings=np.eye(3), labels=np.array(["zoe", "ann", "zoe"]), names=np.array(list("abc"))
    )
    found = load_embeddings(tmp_path / "f.npz")
    assert found.labels.tolist() == [1, 0, 1] and found.identities == ["ann", "zoe"]
    assert (found.model, found.model_digest, found.flip) == ("f.npz", "", None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embeddings": np.ones(4)}, r"embeddings are float64 of shape \(4,\)"),
        ({"embeddings": np.ones((4, 2), int)}, "embeddings are int64"),
        ({"labels": np.zeros(3, int)}, r"labels are int64 of shape \(3,\) for 4 embeddings"),
        ({"labels": np.zeros(4)}, "labels are float64"),
        ({"names": np.zeros(4)}, "names are float64"),
        ({"names": None}, "array names is missing"),
        ({"log_variance": np.zeros((4, 3))}, r"log_variance is float64 of shape \(4, 3\) for embeddings of shape"),
        ({"log_variance": np.full((4, 1), np.nan)}, r"log_variance is .* \(finite floats"),
        ({"labels": np.array([{}, 1, 2, 3], dtype=object)}, "no readable .npz file"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    arrays = {"embeddings": np.ones((4, 2)), "labels": np.zeros(4, int), "names": np.array(list("abcd")), **changes}
    np.savez(tmp_path / "bad.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(InputError, match=message):
        load_embeddings(tmp_path / "bad.npz")


def test_damage_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    save_embeddings(tmp_path / "e.npz", stored())
    whole = (tmp_path / "e.npz").read_bytes()
    good = load_embeddings(tmp_path / "e.npz")
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        (tmp_path / "flipped.npz").write_bytes(data)
        try:
            found = load_embeddings(tmp_path / "flipped.npz")
        except (InputError, NonFiniteError):
            continue
        assert np.array_equal(found.embeddings, good.embeddings) and np.array_equal(found.labels, good.labels)
    for length in range(0, len(whole), 97):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(InputError, match="cut.npz"):
            load_embeddings(tmp_path / "cut.npz")
    with pytest.raises(InputError, match="no such file"):
        load_embeddings(tmp_path / "absent.npz")


def test_a_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.save(header, np.zeros((2000, 2000)))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("embeddings.npy", header.getvalue())
    with pytest.raises(InputError, match="unpacks to 32,000,128 bytes"):
        load_embeddings(tmp_path / "bomb.npz")
