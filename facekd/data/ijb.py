"""IJB-B and IJB-C as the field passes them on: loose crops of faces with landmarks, templates, pairs and galleries.

A folder holds ``loose_crop/`` and ``meta/``, and in that ``ijbc_face_tid_mid.txt`` and ``ijbc_name_5pts_score.txt``;
for 1:1 ``ijbc_template_pair_label.txt``; for 1:N ``ijbc_1N_gallery_G1.csv``, ``ijbc_1N_gallery_G2.csv`` and
``ijbc_1N_probe_mixed.csv``. Of IJB-B the names begin with ``ijbb`` and the galleries are S1 and S2.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from facekd.data.align import ALIGNER_VERSION, MAX_SIZE, warp
from facekd.data.ijb_lists import Faces, read_faces, read_points
from facekd.data.images import shown
from facekd.data.lists import FileImages, ImageRoot, refuse_missing
from facekd.errors import InputError
from facekd.metrics.templates import Membership, membership

GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}
PUBLISHED = {"ijbb": (12_115, 8_010_270), "ijbc": (23_124, 15_658_489)}
"""Templates and 1:1 pairs of the sets as the field passes them on."""


@dataclass(frozen=True)
class AlignedCrops:
    """Loose crops, each laid onto the template of aligned faces as it is read.

    Attributes:
        files: The crops.
        landmarks: float64 (n, 5, 2), in pixels of the crop.
        size: Side of the aligned image.
    """

    files: FileImages
    landmarks: np.ndarray
    size: int = 112

    def __len__(self) -> int:
        return len(self.files)

    def encoded(self, index: int) -> bytes:
        """The file of crop ``index``; raises as :meth:`facekd.data.lists.FileImages.encoded`."""
        return self.files.encoded(index)

    def read(self, index: int) -> np.ndarray:
        """Image ``index`` aligned, uint8 RGB (size, size, 3); raises `DataError` where it does not decode."""
        return warp(self.files.read(index), self.landmarks[index], self.size)

    def sample_name(self, index: int) -> str:
        """Name of the crop."""
        return self.files.sample_name(index)


@dataclass(frozen=True)
class IjbFolder:
    """An opened folder, its images and templates checked as far as that goes without decoding.

    Attributes:
        name: What reports call it.
        meta: The folder of the lists.
        kind: ``ijbb`` or ``ijbc``.
        faces: Which image is of which template.
        members: The same, numbered without gaps.
        crops: The images.
        digest: SHA-256 over names, sizes and landmarks of the images, none of which is opened for it.
        warnings: What a user should know and nothing refuses.
    """

    name: str
    meta: Path
    kind: str
    faces: Faces = field(repr=False)
    members: Membership = field(repr=False)
    crops: AlignedCrops = field(repr=False)
    digest: str
    warnings: tuple[str, ...] = ()

    @property
    def pair_list(self) -> Path:
        """The list of 1:1 comparisons."""
        return self.meta / f"{self.kind}_template_pair_label.txt"

    @property
    def gallery_lists(self) -> dict[str, Path]:
        """The list of each gallery of 1:N."""
        return {name: self.meta / f"{self.kind}_1N_gallery_{name}.csv" for name in GALLERIES[self.kind]}

    @property
    def probe_list(self) -> Path:
        """The list of probes of 1:N."""
        return self.meta / f"{self.kind}_1N_probe_mixed.csv"


def is_ijb(path: Path) -> bool:
    """Whether a folder, or one it holds under its usual name, is laid out like IJB-B or IJB-C."""
    return bool(_candidates(path))


def open_ijb(path: Path, *, missing_counts: bool = False) -> IjbFolder:
    """Open an IJB folder: read which images there are, and see that all are.

    Args:
        path: The folder with ``meta`` and ``loose_crop``, or the one above it.
        missing_counts: Let an image that is not there pass, for it will be counted as failed when its turn comes.

    Raises:
        InputError: Another layout, several sets at once, an image that is not there, or a list with a line that cannot
            be used; names the line.
    """
    found = _candidates(path)
    if not found:
        fix = "it holds meta/ijbc_face_tid_mid.txt or meta/ijbb_face_tid_mid.txt, and loose_crop/"
        raise InputError(shown(path), "is no IJB folder" if path.exists() else "no such folder", fix)
    if len(found) > 1:
        listed = ", ".join(shown(listing) for listing, _ in found)
        raise InputError(shown(path), f"holds several sets: {listed}", "name the folder of one")
    meta, kind = found[0]
    faces = read_faces(meta / f"{kind}_face_tid_mid.txt")
    landmarks, detector, warnings = read_points(meta / f"{kind}_name_5pts_score.txt", faces)
    root = ImageRoot(meta.parent / "loose_crop")
    sizes = [
        root.size(name, f"{shown(faces.path)}:{line}") for line, name in zip(faces.lines, faces.names, strict=True)
    ]
    missing = [(line, name) for line, name, size in zip(faces.lines, faces.names, sizes, strict=True) if size is None]
    if not missing_counts:
        refuse_missing(faces.path, missing, root)
    members = membership(faces.templates, faces.media, detector)
    if len(members.ids) != PUBLISHED[kind][0]:
        what = f"{len(members.ids):,} templates; {kind[:3].upper()}-{kind[3].upper()} has {PUBLISHED[kind][0]:,}"
        warnings = [*warnings, f"{shown(faces.path)}: {what}"]
    crops = AlignedCrops(FileImages(root, tuple(faces.names)), landmarks)
    digest = _digest(faces.names, sizes, landmarks)
    return IjbFolder(path.name, meta, kind, faces, members, crops, digest, tuple(warnings))


def aligned_side(size: tuple[int, int]) -> int:
    """The side to align crops to for a model that takes ``size``: its own where there is a template of it, else 112.

    Example:
        >>> aligned_side((112, 112)), aligned_side((128, 128)), aligned_side((96, 112)), aligned_side((32, 32))
        (112, 128, 112, 112)
    """
    height, width = size
    return height if height == width <= MAX_SIZE and (height % 112 == 0 or height % 128 == 0) else 112


def _candidates(path: Path) -> list[tuple[Path, str]]:
    """Folders of lists at ``path`` or one below it, each with whose they are."""
    folders = [path / "meta", path / "IJBB" / "meta", path / "IJBC" / "meta"]
    return [(meta, kind) for meta in folders for kind in GALLERIES if (meta / f"{kind}_face_tid_mid.txt").is_file()]


def _digest(names: list[str], sizes: list[int | None], landmarks: np.ndarray) -> str:
    digest = hashlib.sha256(f"ijb crops, aligner {ALIGNER_VERSION}\n".encode())
    for name, size in zip(names, sizes, strict=True):
        digest.update(f"{len(name)} {name} {size}\n".encode(errors="surrogateescape"))
    digest.update(np.ascontiguousarray(landmarks, "<f8").tobytes())
    return digest.hexdigest()
