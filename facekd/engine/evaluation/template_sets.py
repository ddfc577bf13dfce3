"""The sets that models are measured on by templates or by searching: IJB-B, IJB-C and TinyFace."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from facekd.data.align import size_doubt
from facekd.data.ijb import AlignedCrops, is_ijb, open_ijb
from facekd.data.ijb_protocols import TemplateList, TemplatePairs, TemplateSearch, read_pairs, read_search
from facekd.data.lists import FileImages
from facekd.data.tinyface import is_tinyface, open_tinyface
from facekd.errors import DataError
from facekd.metrics.templates import Membership, membership

TEMPLATE_PROTOCOLS = ("ijb-1:1", "ijb-1:n", "tinyface")


@dataclass(frozen=True)
class TemplateSet:
    """Images of templates with what is compared, checked as far as that goes without a model.

    Attributes:
        name: What reports call it.
        protocol: One of :data:`TEMPLATE_PROTOCOLS`.
        images: Crops to align, or images that are aligned already.
        members: Which template each image belongs to; of TinyFace every image is one.
        compared: Listed pairs (1:1) or galleries and probes.
        images_digest: Of the images, for the cache of embeddings.
        digest: Of everything.
        warnings: What a user should know and nothing refuses.
    """

    name: str
    protocol: str
    images: AlignedCrops | FileImages = field(repr=False)
    members: Membership = field(repr=False)
    compared: TemplatePairs | TemplateSearch = field(repr=False)
    images_digest: str
    digest: str
    warnings: tuple[str, ...] = ()

    @property
    def subjects_known(self) -> bool:
        """Whether intervals can resample people."""
        return isinstance(self.compared, TemplateSearch) or self.compared.subjects is not None


def is_template_set(path: Path, protocol: str) -> bool:
    """Whether a set is measured by templates: by its protocol, or by its layout where that is ``auto``."""
    by_layout = protocol == "auto" and path.is_dir() and (is_ijb(path) or is_tinyface(path))
    return by_layout or protocol in TEMPLATE_PROTOCOLS


def open_template_set(path: Path, protocol: str, *, count_failures: bool = False) -> TemplateSet:
    """Open a set of templates.

    Args:
        path: An IJB folder, or TinyFace's.
        protocol: One of :data:`TEMPLATE_PROTOCOLS`, or ``auto``: 1:1 for an IJB folder.
        count_failures: Let images that are missing pass, for they will be counted as failed.

    Raises:
        InputError: Another layout, or a list with a line that cannot be used; names the line.
    """
    if protocol == "tinyface" or (protocol == "auto" and not is_ijb(path)):
        return _tinyface(path)
    folder = open_ijb(path, missing_counts=count_failures)
    compared = read_search(folder) if protocol == "ijb-1:n" else read_pairs(folder)
    warnings = folder.warnings + (compared.warnings if isinstance(compared, TemplatePairs) else ())
    chosen = "ijb-1:1" if protocol == "auto" else protocol
    digest = _digest(folder.digest, folder.members, compared)
    return TemplateSet(folder.name, chosen, folder.crops, folder.members, compared, folder.digest, digest, warnings)


def _tinyface(path: Path) -> TemplateSet:
    found = open_tinyface(path)
    rows = np.arange(len(found.images))
    probe, people = rows[: found.probes], found.subjects
    gallery = TemplateList("match + distractors", rows[found.probes :], people[found.probes :])
    search = TemplateSearch((gallery,), TemplateList("probes", probe, people[: found.probes]))
    members = membership(rows, rows, np.ones(len(rows)))
    warnings = found.warnings
    try:
        doubt = size_doubt(*found.images.read(0).shape[:2])
        warnings += () if doubt is None else (f"{found.name}: {doubt}",)
    except DataError:
        pass  # it is refused by name, or counted, when its turn comes
    digest = _digest(found.digest, members, search)
    return TemplateSet(found.name, "tinyface", found.images, members, search, found.digest, digest, warnings)


def _digest(images: str, members: Membership, compared: TemplatePairs | TemplateSearch) -> str:
    digest = hashlib.sha256(images.encode())
    arrays = [members.ids, members.rows, members.media, members.detector]
    if isinstance(compared, TemplatePairs):
        arrays += [compared.left, compared.right, compared.genuine]
        arrays += [] if compared.subjects is None else [compared.subjects]
    else:
        arrays += [array for part in (*compared.galleries, compared.probes) for array in (part.rows, part.subjects)]
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.size}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
