"""Untracked files in the way: theta's commands refuse what git refuses in a clone that is not sparse.

Each command runs in a clone with theta and in a plain clone without; exit codes and git's words are the same.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.compat.inprocess import theta
from tests.compat.story import new_model, run_either
from tests.support import Repo
from tests.support.repos import Done, describe
from theta import _fs
from theta.git.repository import Repository
from theta.porcelain.drive import incoming
from theta.porcelain.drive.overwrites import obstacles

MINE: Final = "mine, and nowhere else\n"
PLAIN: Final = (
    "switch other",
    "merge --no-ff other",
    "cherry-pick files",
    "rebase third five",
    "reset --keep other",
    "stash pop",
)
"""The kinds of files in the way that plain git is tried with."""
SHAPES: Final = (("checkpoint",), ("exact", "link for folder"), ("folder for file", "file for folder"))
COMMANDS: Final = (
    "switch other",
    "checkout other",
    "merge other",
    "merge -X average other",
    "cherry-pick files",
    "rebase other",
    "rebase third five",
    "pull . other --no-rebase",
    "pull . other --rebase",
    "reset --keep other",
)
"""Those of A1, tried with every shape."""
MORE: Final = (
    "checkout -B new other",
    "checkout -b new other",
    "checkout --detach other",
    "checkout -m other",
    "checkout far",
    "checkout -",
    "-c advice.detachedHead=false checkout other",
    "co other",
    "merge --ff-only other",
    "merge --no-ff other",
    "merge --squash other",
    "merge third other",
    "cherry-pick -n files",
    "cherry-pick base..other",
    "revert gone",
    "rebase --onto other base third",
    "pull . other --ff-only",
    "reset --merge other",
    "stash pop",
    "stash apply stash@{0}",
    "am ../files.patch",
    "am -3 ../files.patch",
    "read-tree -m -u HEAD other",
)
"""Tried with one shape each."""
STARTS: Final = {"merge --no-ff other": "third", "revert gone": "gone"}
"""The commands that start on a branch other than main."""


def put(repo: Repo, shape: str) -> Path:
    """Put a file of the user's own in the way of ``x.txt`` or of ``d/n.safetensors``."""
    match shape:
        case "exact":
            return repo.write("x.txt", MINE)
        case "checkpoint":
            return repo.write("d/n.safetensors", MINE)
        case "file for folder":
            return repo.write("d", MINE)
        case "folder for file":
            return repo.write("x.txt/inner/file", MINE)
    folder = repo.write(".git/elsewhere/file", MINE).parent
    (repo.path / "d").symlink_to(folder)
    return repo.path / "d" / "file"


def step(repo: Repo, name: str, *remove: str) -> None:
    """A commit that adds a file, or removes what ``remove`` names."""
    if remove:
        repo.git("rm", "-r", "-q", *remove)
    else:
        repo.write(name, name)
        repo.git("add", name)
    repo.git("commit", "-q", "-m", name)


def bring(repo: Repo) -> None:
    """Stage the text file and the checkpoint that come."""
    repo.write("x.txt", "theirs\n")
    (repo.path / "d").mkdir()
    shutil.copy(repo.path / "model.safetensors", repo.path / "d" / "n.safetensors")
    repo.git("add", "x.txt", "d")


@pytest.fixture(scope="module")
def crossing(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """``main`` lacks what ``other`` has; ``five`` added and removed it between its five commits."""
    repo = Repo.create(tmp_path_factory.mktemp("crossing") / "repo")
    repo.theta("track", "*.safetensors")
    new_model(repo)
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "model")
    repo.git("tag", "base")
    repo.git("checkout", "-q", "-b", "other")
    bring(repo)
    repo.git("commit", "-q", "-m", "files")
    repo.git("tag", "files")
    repo.git("format-patch", "-q", "-1", "--output", "../files.patch")
    step(repo, "o1")
    repo.git("checkout", "-q", "-b", "gone", "files")
    step(repo, "gone", "x.txt", "d")
    repo.git("checkout", "-q", "-b", "third", "base")
    step(repo, "t1")
    repo.git("checkout", "-q", "-b", "five", "base")
    for name in ("c1", "c2"):
        step(repo, name)
    bring(repo)
    repo.git("commit", "-q", "-m", "c3")
    step(repo, "c4", "x.txt", "d")
    step(repo, "c5")
    repo.git("checkout", "-q", "main")
    return repo


@pytest.fixture(scope="module")
def pair(crossing: Repo, tmp_path_factory: pytest.TempPathFactory) -> tuple[Repo, Repo]:
    """A clone with theta, and one of plain git, with a stash of the same files."""
    home = tmp_path_factory.mktemp("pair")
    shutil.copy(crossing.path.parent / "files.patch", home)
    plain = crossing.clone(home / "plain")
    ours = crossing.copy(home / "ours")
    ours.git("remote", "add", "origin", crossing.path.as_uri())
    ours.git("fetch", "-q", "origin")
    for repo in (plain, ours):
        for name in ("other", "third", "five", "gone"):
            repo.git("branch", "-f", name, f"origin/{name}")
        repo.git("update-ref", "refs/remotes/origin/far", "origin/other")
        repo.git("config", "alias.co", "checkout")
        repo.git("config", "advice.detachedHead", "false")
        bring(repo)
        repo.git("stash", "-q")
        repo.git("checkout", "-q", "other")
        repo.git("checkout", "-q", "main")
    return plain, ours


def words(done: Done) -> list[str]:
    """The lines in which git refuses, with its lists."""
    text = (done.stderr + done.stdout).replace("\r", "\n")
    said = r"^error: .*(?:overwritten|lose|already exists).*$|^\t(?!\.theta/).*$|^Please .*$|^Aborting$"
    return re.findall(said, text, re.M)


@pytest.mark.parametrize("command", [*COMMANDS, *MORE])
def test_a1_nothing_untracked_is_lost(pair: tuple[Repo, Repo], command: str, tmp_path: Path) -> None:
    """A1, G2: an untracked file, folder or link in the way is kept, by every command, in git's words."""
    refused(pair, "theta", command, SHAPES if command in COMMANDS else SHAPES[-1:], tmp_path)


@pytest.mark.parametrize("command", PLAIN)
def test_a1_nothing_untracked_is_lost_by_plain_git(
    pair: tuple[Repo, Repo], command: str, tmp_path: Path
) -> None:
    """The guard that git calls makes it check; and .theta/ stays out of the worktree afterwards."""
    refused(pair, "git", command, SHAPES[1:], tmp_path)


def refused(
    pair: tuple[Repo, Repo], program: str, command: str, rounds: Sequence[Sequence[str]], tmp_path: Path
) -> None:
    """Run ``command`` in both clones, with files in the way: nothing is lost, and git's words are said."""
    for shapes in rounds:
        home = tmp_path / shapes[0]
        plain, ours = pair[0].copy(home / "plain"), pair[1].copy(home / "ours")
        shutil.copy(pair[0].path.parent / "files.patch", home)
        if command in STARTS:
            plain.git("checkout", "-q", STARTS[command])
            ours.theta("checkout", "-q", STARTS[command])
        files = [put(repo, shape) for shape in shapes for repo in (plain, ours)]
        expected, done = plain.try_git(*command.split()), run_either(ours, program, *command.split())
        told = f"{shapes}\n{describe(expected)}\n{describe(done)}"
        assert all(file.read_text() == MINE for file in files) or command.startswith("am "), told
        assert done.returncode == expected.returncode, told
        assert words(done) == words(expected), told
        if done.returncode:
            assert ours.git("rev-parse", "HEAD^{tree}") == plain.git("rev-parse", "HEAD^{tree}"), told


def ignoring(ours: Repo, tmp_path: Path) -> Path:
    """A checkpoint that is ignored stands where another one comes."""
    repo = ours.copy(tmp_path / "ours")
    repo.write(".git/info/exclude", "*.safetensors\n*.txt\n")
    repo.write("x.txt", "of no worth: git overwrites what is ignored\n")
    repo.write("d/n.safetensors", MINE)
    return repo.path / "d" / "n.safetensors"


@pytest.mark.parametrize(
    "command", ["switch other", "merge other", "cherry-pick files", "rebase other", "stash pop"]
)
def test_a1_an_ignored_checkpoint_is_refused(pair: tuple[Repo, Repo], command: str, tmp_path: Path) -> None:
    """A1: what is ignored git overwrites, in any clone; a file that a tracked pattern matches is not lost."""
    file = ignoring(pair[1], tmp_path)
    repo = Repo(file.parent.parent, pair[1].ticks)
    done = repo.theta(*command.split(), code=1)
    assert "error: The following ignored checkpoints would be overwritten by" in done.stderr
    assert "\n\td/n.safetensors\nPlease move or remove them before you" in done.stderr
    assert "x.txt" not in done.stderr
    assert file.read_text() == MINE
    assert repo.git("status", "--porcelain") == ""
    repo.theta("cherry-pick", "third")
    repo.theta("checkout", "-qf", "other")
    assert (repo.path / "x.txt").read_text() == "theirs\n"


def test_a1_an_entry_of_the_stash_is_known_by_its_number(pair: tuple[Repo, Repo], tmp_path: Path) -> None:
    file = ignoring(pair[1], tmp_path)
    repo = Repo(file.parent.parent, pair[1].ticks)
    repo.write("code.py", "another entry\n")
    repo.git("stash", "-q")
    done = repo.theta("stash", "pop", "1", code=1)
    assert "\n\td/n.safetensors\nPlease move or remove them before you" in done.stderr
    assert file.read_text() == MINE


def test_a1_a_rebase_goes_on_when_the_file_is_moved(pair: tuple[Repo, Repo], tmp_path: Path) -> None:
    """A rebase of five commits stops at the third, whose file is in the way, and goes on."""
    repo = pair[1].copy(tmp_path / "ours")
    file = put(repo, "file for folder")
    done = repo.theta("rebase", "third", "five", code=1)
    assert "\td\nPlease move or remove them before you merge." in done.stderr
    again = repo.theta("rebase", "--continue", code=1)
    assert "\td\nPlease move or remove them before you merge." in again.stderr
    assert file.read_text() == MINE
    file.rename(repo.path / "kept")
    repo.theta("rebase", "--continue")
    assert repo.git("log", "--format=%s", "third..five").split() == ["c5", "c4", "c3", "c2", "c1"]
    assert not (repo.path / ".theta").exists()
    assert repo.git("status", "--porcelain") == "?? kept"


def test_a1_what_is_in_nobodys_way_stays(pair: tuple[Repo, Repo], tmp_path: Path) -> None:
    """Files beside those that come are no hindrance, nor is a folder that has only ignored files."""
    repo = pair[1].copy(tmp_path / "ours")
    repo.write("d/beside.txt", MINE)
    repo.write("x.txt.old", MINE)
    repo.theta("switch", "-q", "other")
    assert (repo.path / "d" / "beside.txt").read_text() == MINE
    assert not (repo.path / ".theta").exists()
    repo.theta("switch", "-q", "main")
    assert repo.git("status", "--porcelain").split() == ["??", "d/", "??", "x.txt.old"]


def test_a_submodule_comes_where_a_file_is(pair: tuple[Repo, Repo], tmp_path: Path) -> None:
    """G2: the path of a submodule is a path that git writes."""
    repo = pair[1].copy(tmp_path / "ours")
    repo.git("checkout", "-q", "-b", "sub", "third")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{repo.git('rev-parse', 'base')},d")
    repo.git("commit", "-q", "-m", "submodule")
    repo.git("checkout", "-q", "main")
    shutil.rmtree(repo.path / "d", ignore_errors=True)
    file = put(repo, "file for folder")
    for command in ("switch sub", "merge sub", "cherry-pick sub"):
        assert repo.theta(*command.split(), code=None).returncode != 0
        assert file.read_text() == MINE


@pytest.mark.parametrize("program", ["git", "theta"])
def test_g2_a_patch_from_elsewhere(pair: tuple[Repo, Repo], program: str, tmp_path: Path) -> None:
    """``git am -3`` of a patch whose commit no branch has: it falls back on a merge, which is checked."""
    repo = pair[1].copy(tmp_path / "ours")
    patch = tmp_path / "notes.patch"
    repo.git("checkout", "-q", "-b", "passing")
    step(repo, "notes")
    repo.git("format-patch", "-q", "-1", "--output", str(patch))
    repo.git("checkout", "-q", "main")
    repo.git("branch", "-q", "-D", "passing")
    file = repo.write("notes", MINE)
    assert run_either(repo, program, "am", "-3", str(patch)).returncode != 0
    assert file.read_text() == MINE


@pytest.mark.parametrize("side", ["moved", "adding"])
def test_a1_a_file_that_follows_a_renamed_folder(pair: tuple[Repo, Repo], side: str, tmp_path: Path) -> None:
    """One side renames a folder, the other adds a file to it: git writes that where neither side has it."""
    repo = pair[1].copy(tmp_path / "ours")
    for name in ("a", "b", "c"):
        repo.write(f"old/{name}", name * 100)
    repo.git("add", "old")
    repo.git("commit", "-q", "-m", "folder")
    repo.git("checkout", "-q", "-b", "adding")
    step(repo, "old/file")
    repo.git("checkout", "-q", "-b", "moved", "main")
    repo.git("mv", "old", "new")
    repo.git("commit", "-q", "-m", "moved")
    repo.theta("checkout", "-q", side)
    file = repo.write("new/file", MINE)
    for program in ("git", "theta"):
        done = run_either(
            repo, program, "-c", "merge.directoryRenames=true", "merge", *{"moved", "adding"} - {side}
        )
        assert done.returncode != 0
        assert "new/file" in done.stderr
        assert file.read_text() == MINE


def test_obstacles(tmp_path: Path) -> None:
    """Each shape by itself: a file, a link, a folder, on the way and at the end of it."""
    for name in ("file", "folder/inner", "real/there"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(MINE)
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "dangling").symlink_to("nowhere")
    for path, found in {
        "file": {"file"},
        "file/below/it": {"file"},
        "folder": {"folder"},
        "folder/other": set(),
        "link/inner": {"link"},
        "dangling": {"dangling"},
        "dangling/x": {"dangling"},
        "absent/x": set(),
        "real/there/x": {"real/there"},
    }.items():
        assert obstacles(tmp_path, [path]) == found


def test_g2_without_a_checkpoint_a_clone_is_as_any_other(tmp_path: Path) -> None:
    """Sparse checkout, and what comes with it, begins with the first checkpoint."""
    repo = Repo.create(tmp_path / "repo")
    repo.theta("track", "*.safetensors")
    repo.theta("commit", "-q", "-am", "attributes")
    repo.theta("status")
    keys = ("config", "--get-regexp", r"core\.(sparse|fsmonitor)")
    assert repo.try_git(*keys).stdout == ""
    new_model(repo)
    repo.git("add", ".")
    assert "core.sparsecheckout true" in repo.git(*keys)
    repo.git("commit", "-q", "-m", "model")
    assert not (repo.path / ".theta").exists()
    assert "S .theta/" in repo.git("ls-files", "-t")


def test_g2_a_checkpoint_comes_into_a_clone_that_has_none(pair: tuple[Repo, Repo], tmp_path: Path) -> None:
    """The patterns are there before git writes a commit that has .theta/."""
    repo = Repo.create(tmp_path / "repo")
    repo.theta("track", "*.safetensors")
    repo.theta("commit", "-q", "-am", "attributes")
    repo.theta(
        "pull", "-q", "--no-rebase", "--allow-unrelated-histories", "-X", "theirs", str(pair[1].path), "other"
    )
    assert not (repo.path / ".theta").exists()
    assert "S .theta/" in repo.git("ls-files", "-t")
    assert (repo.path / "x.txt").read_text() == "theirs\n"


@pytest.mark.parametrize(
    "command",
    ["switch other", "merge other", "pull . other --no-rebase", "rebase other", "reset --hard other"],
)
def test_e2_room_is_looked_for_before_git_acts(
    pair: tuple[Repo, Repo], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E2: on a full disk HEAD, index and files stay, and one line says what is missing."""
    repo = pair[1].copy(tmp_path / "ours")
    time.sleep(1.1)  # a file as new as the index is not known to be what it was
    theta(repo, "status")
    head = repo.git("rev-parse", "HEAD")
    monkeypatch.setattr(_fs, "free_space", lambda path: 1000)
    told = theta(repo, *command.split(), code=28)
    assert re.search(r"ours has 0 B free, and .* are to be written", told.err)
    assert repo.git("rev-parse", "HEAD") == head
    assert not (repo.path / ".git" / "MERGE_HEAD").exists()
    assert repo.git("status", "--porcelain") == ""
    theta(repo, "reset", "-q", "--hard")
    monkeypatch.undo()
    theta(repo, *command.split())


def test_the_guard_looks_only_where_git_may_write(pair: tuple[Repo, Repo], tmp_path: Path) -> None:
    """Behind git's own options too; and the patterns come back with the next command."""
    repo = pair[1].copy(tmp_path / "ours")
    private = repo.path / ".git" / "theta"
    repo.write("beside", MINE)
    repo.git("--no-optional-locks", "-c", "core.quotepath=false", "status")
    assert not (private / "seen").exists()
    repo.git("-c", "advice.detachedHead=false", "checkout", "-q", "third")
    assert (private / "seen").exists()
    put(repo, "file for folder")
    assert repo.try_git("checkout", "-q", "other").returncode != 0
    assert (private / "patterns").exists()
    repo.git("status")
    assert not (private / "patterns").exists()
    assert "!/.theta/" in (repo.path / ".git" / "info" / "sparse-checkout").read_text()


@pytest.mark.parametrize(
    ("line", "name", "found"),
    [
        ("checkout -qf other", "--force", True),
        ("-c a.b=c checkout --forc other", "--force", True),
        ("checkout -bf", "--force", False),
        ("switch -C --force other", "--force", False),
        ("rebase --abor", "--abort", True),
        ("reset --har HEAD~1", "--hard", True),
        ("reset -q HEAD~1", "--hard", False),
        ("stash pop --quiet", "--quiet", True),
    ],
)
def test_options_are_read_as_git_reads_them(
    pair: tuple[Repo, Repo], line: str, name: str, found: bool
) -> None:
    repo = Repository.discover(pair[0].path)
    assert incoming.has(repo, line.split(), name) is found
