"""What is installed is what is in the checkout."""

from __future__ import annotations

import configparser
import importlib.metadata
import re

import pytest
from house import INSTALLED, ROOT

import facekd

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")


def listed(section: str, option: str) -> list[str]:
    return [line.strip() for line in SETUP[section][option].splitlines() if line.strip()]


def table(section: str, option: str) -> dict[str, str]:
    return {key.strip(): value.strip() for key, value in (line.split("=", 1) for line in listed(section, option))}


def data_patterns() -> dict[str, list[str]]:
    """Installed package -> globs of its data files."""
    section = SETUP["options.package_data"]
    return {name: [glob.strip() for glob in globs.split(",")] for name, globs in section.items()}


def test_packages_are_the_folders_with_an_init() -> None:
    found = set()
    for folder, package in INSTALLED.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join([package, *init.parent.relative_to(ROOT / folder).parts]))
    packages = listed("options", "packages")
    assert sorted(packages) == packages, "keep packages of setup.cfg sorted"
    assert set(packages) == found, (
        f"setup.cfg lacks {sorted(found - set(packages))}, has {sorted(set(packages) - found)}"
    )


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {path.parent for folder in INSTALLED for path in (ROOT / folder).rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_the_command_line_is_installed_under_its_own_name() -> None:
    assert table("options", "package_dir") == {"facekd_cli": "cli", "facekd_cli.recipes": "recipes"}
    assert table("options.entry_points", "console_scripts") == {"facekd": "facekd_cli.main:main"}


def test_every_data_file_is_covered_by_package_data() -> None:
    patterns = data_patterns()
    missing = []
    for folder, package in INSTALLED.items():
        base = ROOT / folder
        covered = {path for pattern in patterns.get(package, []) for path in base.glob(pattern)}
        for path in base.rglob("*"):
            if path.is_file() and path.suffix not in {".py", ".pyc"} and path not in covered:
                missing.append(f"{path.relative_to(ROOT)}: not in package_data of {package}")
    assert not missing, "\n" + "\n".join(missing)


def test_types_are_published() -> None:
    assert (ROOT / "facekd" / "py.typed").is_file()
    assert "py.typed" in data_patterns()["facekd"]


def test_version_is_said_once() -> None:
    assert SETUP["metadata"]["version"] == "attr: facekd.__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+", facekd.__version__)


def test_installed_version_is_this_one() -> None:
    try:
        installed = importlib.metadata.version("facekd")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("facekd is not installed here; the tests run from the checkout")
    assert installed == facekd.__version__, "install the checkout again: pip install -e ."


def test_changelog_knows_the_version() -> None:
    changelog = ROOT / "CHANGELOG.md"
    assert re.search(rf"^## .*\b{re.escape(facekd.__version__)}\b", changelog.read_text(encoding="utf-8"), re.MULTILINE)


def test_pyproject_holds_the_build_system_and_nothing_else() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    content = [line for line in lines if line.strip() and not line.startswith("#")]
    assert content == [
        "[build-system]",
        'requires = ["setuptools>=64"]',
        'build-backend = "setuptools.build_meta"',
    ]
