"""Names that mean harm, in each command that writes: nothing outside of the worktree, nothing executed."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.inprocess import theta
from tests.compat.nasty import NAMES, Box, base, hostile
from tests.compat.story import MODEL, TENSOR, edit
from theta.cli.catalogue import COMMANDS

READERS = (
    *(
        "completion",
        "ls-files",
        "status",
        "runs",
        "cat",
        "blame",
        "du",
        "scan",
        "help",
    ),
)
"""Commands that write nothing."""

LINES: dict[str, tuple[str, ...]] = {
    "init": ("init -q -b NAME ../into/new", "init -q"),
    "clone": (
        "clone -q --branch hostile ../up.git ../into/c",
        "clone -q --lazy --branch store ../up.git ../into/c",
    ),
    "demo": (),
    "install": ("install",),
    "uninstall": ("uninstall",),
    "track": ("track -- NAME",),
    "untrack": ("untrack -- NAME",),
    "add": ("add -- NAME", "add -A"),
    "rm": ("rm -q -- NAME",),
    "mv": (f"mv -- {MODEL} NAME",),
    "restore": (
        "restore -q --source hostile -- .",
        "restore -q --source hostile -SW -- NAME",
        "restore -q --source store -- .",
    ),
    "convert": (
        "convert -o into.npz -- hostile:NAME",
        "convert --max-shard-size 1kB -o s/m.safetensors store:evil.safetensors",
    ),
    "migrate": ("migrate raw -- NAME", "migrate raw --all-history -- NAME"),
    "export-history": ("export-history --as raw",),
    "export": ("export -o into.safetensors -- hostile:NAME", "export -- hostile:NAME"),
    "fsck": ("fsck --mend",),
    "gc": ("gc -q --prune=now",),
    "doctor": ("doctor --fix",),
    "commit": ("commit -qam NAME", "commit -q -m x -- NAME"),
    "branch": ("branch -q -- NAME", "branch -q -m -- main NAME"),
    "tag": ("tag -m x -- NAME",),
    "switch": ("switch -q hostile", "switch -q store", "switch -q -- NAME"),
    "checkout": ("checkout -q hostile", "checkout -q hostile -- NAME", "checkout -q store -- ."),
    "reset": ("reset -q --hard hostile", "reset -q --hard store"),
    "merge": (
        "merge -q --no-edit -m NAME hostile",
        "merge -q --no-ff --no-edit store",
        "merge --dry-run --html o.html hostile",
    ),
    "resolve": ("resolve -X ours -- NAME",),
    "cherry-pick": ("cherry-pick hostile", "cherry-pick store"),
    "revert": ("revert --no-edit hostile",),
    "rebase": ("rebase -q hostile", "rebase -q --onto store hostile"),
    "average": ("average main hostile --path NAME --commit -m NAME",),
    "cascade": ("cascade main~..main hostile store", "cascade main~..main -- NAME"),
    "lineage": ("lineage --svg out.svg hostile -- NAME",),
    "undo": ("undo",),
    "extract-lora": ("extract-lora main..hostile -o out -- NAME",),
    "fetch": ("fetch -q origin -- NAME", "fetch -q -- NAME"),
    "pull": ("pull -q --no-edit origin hostile", "pull -q --no-rebase --no-edit origin store"),
    "push": ("push -q origin -- NAME", "push -q -- NAME"),
    "build-moe": ("build-moe main hostile --base main --path NAME --commit -m NAME",),
    "check": ("check -- NAME", "check hostile", "check --sarif out.sarif --junit out.xml hostile"),
    "sign": ("sign -o NAME", "sign --key NAME hostile", "sign --key NAME -o out.sig hostile"),
    "verify": ("verify hostile", "verify --worktree", "verify --key NAME --signature NAME hostile"),
    "diff": ("diff --html out.html main hostile", "diff --md main hostile -- NAME"),
    "show": ("show --html out.html hostile", "show --md hostile:NAME"),
    "log": ("log --html out.html hostile", "log --md hostile -- NAME"),
    "bundle": ("bundle create out.bundle main..hostile", "bundle apply NAME"),
    "prune-local": ("prune-local -- NAME", "prune-local"),
    "apply": ("apply hostile --into ../into/folder", "apply store --into ../into/folder -- NAME"),
    "follow": ("follow --once --into ../into/folder --repository ../into/r -- ../up.git NAME",),
}
"""Lines of each command that writes; NAME stands for the name."""


def test_each_command_that_writes_is_here() -> None:
    assert {name for group in COMMANDS.values() for name in group} - {*READERS} == {*LINES}
    assert len({*NAMES}) == len(NAMES) >= 80


@pytest.fixture(scope="module")
def pwn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A program that many of the names name; it leaves the file ``pwn.ran`` beside it."""
    program = tmp_path_factory.mktemp("pwn") / "bin/pwn"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(program.parent), prepend=":")
        yield program


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, pwn: Path) -> Box:
    return base(tmp_path_factory.mktemp("box"), pwn)


def harms(box: Box, pwn: Path, name: str, line: str) -> list[object]:
    """Run ``theta LINE`` with ``name``; return what was wrong: outside, executed, or badly told."""
    edit(box.repo, TENSOR)
    words = [word.replace("NAME", name) for word in line.split(" ")]
    before = box.outside()
    try:
        done = theta(box.repo, *words, code=None)
    except Exception as error:
        return [words, repr(error)]
    after = box.outside()
    found: list[object] = [
        place for place in before.keys() | after.keys() if before.get(place) != after.get(place)
    ]
    if line.startswith(("init", "install", "uninstall", "track", "clone")):
        found = [place for place in found if "/.git" not in str(place)]
    told = done.out + done.err
    found += [sign for sign in ("Traceback", "bug in theta", *"\x1b\x07\x08\r\u202e") if sign in told]
    if Path(f"{pwn}.ran").exists():
        Path(f"{pwn}.ran").unlink()
        found.append("executed")
    return [words, *found, done] if found else []


def test_what_is_harmful_is_seen(box: Box, pwn: Path, tmp_path: Path) -> None:
    """A line that writes outside, one that runs the program, and one that git's own settings run it by."""
    lines = ("bundle create ../outside/NAME main", "-c alias.x=!pwn x", "-c core.fsmonitor=pwn status")
    for number, line in enumerate(lines):
        assert harms(box.copy(tmp_path / str(number)), pwn, "x", line), line


def all_lines() -> list[str]:
    return [line for some in LINES.values() for line in some]


def test_each_name_once_and_each_command_once(box: Box, pwn: Path, tmp_path: Path) -> None:
    for number, (name, line) in enumerate(zip(NAMES, itertools.cycle(all_lines()), strict=False)):
        place = tmp_path / str(number)
        assert not harms(hostile(box, name, place), pwn, name, line)
        shutil.rmtree(place)


def test_a_word_behind_the_end_of_options_is_no_option_of_a_git_that_theta_asks(
    box: Box, pwn: Path, tmp_path: Path
) -> None:
    """A checkout that failed looked for what it had done with ``git diff-index --output=FILE``."""
    name = "--output=../outside/precious"
    assert not harms(hostile(box, name, tmp_path / "there"), pwn, name, "checkout -q hostile -- NAME")


@pytest.mark.campaign
@pytest.mark.parametrize("number", range(len(NAMES)), ids=lambda number: ascii(NAMES[number][:30]))
def test_each_name_in_each_command(box: Box, pwn: Path, tmp_path: Path, number: int) -> None:
    """The lines of a command take turns with the names."""
    there, found = hostile(box, NAMES[number], tmp_path / "hostile"), []
    for command, lines in LINES.items():
        if lines:
            place = there.copy(tmp_path / command)
            found += harms(place, pwn, NAMES[number], lines[number % len(lines)])
            shutil.rmtree(place.place)
    assert not found
