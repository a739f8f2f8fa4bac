"""Files that pages show: each is of the schema of what reads it, and names what is there."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import Block
from tests.docs.shown import tracked
from tests.integrations.test_schemas import check
from tests.support.environment import ROOT
from theta.cli import catalogue
from theta.engine import executors
from theta.porcelain.check import check_rules

INTEGRATIONS = ROOT / "theta" / "integrations"


@pytest.mark.page("checking", "toml")
def test_budgets_are_read(page_blocks: list[Block], tmp_path: Path) -> None:
    (block,) = page_blocks
    (tmp_path / check_rules.FILE).write_text(block.text)
    found = check_rules.of_file(tmp_path)
    table = tomllib.loads(block.text)["check"]
    assert found.frozen == tuple(table["frozen"])
    assert found.budgets == table["max-change"]
    assert found.size == 200_000_000
    assert found.is_ignored("zero", "m", "x.adapter_up.y")


@pytest.mark.page("checking", "yaml")
def test_hooks_of_pre_commit_are_there(page_blocks: list[Block]) -> None:
    (block,) = page_blocks
    known = {hook["id"] for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
    (source,) = yaml.safe_load(block.text)["repos"]
    assert set(source) == {"repo", "rev", "hooks"}
    assert {hook["id"] for hook in source["hooks"]} == known


@pytest.mark.page("reviews", "yaml")
def test_workflows_are_of_their_schemas(page_blocks: list[Block], tmp_path: Path) -> None:
    github, gitlab = (yaml.safe_load(block.text) for block in page_blocks)
    for number, schema in enumerate(("vendor.github-workflows", "vendor.gitlab-ci")):
        (tmp_path / "file.yml").write_text(page_blocks[number].text)
        done = check(schema, tmp_path / "file.yml")
        assert done.returncode == 0, done.stdout
    (step,) = [step for step in github["jobs"]["review"]["steps"] if "theta" in step["uses"]]
    assert set(step["with"]) <= set(inputs("github/action.yml"))
    (component,) = gitlab["include"]
    assert set(component["inputs"]) <= set(inputs("gitlab/theta.yml"))


def inputs(name: str) -> dict[str, Any]:
    """The inputs of the action, or of the component, whose header is a document of its own."""
    found: Any = next(yaml.safe_load_all((INTEGRATIONS / name).read_text()))
    declared: dict[str, Any] = found["spec"]["inputs"] if "spec" in found else found["inputs"]
    return declared


@pytest.mark.page("containers", "dockerfile")
def test_the_image_is_made_of_what_there_is(page_blocks: list[Block]) -> None:
    """Commands are the shell's, the package is this one, and the variable is what numba reads."""
    (block,) = page_blocks
    lines = [line.split(" ", 1) for line in block.text.splitlines()]
    assert {word for word, _ in lines} == {"FROM", "RUN", "ENV"}
    for _, command in (line for line in lines if line[0] == "RUN"):
        assert subprocess.run(["bash", "-n", "-c", command], check=False).returncode == 0
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"pip install --no-cache-dir {project['name']}\n" in block.text
    ours = (ROOT / "Containerfile").read_text()
    for line in ("NUMBA_CACHE_DIR=/opt/theta", "RUN theta install --warm"):
        assert line in block.text
        assert line in ours


@pytest.mark.page("cluster", "console")
def test_engines_are_known(page_blocks: list[Block], tmp_path: Path) -> None:
    """The first line runs; a scheduler and ranks are in ``tests/engine``, by the same words."""
    repo = tracked(tmp_path / "repo")
    lines = [line for block in page_blocks for line in block.commands]
    for line in lines:
        engine, command = re.search(r"theta --engine (\S+) (\S+)", line).groups()  # type: ignore[union-attr]
        assert executors.engine_of(engine) is not None
        assert any(command in commands for commands in catalogue.COMMANDS.values())
    repo.theta(*lines[0].split()[1:])
    assert lines[2].split()[3:7] == ["python", "-m", "mpi4py.futures", "-m"]


@pytest.mark.page("cluster", "python")
def test_the_sketch_for_slurm_is_python(page_blocks: list[Block]) -> None:
    """It needs a queue; ``tests/engine`` uses a cluster of Dask on this machine."""
    (block,) = page_blocks
    names = {node.id for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.Name)}
    assert names == {"SLURMCluster", "cluster", "print"}
