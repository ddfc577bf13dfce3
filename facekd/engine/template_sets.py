"""The sets that models are measured on by templates, or by searching: IJB-B and IJB-C."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from facekd.data.ijb import IjbFolder, is_ijb, open_ijb
from facekd.data.ijb_protocols import TemplatePairs, TemplateSearch, read_pairs, read_search

TEMPLATE_PROTOCOLS = ("ijb-1:1", "ijb-1:n")


@dataclass(frozen=True)
class TemplateSet:
    """Images of templates with what is compared, checked as far as that goes without a model.

    Attributes:
        name: What reports call it.
        protocol: One of :data:`TEMPLATE_PROTOCOLS`.
        folder: Its images.
        compared: Listed pairs (1:1) or galleries and probes (1:N).
        warnings: What a user should know and nothing refuses.
    """

    name: str
    protocol: str
    folder: IjbFolder
    compared: TemplatePairs | TemplateSearch
    warnings: tuple[str, ...] = ()

    @property
    def subjects_known(self) -> bool:
        """Whether intervals can resample people."""
        return isinstance(self.compared, TemplateSearch) or self.compared.subjects is not None


def is_template_set(path: Path, protocol: str) -> bool:
    """Whether a set is measured by templates: by its protocol, or by its layout where that is ``auto``."""
    return protocol in TEMPLATE_PROTOCOLS or (protocol == "auto" and path.is_dir() and is_ijb(path))


def open_template_set(path: Path, protocol: str, *, count_failures: bool = False) -> TemplateSet:
    """Open a set of templates.

    Args:
        path: An IJB folder.
        protocol: One of :data:`TEMPLATE_PROTOCOLS`, or ``auto`` for 1:1.
        count_failures: Let images that are missing pass, for they will be counted as failed.

    Raises:
        InputError: Another layout, or a list with a line that cannot be used; names the line.
    """
    folder = open_ijb(path, missing_counts=count_failures)
    if protocol == "ijb-1:n":
        return TemplateSet(folder.name, protocol, folder, read_search(folder), folder.warnings)
    pairs = read_pairs(folder)
    return TemplateSet(folder.name, "ijb-1:1", folder, pairs, (*folder.warnings, *pairs.warnings))
