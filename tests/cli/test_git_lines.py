"""git's command lines mean to theta what they mean to git: the same words in twin repositories."""

from __future__ import annotations

from pathlib import Path

import pygit2
import pytest

from tests.cli.checks import never_a_bug
from tests.support import Repo, make_model, random_tensors

OFF = {"THETA_HOOKS": "off", "GIT_EDITOR": "true", "LC_ALL": "C"}
"""For both twins: no checkpoint changes here, so that theta's hooks have nothing to do."""

CHANGING = """
commit|-madd more
commit|-m|oh no
commit|-moh no
commit|-m|- text
commit|-ama
commit|-am|two words
commit|-qam|quiet
commit|--mess=abbreviated
commit|--mess|apart
commit|-m|--json
commit|-m|-a
commit|-m|first|-m|second
commit|-m|only a|a
commit|-m|only a|--|a
commit|-im|with a|a
commit|-sm|signed
commit|-Fcode.py
commit|-F|code.py
commit|-CHEAD
commit|-C|HEAD
commit|-c|HEAD
commit|--fixup=HEAD
commit|--fixup|HEAD
commit|--author|A <a@b>|-mx
commit|--author=A <a@b>|-mx
commit|--date|2001-02-03T04:05:06Z|-mx
commit|-vmx
commit|-mx|-uno
commit|-mx|--no-all
commit|-mx|-a|--no-all
commit|--amend|--no-edit
commit|--amend|-m|-x
commit|-nmx
commit|--verify|-mx
commit|--dry-run|-am|x
commit|--short|-a
commit|--porcelain|-am|x
commit|-m
commit|--bogus
commit|-mx|nothere
commit|-mx|--trailer|A: b
commit|--pathspec-from-file=list|-mx
checkout|-bhotfix
checkout|-b|hotfix
checkout|-Bother
checkout|-b|hotfix|--|a
checkout|--|a
checkout|HEAD~|--|a
checkout|--detach
checkout|-q|v1
checkout|nothere
switch|-chotfix
switch|--create=hotfix
switch|--crea|hotfix
switch|-d
switch|-
switch|-Cother
branch|-mrenamed
branch|-m|other|renamed
branch|-f|other|HEAD
tag|-mhello|v2
tag|-m|-x|v2
tag|-am|hello|v2
reset|-q|--|b
reset|--soft|HEAD~
reset|-q|HEAD|b
mv|-v|a|c
mv|--|a|c
mv|-kn|a|c
mv|a|../c
mv|a|b|..
mv|a|nothere/c
rm|--cached|a
rm|-qf|b
rm|a
add|-A
add|-u
add|-uv
add|-n|a
add|-N|new
add|--chmod=+x|a
add|--chmod|+x|a
add|.
add|--upd
add|-f|ignored
add|ignored
restore|-SW|b
restore|-S|b
restore|-sHEAD~|a
restore|-s|HEAD~|a
restore|--source=HEAD~|--|a
restore|--sour|HEAD~|-W|a
stash|push|-mkept
-c|user.name=Else|commit|-mx
-c|user.name=Else|-c|user.email=e@f|commit|-m|oh!'no
--literal-pathspecs|rm|--cached|a
--git-dir=.git|commit|-mx
""".strip().splitlines()
"""Run where ``a`` is changed, ``b`` is staged, ``new`` is untracked."""

CLEAN = """
merge|-mhello|other
merge|-m|hello|other
merge|-mone|-mtwo|other
merge|--no-ff|-mhello|other
merge|-Fcode.py|other
merge|-qm|x|other
merge|--squash|other
merge|-n|--no-edit|other
merge|-Xours|--no-edit|other
merge|-sours|--no-edit|other
cherry-pick|-x|other
cherry-pick|-n|other
cherry-pick|-xs|other
revert|--no-edit|HEAD
revert|-n|HEAD
rebase|-q|other
rebase|--onto|other|HEAD~
rebase|-x|true|HEAD~
""".strip().splitlines()


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A repository with a checkpoint, files, a branch ``other`` and a tag; its worktree is clean."""
    repo = Repo.create(tmp_path_factory.mktemp("twins") / "repo")
    repo.theta("track", "*.safetensors")
    make_model(repo.path / "m.safetensors", random_tensors({"w": (4, 4)}))
    for name in ("a", "b", "list"):
        repo.write(name, f"{name}\n")
    repo.write(".gitignore", "ignored\n")
    repo.theta("add", "-A")
    repo.theta("commit", "-qm", "base")
    repo.git("switch", "-qc", "other")
    repo.write("o", "other\n")
    repo.git("add", "o")
    repo.git("commit", "-qm", "on other", env=OFF)
    repo.git("switch", "-q", "main", env=OFF)
    repo.git("tag", "v1")
    repo.write("a", "a\nhello\n")
    repo.git("commit", "-qam", "say hello", env=OFF)
    return repo


@pytest.fixture(scope="module")
def dirty(twins: Repo, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """``twins`` with changes of each kind."""
    repo = twins.copy(tmp_path_factory.mktemp("dirty") / "repo")
    repo.write("a", "changed\n")
    repo.write("b", "staged\n")
    repo.git("add", "b", env=OFF)
    for name in ("new", "ignored"):
        repo.write(name, f"{name}\n")
    return repo


def state(repo: Repo) -> dict[str, object]:
    """Refs, the latest commits, the index, and the files."""
    raw = pygit2.Repository(str(repo.path))
    refs = {name: _told(raw.references[name].peel(pygit2.Commit)) for name in raw.references}
    commits = [_told(commit) for commit in list(raw.walk(raw.head.target))[:4]]
    index = [(entry.path, str(entry.id), entry.mode) for entry in raw.index]
    tags = {name: raw[raw.references[name].target].type for name in refs if name.startswith("refs/tags/")}
    names = ("a", "b", "c", "o", "new", "code.py", "m.safetensors")
    files = {name: (repo.path / name).read_bytes() for name in names if (repo.path / name).exists()}
    head = raw.references["HEAD"].target
    return {"head": str(head), "refs": refs, "log": commits, "index": index, "tags": tags, "files": files}


def _told(commit: pygit2.Commit) -> tuple[str, str, str, str, int]:
    author = f"{commit.author.name} <{commit.author.email}>"
    return str(commit.tree_id), commit.message, author, str(commit.author.time), len(commit.parent_ids)


def compared(template: Repo, tmp_path: Path, row: str) -> None:
    one, other = template.copy(tmp_path / "git"), template.copy(tmp_path / "theta")
    other.ticks = one.ticks
    by_git = one.try_git(*row.split("|"), env=OFF)
    by_theta = other.theta(*row.split("|"), code=None, env=OFF)
    never_a_bug(by_theta)
    assert by_theta.returncode == by_git.returncode, (by_git, by_theta)
    assert state(other) == state(one)


@pytest.mark.parametrize("row", CHANGING)
def test_g1_a_line_does_what_it_does_in_git(dirty: Repo, tmp_path: Path, row: str) -> None:
    """``commit -m"add more"`` committed unstaged files with the message "dd more"."""
    compared(dirty, tmp_path, row)


@pytest.mark.parametrize("row", CLEAN)
def test_g1_a_line_that_needs_a_clean_worktree(twins: Repo, tmp_path: Path, row: str) -> None:
    """``merge -mhello`` and the like."""
    compared(twins, tmp_path, row)
