"""One door: every layout is told from its path, and what is none is told what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tar_shards import write_tar_shards

from facekd.data.identities import IdentitySource
from facekd.data.image_folder import ImageFolder
from facekd.data.image_list import ImageList
from facekd.data.images import decode, encode_png
from facekd.data.open_source import open_identities
from facekd.data.record_source import RecordSource
from facekd.data.record_writer import write_records
from facekd.data.synthetic import SyntheticFaces
from facekd.data.tar_source import TarSource
from facekd.errors import InputError


@pytest.fixture
def layouts(tmp_path: Path) -> dict[str, Path]:
    """The same six images in every layout."""
    faces = tmp_path / "faces"
    for label, name in enumerate(("ann", "bob", "cy")):
        (faces / name).mkdir(parents=True)
        for sample in range(2):
            image = np.full((8, 8, 3), 40 * label + sample, np.uint8)
            (faces / name / f"{sample}.png").write_bytes(encode_png(image))
    source = ImageFolder(faces)
    rows = [f"{source.sample_name(k)},{source.names[source.labels[k]]}\n" for k in range(6)]
    (faces / "faces.csv").write_text("path,identity\n" + "".join(rows))
    samples = [(int(source.labels[k]), source.encoded(k)) for k in range(6)]
    (tmp_path / "records").mkdir()
    write_records(tmp_path / "records" / "train.rec", samples, source.names)
    (tmp_path / "classic").mkdir()
    write_records(tmp_path / "classic" / "train.rec", samples, source.names, insightface_header=True)
    write_tar_shards(tmp_path / "shards", samples, source.names, shard_size=4)
    write_tar_shards(tmp_path / "shard", samples, source.names)
    return {
        "folder": faces,
        "list": faces / "faces.csv",
        "folder of records": tmp_path / "records",
        "records": tmp_path / "classic" / "train.rec",
        "folder of shards": tmp_path / "shards",
        "shard": tmp_path / "shard" / "faces-000000.tar",
    }


KINDS = {
    "folder": ImageFolder,
    "list": ImageList,
    "folder of records": RecordSource,
    "records": RecordSource,
    "folder of shards": TarSource,
    "shard": TarSource,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_of_the_same_images_is_the_same_source(kind: str, layouts: dict[str, Path]) -> None:
    source, folder = open_identities(layouts[kind]), ImageFolder(layouts["folder"])
    assert isinstance(source, KINDS[kind])
    assert source.names == folder.names and source.labels.tolist() == folder.labels.tolist()
    assert source.labels.dtype == np.int64 and source.warnings == [] and len(source) == len(folder)
    assert [source.encoded(k) for k in range(6)] == [folder.encoded(k) for k in range(6)]
    assert all(np.array_equal(source.read(k), folder.read(k)) for k in range(6))
    assert len({source.sample_name(k) for k in range(6)}) == 6


def test_drawn_faces_are_a_source_too() -> None:
    faces: IdentitySource = SyntheticFaces(identities=2, samples=1)
    assert faces.warnings == []
    assert np.array_equal(decode(faces.encoded(1), "1"), faces.read(1))


def test_the_image_root_of_a_list_may_be_given(layouts: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.csv"
    path.write_bytes(layouts["list"].read_bytes())
    assert len(open_identities(path, layouts["folder"])) == 6


@pytest.mark.parametrize(
    ("files", "asked", "message"),
    [
        ([], "none", "none: no such file or folder (check the path)"),
        ([], "none.rec", "none.rec: no such file or folder"),
        (["a.zip"], "a.zip", "a.zip: is a zip archive, which is not read (unpack it first: give .rec, .tar, .csv"),
        (["a.tar.gz"], "a.tar.gz", "a.tar.gz: is compressed, which is not read (unpack it first"),
        (["data.mdb"], "data.mdb", "data.mdb: is an LMDB database, which is not read"),
        (["data.mdb", "lock.mdb"], "", "is an LMDB database, which is not read (export its images"),
        (["a.bin"], "a.bin", "a.bin: holds no identities that can be read (give .rec, .tar, .csv"),
        (["train.idx"], "", "holds train.idx without its .rec (fetch the .rec too)"),
        (["train.idx"], "train.idx", "train.idx: is an index, not the records (give the .rec)"),
        (["a.rec", "b.rec"], "", "holds 2 .rec files: a.rec, b.rec (name one of them)"),
        (["a.tar", "ann/0.png"], "", "holds folders and .tar files (name the one that is meant)"),
        (["readme.txt"], "", "holds no identities (lay images out as ROOT/IDENTITY/IMAGE)"),
    ],
)
def test_what_is_no_source_is_told(files: list[str], asked: str, message: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError) as caught:
        open_identities(tmp_path / asked)
    assert message in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_folder_beside_records_does_not_hide_them(layouts: dict[str, Path]) -> None:
    (layouts["folder of records"] / "images").mkdir()
    assert isinstance(open_identities(layouts["folder of records"]), RecordSource)


def test_real_faces_come_back_byte_for_byte(shared_data: Path, tmp_path: Path) -> None:
    faces = ImageList(shared_data / "lfw_train.csv", shared_data / "lfw112")
    some = np.random.default_rng(0).permutation(len(faces))[:300].tolist()
    used = np.unique(faces.labels[some])
    names = [faces.names[label] for label in used]
    samples = [(int(np.searchsorted(used, faces.labels[k])), faces.encoded(k)) for k in some]
    write_records(tmp_path / "train.rec", samples, names)
    write_tar_shards(tmp_path / "shards", samples, names, shard_size=128)
    for source in (open_identities(tmp_path / "train.rec"), open_identities(tmp_path / "shards")):
        assert source.names == names and source.warnings == []
        assert [(int(source.labels[k]), source.encoded(k)) for k in range(300)] == samples
        assert np.array_equal(source.read(7), faces.read(some[7]))
