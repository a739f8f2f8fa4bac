"""The files at the top of the repository, and in its packages."""

import fnmatch
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.environment import ROOT

ALLOWED = {"theta", "theta_native", "tests", "bench"} | {
    "pyproject.toml",
    "setup.cfg",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "CITATION.cff",
    "Containerfile",
    "mkdocs.yml",
}
MADE_BY_TOOLS = ("__pycache__", "build", "dist", "*.egg-info")


def strangers(top: Path) -> set[str]:
    """Names at the top that are neither agreed, nor dotfiles, nor left by a tool that git ignores."""
    names = {path.name for path in top.iterdir() if not path.name.startswith(".")}
    made = {name for name in names for pattern in MADE_BY_TOOLS if fnmatch.fnmatch(name, pattern)}
    return names - made - ALLOWED


def test_top_level_names() -> None:
    assert strangers(ROOT) == set()


def test_a_stranger_is_seen(tmp_path: Path) -> None:
    for name in ("utils.py", "theta", ".gitignore", "build", "theta.egg-info"):
        (tmp_path / name).touch()
    assert strangers(tmp_path) == {"utils.py"}


@pytest.fixture(scope="module")
def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize(
    "name", ["README.md", "CHANGELOG.md", "LICENSE", "theta/py.typed", "theta_native/py.typed"]
)
def test_a_file_that_the_package_needs_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


def test_every_package_is_a_package() -> None:
    """Without ``__init__.py`` setuptools would leave a folder out of the wheel."""
    folders = {
        path.parent for package in ("theta", "theta_native") for path in (ROOT / package).rglob("*.py")
    }
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_the_core_needs_no_framework(project: Any) -> None:
    names = {entry.partition(">")[0] for entry in project["project"]["dependencies"]}
    kernels = {"llvmlite", "ml_dtypes", "numba", "numpy"}  # numba stands on llvmlite
    assert names == kernels | {"pygit2", "pyyaml", "rich", "typer", "zlib-ng", "zstandard"}


def test_the_readme_gives_the_commands_that_ci_runs() -> None:
    ci, readme = (ROOT / ".ci" / "run").read_text(), (ROOT / "README.md").read_text()
    commands = [line.split("=", 1)[1].strip('"') for line in ci.splitlines() if line.startswith("readme_")]
    assert len(commands) == 2
    for command in commands:
        assert command in readme.splitlines()
