"""From the data section of a recipe to the images it names."""

from __future__ import annotations

from pathlib import Path

from facekd.data.augment import AugmentSettings
from facekd.data.identities import IdentitySource
from facekd.data.image_folder import ImageFolder
from facekd.data.image_list import ImageList
from facekd.data.open_source import open_identities
from facekd.data.record_source import RecordSource
from facekd.data.resolution import ResolutionSettings
from facekd.data.subset import names_by_attribute, names_by_shots, names_in_file, of_identities, without_images
from facekd.data.synthetic import SyntheticFaces
from facekd.data.tar_source import TarSource
from facekd.errors import InputError, UsageError
from facekd.recipe.identity_sections import Identities
from facekd.recipe.sections import Augment, Data, Resolutions, Synthetic


def synthetic_source(section: Synthetic) -> SyntheticFaces:
    """The drawn faces a recipe section describes."""
    return SyntheticFaces(section.identities, section.samples, section.seed, section.first_identity)


def open_source(data: Data) -> IdentitySource:
    """The training images of a recipe, without some images and of some identities where it says so.

    Raises:
        InputError: Images that are missing or cannot be used.
        UsageError: A source that needs a path has none.
    """
    source, where = _open_whole(data), "data.subset"
    if data.leave_out is not None:
        source = without_images(source, Path(data.leave_out.file), data.leave_out.at_most)
    if data.subset is not None:
        source = of_identities(source, chosen_identities(data.subset, source, where), where)
    return source


def chosen_identities(section: Identities, source: IdentitySource, where: str) -> list[str]:
    """The names that a recipe section selects from a data set.

    Args:
        section: In one of its three ways.
        source: The data set.
        where: Key of the section, for messages.

    Raises:
        InputError: A file that cannot be used.
    """
    if section.shots is not None:
        return names_by_shots(source, section.shots.at_least, section.shots.at_most)
    if section.attribute is not None:
        told = section.attribute
        return names_by_attribute(source, Path(told.file), told.column, told.values)
    if section.file is not None:
        return names_in_file(Path(section.file))
    raise InputError(where, "selects nobody", "give one of shots, attribute and file")


def _open_whole(data: Data) -> IdentitySource:
    if data.source == "synthetic":
        return synthetic_source(data.synthetic)
    if data.path is None:
        raise UsageError("data.path", f"missing for source {data.source}", "give it with --set data.path=...")
    path, images = Path(data.path), None if data.images is None else Path(data.images)
    if data.source == "auto":
        return open_identities(path, images)
    if data.source == "list":
        return ImageList(path, images)
    if data.source == "record":
        return RecordSource(path)
    return TarSource(path) if data.source == "tar" else ImageFolder(path)


def augment_settings(section: Augment) -> AugmentSettings:
    """The augmentation a recipe section describes."""
    return AugmentSettings(**section.model_dump())


def resolution_settings(section: Resolutions) -> ResolutionSettings:
    """The resolutions a recipe section describes."""
    return ResolutionSettings(**section.model_dump())
