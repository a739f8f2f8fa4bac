"""The package and its papers: version, recipe for conda, files that communities expect."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.environment import ROOT
from theta import _version


@pytest.fixture(scope="module")
def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def recipe() -> Any:
    return yaml.safe_load((ROOT / ".ci" / "conda" / "recipe.yaml").read_text())


def test_the_version_is_what_the_build_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_version, "__file__", str(tmp_path / "_version.py"))
    assert _version._written() == _version.UNBUILT
    (tmp_path / "version.txt").write_text("1.2.3\n")
    assert _version._written() == "1.2.3"
    (tmp_path / "version.txt").write_text("")
    assert _version._written() == _version.UNBUILT


def test_every_library_has_a_lower_bound(project: Any) -> None:
    extras = project["optional-dependencies"]
    needed = [
        *project["dependencies"],
        *extras["search"],
        *extras["align"],
        *extras["dask"],
        *extras["sign"],
        *extras["migrate"],
        *extras["docs"],
    ]
    assert [entry for entry in needed if not re.fullmatch(r"[\w-]+>=[\d.]+", entry)] == []


def test_the_recipe_of_conda_needs_what_pip_installs(project: Any, recipe: Any) -> None:
    there = set(recipe["requirements"]["run"]) - {"git >=2.38"}
    others = {"zlib-ng": "python-zlib-ng"}  # conda's zlib-ng is the library of C
    named = (entry.partition(">=") for entry in project["dependencies"])
    ours = {f"{others.get(name, name)} >={bound}" for name, _, bound in named}
    assert there == ours | {f"python {project['requires-python']}"}
    points = [f"{name} = {place}" for name, place in project["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == points
    assert recipe["about"]["summary"] == project["description"]


def test_every_python_that_is_named_is_allowed(project: Any) -> None:
    named = [line for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert [line.rpartition("3.")[2] for line in named] == ["11", "12", "13", "14"]
    assert project["requires-python"] == ">=3.11"


def test_recipe_and_citation_are_of_one_version(recipe: Any, project: Any) -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == recipe["context"]["version"]
    assert cited["license"] == recipe["about"]["license"] == project["license"]


def test_links_of_the_papers_lead_somewhere() -> None:
    for page in (ROOT / ".github").rglob("*.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)


def test_the_image_is_built_of_what_git_knows() -> None:
    """A tracked file that is left out would make the version one of a changed checkout."""
    git, image = ((ROOT / name).read_text().split() for name in (".gitignore", ".dockerignore"))
    assert {line.removeprefix("**/") for line in image} < {line.strip("/") for line in git}


def test_the_container_compiles_kernels_where_its_users_find_them() -> None:
    lines = (ROOT / "Containerfile").read_text().splitlines()
    assert any(line.startswith("RUN theta install --warm") for line in lines)
    (entry,) = [line for line in lines if line.startswith("ENTRYPOINT ")]
    assert json.loads(entry.removeprefix("ENTRYPOINT ")) == ["theta"]
