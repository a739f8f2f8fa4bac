"""An editor has the terminal, even where theta reads what git prints."""

from __future__ import annotations

import os
import pty
import sys
import time
from pathlib import Path

import pytest

from tests.support import Repo
from tests.support.terminals import is_readable
from theta.porcelain.drive import editors

_EDITOR = """\
#!/bin/sh
[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo "on a terminal" >> {told}
echo "for $1"; echo "by the editor" > "$1"
"""


@pytest.fixture
def editor(tmp_path: Path) -> Path:
    """An editor that writes into ``told`` when it has the terminal."""
    place = tmp_path / "my editor"
    place.write_text(_EDITOR.format(told=tmp_path / "told"))
    place.chmod(0o755)
    return place


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """A repository of two commits."""
    repo = Repo.create(tmp_path / "repo")
    repo.write("a.txt", "a\n")
    repo.git("add", "a.txt")
    repo.git("commit", "-q", "-m", "a")
    return repo


def on_a_terminal(repo: Repo, *args: str, env: dict[str, str]) -> str:
    """Run ``theta ARGS`` on a terminal of its own; return what it prints."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(repo.path)
        environment = {name: value for name, value in os.environ.items() if name != "GIT_EDITOR"}
        os.execvpe(sys.executable, [sys.executable, "-m", "theta", *args], environment | env)
    printed, until = b"", time.monotonic() + 60
    while time.monotonic() < until and is_readable(terminal, 60):
        try:
            printed += os.read(terminal, 4096)
        except OSError:  # Linux says so when the other end is closed
            break
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, printed
    return printed.decode()


@pytest.mark.parametrize("how", ["GIT_EDITOR", "core.editor", "VISUAL"])
def test_the_editor_of_a_revert_has_the_terminal(repo: Repo, tmp_path: Path, editor: Path, how: str) -> None:
    env = {"TERM": "xterm"} | ({how: f"'{editor}'"} if how.isupper() else {})
    if how == "core.editor":
        repo.git("config", "core.editor", f"'{editor}'")
    printed = on_a_terminal(repo, "revert", "HEAD", env=env)
    assert (tmp_path / "told").read_text() == "on a terminal\n"
    assert "for " in printed
    assert repo.git("log", "-1", "--format=%s") == "by the editor"


def test_an_editor_without_a_terminal_keeps_its_streams(repo: Repo, editor: Path) -> None:
    told = repo.theta("revert", "-e", "HEAD", env={"GIT_EDITOR": f"'{editor}'"})
    assert "for " in told.stdout
    assert repo.git("log", "-1", "--format=%s") == "by the editor"


def test_the_list_of_a_rebase_opens_in_its_own_editor(repo: Repo, editor: Path) -> None:
    repo.git("config", "sequence.editor", "sed -i s/^pick/reword/")
    on_a_terminal(repo, "rebase", "-i", "HEAD~1", env={"GIT_EDITOR": f"'{editor}'"})
    assert repo.git("log", "-1", "--format=%s") == "by the editor"


def test_no_editor_stays_none() -> None:
    assert editors.on_terminal({"GIT_EDITOR": ":"}) == {}
