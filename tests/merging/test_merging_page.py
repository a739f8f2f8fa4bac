"""theta/docs/merging.md says what the code does: its table is generated, its examples are read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, Block
from tests.docs.shown import MODEL, run_all, tracked
from tests.support import make_model, random_tensors
from theta.merging import recipe_files, recipes
from theta.merging.alignment import specs
from theta.merging.strategies import Info, Parameter, describe, parse, registry
from theta.merging.strategies.parameter_text import text
from theta.merging.strategies.strategy import SIDES

PAGE = DOCS / "merging.md"


def shown(parameter: Parameter) -> str:
    """``density=1*``: the default, and a star where each side has its own."""
    default = parameter.default
    value = "" if default is None else f"={text(float(default) if type(default) is int else default)}"
    return f"`{parameter.name}{value}`" + ("*" if parameter.per_model else "")


def row(info: Info) -> str:
    """A strategy's row of the table."""
    sides = str(info.min_inputs) if info.max_inputs == info.min_inputs else "any"
    base = "needed" if info.needs_base else "-"
    parameters = ", ".join(map(shown, info.parameters)) or "-"
    return f"| `{info.name}` | {info.summary.replace('|', chr(92) + '|')} | {sides} | {base} | {parameters} |"


def test_the_table_is_that_of_the_code() -> None:
    lines = PAGE.read_text().splitlines()
    wanted = [row(describe(name)) for name in (*SIDES, *registry.BUILT_IN)]
    start = lines.index(wanted[0]) if wanted[0] in lines else -1
    assert lines[start : start + len(wanted)] == wanted, "\n".join(wanted)


def test_every_parameter_is_explained() -> None:
    page = PAGE.read_text()
    for name in registry.BUILT_IN:
        for parameter in describe(name).parameters:
            assert re.search(rf"^- `{parameter.name}`", page, re.MULTILINE), parameter.name


@pytest.mark.page("merging", "yaml")
def test_recipe_files_are_read(page_blocks: list[Block]) -> None:
    for block in page_blocks:
        file = recipe_files.load(block.text.encode(), "page")
        found = file.recipe() if file.is_joining else recipes.Recipe()
        assert recipes.from_text(found.text()) == found


@pytest.mark.page("merging", "text")
def test_strategies_are_read(page_blocks: list[Block]) -> None:
    for line in (line for block in page_blocks for line in block.text.splitlines()):
        if line.startswith("-"):
            assert recipes.from_text(line).text() == line
        else:
            assert str(parse(line)) == line


@pytest.mark.page("merging", "console")
def test_a_merge_is_aligned(tmp_path: Path, page_blocks: list[Block]) -> None:
    repo = tracked(tmp_path / "repo")
    for seed, name in enumerate(("main", "other")):
        repo.git("switch", "-q", *(["-c", "other", "HEAD~"] if seed else ["main"]))
        chain = dict.fromkeys(("layers.0.weight", "layers.1.weight"), (16, 16))
        make_model(repo.path / MODEL, random_tensors(chain, seed))
        repo.theta("commit", "-q", "-am", name)
    repo.git("switch", "-q", "main")
    run_all(repo, page_blocks)
    assert "--align weights" in repo.git("log", "-1")


@pytest.mark.page("merging", "toml")
def test_the_file_of_units_is_read(page_blocks: list[Block]) -> None:
    (block,) = page_blocks
    spec = specs.parsed(specs.canonical(block.text))
    shapes = {f"blocks.0.attn.{name}.weight": (16, 16) for name in ("query", "out")}
    shapes |= {"blocks.0.attn.key.weight": (4, 16), "blocks.0.attn.value.weight": (4, 16)}
    shapes |= {"blocks.0.up.weight": (32, 16), "blocks.0.down.weight": (16, 32), "embed.weight": (9, 16)}
    assert len(specs.layout(shapes, spec, None).axes) == len(tomllib.loads(block.text)["axes"])
