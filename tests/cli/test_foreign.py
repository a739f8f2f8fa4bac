"""Foreign text on a terminal: names of tensors and files come from others, and are shown, not obeyed."""

from __future__ import annotations

import json
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.checks import on_terminal
from tests.support import Repo, make_model
from theta.cli.screen import markup
from theta.git.quoting import quoted, visible, visible_line

EVIL = (
    "\x1b]0;owned\x07",  # sets the title
    "\x1b[2J\x1b[31m",  # clears the screen
    "\x9b31m",  # the same in one character of C1
    "a\nerror: forged",
    "over\rwritten\b\b",
    "nul\x00del\x7f",
    "\u202egnp.exe\u2066",
    "zero\u200bwidth\ufeff\u2060",
    "tag\U000e0041",
    "[bold red]markup[/] :heart:",
)
HIDDEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
SGR = re.compile(r"\x1b\[[0-9;]*m")


@given(st.text())
def test_what_is_visible_is_one_line_that_no_terminal_obeys(text: str) -> None:
    shown = visible(text)
    assert not HIDDEN.search(shown)
    assert "\n" not in shown
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert visible(shown) == shown
    assert shown.encode().decode() == shown


@given(
    st.text(
        st.characters(
            categories=["L", "N", "P", "S", "Zs"], exclude_characters="\u115f\u1160\u2800\u3164\uffa0"
        )
    )
)
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_escapes() -> None:
    assert visible("a\x1b[0m\n\x9b\u202e\U000e0041\udcff\ud800") == (
        r"a\x1b[0m\n\x9b\u202e\U000e0041\xff\ud800"
    )
    assert visible("x\ufe0f \u2800\ufe01") == r"x\ufe0f \u2800\ufe01"
    assert visible("\u26a1\ufe0f 1\ufe0f\u20e3") == "\u26a1\ufe0f 1\ufe0f\u20e3"
    assert visible_line("\t\ta\tb") == "\t\ta\\tb"
    assert markup("[red]x\x1b") == "\\[red]x\\x1b"


def test_paths_are_quoted_as_git_quotes_them(repo: Repo) -> None:
    for name in (
        "plain",
        'quo"te',
        "back\\slash",
        "tab\there",
        "line\nfeed",
        "\x01\x7f",
        "wei\u200b\ufeffrd",
    ):
        repo.write(name, "")
        told = repo.git("status", "--porcelain", "--", f":(literal){name}")
        assert f"?? {quoted(name)}" == told
        (repo.path / name).unlink()


@pytest.fixture
def hostile(repo: Repo) -> Repo:
    """A repository whose tensors have hostile names, and a merge that is in conflict over them."""
    repo.theta("track", "*.safetensors")
    write(repo, 0.0)
    repo.theta("add", ".")
    repo.theta("commit", "-m", "base \x1b]0;owned\x07")
    repo.theta("switch", "-c", "side")
    write(repo, 1.0)
    repo.theta("commit", "-am", "side")
    repo.theta("switch", "main")
    write(repo, 2.0)
    repo.theta("commit", "-am", "main")
    return repo


def write(repo: Repo, value: float) -> None:
    tensors = {name: np.full((4, 4), value + i, np.float32) for i, name in enumerate(EVIL)}
    make_model(repo.path / PATH, tensors)


PATH = "mo\x1b]0;owned\x07del\u202e\n[bold]x[/].safetensors"
FIRST = EVIL[0]
COMMANDS: dict[str, list[str]] = {
    "diff": ["diff", "HEAD~", "HEAD"],
    "diff --stats": ["diff", "--stats", "HEAD~", "HEAD"],
    "show commit": ["show", "HEAD"],
    "show checkpoint": ["show", f"HEAD:{PATH}"],
    "show tensor": ["show", f"HEAD:{PATH}#{FIRST}"],
    "show --codecs": ["show", "--codecs", f"HEAD:{PATH}"],
    "status": ["status"],
    "log": ["log", "--stat"],
    "ls-files": ["ls-files"],
    "blame": ["blame", "no such\x1b[31m"],
    "scan": ["scan", "HEAD"],
    "fsck": ["fsck"],
    "no tensor": ["cat", f"HEAD:{PATH}#no\x1b]0;owned\x07\u202e"],
    "no file": ["cat", "HEAD:no\x1b]0;owned\x07\u202e#x"],
    "no revision": ["show", "--codecs", "no\x1b]0;owned\x07\u202e:x"],
    "no option": ["add", "--\x1b]0;owned\x07"],
    "merge --dry-run": ["merge", "--dry-run", "side"],
    "merge": ["merge", "side"],
}


def obeyed(shown: str) -> list[str]:
    """Return the control sequences in ``shown``, without theta's own styling and the line ends."""
    plain = SGR.sub("", shown).replace("\r\n", "\n").replace("\r\x1b[K", "")
    return HIDDEN.findall(plain)


def test_d1_no_command_passes_foreign_control_characters_on(hostile: Repo) -> None:
    found = {}
    for name, args in COMMANDS.items():
        done = hostile.theta(*args, code=None)
        if obeyed(done.stdout + done.stderr):
            found[name] = done.stdout + done.stderr
        assert "this is a bug" not in done.stderr, name
    assert found == {}
    told = hostile.theta("status").stdout
    assert "in conflict" in told
    assert visible(FIRST) in told
    assert "[bold]x[/]" in told


def test_d1_what_is_shown_in_a_table_is_the_name(hostile: Repo) -> None:
    """Brackets are no markup, colons no emoji, and a line feed makes no line."""
    told = hostile.theta("diff", "HEAD~", "HEAD", env={"COLUMNS": "300"}).stdout
    for name in EVIL:
        assert visible(name) in told
    assert "\nerror: forged" not in told


def test_d1_on_a_terminal(hostile: Repo) -> None:
    """An OSC sequence in a name set the title of the terminal; this is in a pty, the prompt too."""
    for name in ("diff --stats", "merge --dry-run", "no tensor"):
        shown = on_terminal(hostile, *COMMANDS[name])
        assert obeyed(shown) == [], name
    assert SGR.search(on_terminal(hostile, "diff", "HEAD~", "HEAD")), "theta's own styling is kept"
    asked = on_terminal(hostile, "merge", "side", keys=b"?\nnonsense\x1b[31m\nq\n")
    assert visible(FIRST) in asked
    asked = re.sub(r"theta> [^\n]*", "", asked)  # what was typed is echoed by the terminal itself
    assert obeyed(asked.replace("\x1b[?2004h", "").replace("\x1b[?2004l\r", "")) == []


OF_GIT = {
    "patches": ["log", "-p"],
    "patch": ["diff", "-p", "HEAD~", "HEAD", "--no-ext-diff", "-U3", "--", "text"],
    "message": ["show", "-s", "HEAD"],
    "no command of theta": ["range-diff", "--color=never", "HEAD~2..HEAD~", "HEAD~2..HEAD"],
    "colours": ["log", "-p", "--color=always"],
}


@pytest.mark.parametrize(
    "settings",
    [
        {"GIT_PAGER": "cat"},
        {"GIT_PAGER": "sed 's/^/paged:/'"},
        {"GIT_CONFIG_PARAMETERS": "'pager.log=false'"},
    ],
)
def test_d1_what_git_prints_on_a_terminal(hostile: Repo, settings: dict[str, str]) -> None:
    """Diffs of manifests, other files and messages hold C1, bidirectional and invisible characters."""
    hostile.write("text", "".join(re.sub("[\n\0]", "", name) + "\n" for name in EVIL))
    hostile.theta("add", "text")
    hostile.theta("commit", "-m", "".join(EVIL[:3]) + EVIL[6] + EVIL[7])
    for name, args in list(OF_GIT.items())[: 1 if settings != {"GIT_PAGER": "cat"} else None]:
        shown = on_terminal(hostile, *args, env=settings)
        assert obeyed(shown.replace("\x1b[m", "").replace("\x1b[K", "").replace("\t", "")) == [], name
        assert visible(EVIL[6]) in shown, name
        assert ("paged:" in shown) == ("sed" in settings.get("GIT_PAGER", "")), name
    assert EVIL[6] in hostile.theta("log", "-p").stdout, "a pipe gets what git prints"


def test_json_says_what_the_names_are(hostile: Repo) -> None:
    """A format for programs has an encoding of its own."""
    told = hostile.theta("diff", "--json", "HEAD~", "HEAD").stdout
    assert not HIDDEN.search(told)
    (item,) = json.loads(told)["theta.diff/v1"]
    assert item["path"] == PATH
    assert {row["name"] for row in item["tensors"]} >= set(EVIL) - {EVIL[0]}


def test_nul_separates_paths_as_they_are(hostile: Repo) -> None:
    assert hostile.theta("ls-files", "-z").stdout == f"{PATH}\0"
    assert hostile.theta("ls-files").stdout == f"{quoted(PATH)}\n"
