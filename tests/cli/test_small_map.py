"""The map that ``theta diff --stats`` ends with: where in the model the change is, and how large."""

from __future__ import annotations

import re

import pytest
from rich.cells import cell_len
from rich.color import Color
from rich.table import Table

from tests.support import Repo, make_model, random_tensors
from theta.cli import map_marks, screen, small_map
from theta.cli.map_marks import ASCII, BLOCKS, MapMarks
from theta.cli.name_folding import folded, shortened

MODEL = "model.safetensors"
NAMES = [
    f"model.layers.{k}.{kind}.weight"
    for k in range(8)
    for kind in ("mlp.up_proj", "attn.q_proj", "input_layernorm")
]


def drawn(values: dict[str, float | None], width: int = 80, marks: MapMarks = BLOCKS) -> list[str]:
    same = [name for name in NAMES if name not in values]
    return list(small_map.lines(values, same, width, marks, in_colours=False))


def row(found: list[str], name: str) -> str:
    (line,) = [line for line in found if line.startswith(f"{name} ")]
    return line.removeprefix(name).lstrip(" ")


def test_layers_that_did_not_change_keep_their_columns() -> None:
    found = drawn({"model.layers.5.mlp.up_proj.weight": 0.5, "model.layers.6.mlp.up_proj.weight": 0.001})
    assert row(found, "mlp.up_proj.weight") == "··········██░░··"
    assert row(found, "layers 0 to 7").startswith("··········██")
    assert "(2 more kinds are unchanged in all layers)" in found


def test_the_legend_names_what_is_there() -> None:
    changed: dict[str, float | None] = dict.fromkeys(NAMES, 0.1)
    assert drawn(changed)[0] == "█ 10%"
    changed[NAMES[0]] = 0.0001
    assert drawn(changed)[0] == "░░▒▒▓▓██ 0.01% to 10% (logarithmic)"
    odd = drawn({NAMES[0]: float("nan"), NAMES[1]: None, NAMES[2]: 0.1})
    assert odd[:2] == ["· unchanged  █ 10%", "? no number  ! not finite"]
    assert row(odd, "mlp.up_proj.weight").startswith("!!··")
    assert row(odd, "attn.q_proj.weight").startswith("??··")


def test_more_layers_than_columns_share_them() -> None:
    many: dict[str, float | None] = {f"h.{k}.mlp.weight": 1.0 + k for k in range(200)}
    found = list(small_map.lines(many, ["h.200.mlp.weight"], 60, in_colours=False))
    assert all(cell_len(line) <= 60 for line in found)
    assert found[-1] == "5 layers share a column, which shows the largest change."
    assert row(found, "layers 0 to 200").endswith("█·")


@pytest.mark.parametrize("marks", [BLOCKS, ASCII])
def test_more_change_looks_like_more(marks: MapMarks) -> None:
    """The mark never gets lighter, with colours either; these are legible on black and on white."""
    scale = map_marks.MapScale(marks, 1e-5, 1.0, in_colours=True)
    cells = [scale.cell(10 ** (k / 10), 1) for k in range(-50, 1)]
    found = [marks.shades.index(re.sub(r"\x1b\[[\d;]*m", "", cell)) for cell in cells]
    assert found == sorted(found)
    assert set(found) == {0, 1, 2, 3}
    for cell in cells:
        (number,) = re.findall(r"38;5;(\d+)m", cell)
        red, green, blue = (channel / 255 for channel in Color.from_ansi(int(number)).get_truecolor())
        light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
        assert (light + 0.05) / 0.05 >= 3
        assert 1.05 / (light + 0.05) >= 3


def test_an_output_without_blocks_gets_letters() -> None:
    assert "".join(drawn({NAMES[0]: 1.0, NAMES[1]: 0.1}, marks=ASCII)).isascii()


def test_tables_have_no_empty_column(capsys: pytest.CaptureFixture[str]) -> None:
    """``theta merge --dry-run`` had two, of strategies and of new bytes, where nothing is in conflict."""
    for rows, heads in (
        ([("a", "", "")], "tensor"),
        ([("a", "", "x"), ("b", "", "")], "tensor size"),
        ([], ""),
    ):
        table = Table(box=None, pad_edge=False)
        for name in ("tensor", "by", "size"):
            table.add_column(name)
        for row in rows:
            table.add_row(*row)
        screen.show(table)
        first, *rest = capsys.readouterr().out.split("\n")
        assert first.split() == (heads.split() or ["tensor", "by", "size"])
        assert [line.split() for line in rest if line] == [list(filter(None, row)) for row in rows]


LONG = "encoder.layer.attention.output.LayerNorm.with.a.rather.long.name.weight"


def test_names_are_cut_behind_dots() -> None:
    first, rest = "encoder.layer.", "attention.output.LayerNorm.with.a.rather.long.name.weight"
    assert folded(LONG, 30) == [f"{first}attention.", "output.LayerNorm.with.a.", "rather.long.name.weight"]
    assert folded(LONG, 20, 60) == [first, rest]
    assert folded("a" * 25, 10) == ["a" * 10, "a" * 10, "a" * 5]
    assert folded("", 10) == [""]
    assert shortened([LONG], 30) == ["…a.rather.long.name.weight"]
    both = [f"{first}.attention.output.dense.weight" for first in ("encoder", "decoder")]
    assert shortened(both, 25) == ["encoder.…dense.weight", "decoder.…dense.weight"]
    assert shortened(["x" * 40], 10) == ["…" + "x" * 9]


def test_no_table_cuts_a_name_inside_a_word(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every word of a name is whole in what is printed at 80 columns and fewer."""
    repo = Repo.create(tmp_path_factory.mktemp("cut") / "repo")
    repo.theta("track", "*.safetensors")
    for seed in range(2):
        names = [LONG.replace("layer", f"layer.{k}") for k in range(3)]
        make_model(repo.path / MODEL, random_tensors(dict.fromkeys(names, (4, 4)), seed))
        repo.theta("add", ".")
        repo.theta("commit", "-q", "-m", str(seed))
    lines = (["diff", "HEAD~", "HEAD"], ["diff", "--stats", "HEAD~", "HEAD"], ["merge", "--dry-run", "side"])
    repo.git("branch", "side")
    repo.git("reset", "-q", "--hard", "HEAD~")
    repo.git("commit", "-q", "--allow-empty", "-m", "empty")
    for line in (*lines, ["show", "--codecs", f"side:{MODEL}"], ["blame", f"side:{MODEL}"]):
        line = [word.replace("HEAD", "side") for word in line]
        for width in (50, 60, 80):
            text = repo.theta(*line, env={"COLUMNS": str(width)}).stdout
            words = set(re.findall(r"[A-Za-z]+", text))
            assert set(re.findall("[A-Za-z]+", LONG)) <= words, (line, width)
            assert not words & {"Laye", "rNorm", "attentio", "enco", "der", "weigh"}, (line, width)
