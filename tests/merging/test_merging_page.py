"""theta/docs/merging.md says what the code does: its table is generated, its examples are read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from theta.merging import recipe_files, recipes
from theta.merging.strategies import Info, Parameter, describe, parse, registry
from theta.merging.strategies.parameter_text import text
from theta.merging.strategies.strategy import SIDES

PAGE = Path(__file__).parents[2] / "theta" / "docs" / "merging.md"


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


@pytest.mark.parametrize("language", ["yaml", "text"])
def test_examples_are_read(language: str) -> None:
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        if language == "yaml":
            file = recipe_files.load(block.encode(), "page")
            found = file.recipe() if file.is_joining else recipes.Recipe()
            assert recipes.from_text(found.text()) == found
            continue
        for line in block.splitlines():
            if line.startswith("-"):
                assert recipes.from_text(line).text() == line
            else:
                assert str(parse(line)) == line
