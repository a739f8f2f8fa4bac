"""Plain git's commands in six states: ``.theta/`` equals the manifests; files are right or left alone."""

from __future__ import annotations

import shlex
from collections.abc import Container, Iterator
from pathlib import Path

import pytest

from tests.compat.agreement import MAGIC, STORES, assert_commit, assert_index, index_entries
from tests.compat.inprocess import branched, committed, started, theta
from tests.compat.story import MODEL, TENSOR, combined, edit
from tests.support import Repo, sha256

ROWS = (
    "add .",
    "add -u",
    "commit -qam x",
    "commit -qm x",
    "commit -qm x -n -a",
    f"commit -qm x -- {MODEL}",
    "commit -q --amend --no-edit -a",
    "checkout -q side",
    "checkout -q -f side",
    "checkout -q -m side",
    f"checkout -q side -- {MODEL}",
    f"checkout -q -- {MODEL}",
    f"checkout -q --theirs -- {MODEL}",
    "switch -q -c new main~1",
    "switch -q --detach --discard-changes side",
    "restore -q .",
    "restore -q --staged .",
    f"restore -q --source=main~1 -SW -- {MODEL}",
    "reset -q",
    "reset -q --soft main~1",
    "reset -q --hard main~1",
    "reset -q --merge main~1",
    "reset -q --keep main~1",
    "merge -q --no-edit side",
    "merge -q --squash side ; commit -qm squashed",
    "merge -q --no-commit --no-ff side ; merge --continue",
    "merge -q -s ours side",
    "merge -q -s resolve side",
    "merge -q side other",
    "merge -q clash ; merge --abort",
    "cherry-pick side",
    "cherry-pick -n side ; commit -qm picked",
    "cherry-pick clash ; cherry-pick --abort",
    "revert --no-edit HEAD",
    "rebase -q side",
    "rebase -q --apply side",
    "rebase -q clash ; rebase --abort",
    "stash -q ; stash pop -q",
    "stash -q -u ; checkout -q side ; stash apply -q",
    f"rm -q -f -- {MODEL} ; commit -qm gone",
    f"rm -q --cached -- {MODEL}",
    f"mv {MODEL} moved.safetensors ; commit -qam moved",
    "clean -qfdx",
    "am -q mail/0001-embed.weight.patch",
    "worktree add -q ../tree side",
    "gc -q --prune=now",
    "repack -adq",
    "fetch -q origin",
    "pull -q --no-rebase --no-edit origin side",
    "pull -q --rebase origin side",
    "push -q origin HEAD:refs/heads/pushed",
    "read-tree -m -u HEAD side",
    "checkout-index -f -a",
    "sparse-checkout reapply",
    "bisect start -q main main~2 ; bisect good ; bisect reset -q",
    "diff HEAD ; diff --cached ; status ; log -p -2 ; show ; blame code.py ; grep -n hello",
)
EDITED = "layer.0.weight"
STATES = ("clean", "modified", "staged", "conflict", "partial", "sha256")


def story(place: Path) -> Repo:
    """Main, two commits after the first model; side and other join with it, clash does not."""
    repo = started(place)
    branched(repo, side=[("embed.weight", 2.0)], other=[("head.weight", 3.0)], clash=[(TENSOR, 5.0)])
    committed(repo, (TENSOR, 1.0))
    repo.write("code.py", "print('hello')\nmore\n")
    repo.git("commit", "-qam", "code")
    repo.git("format-patch", "-q", "-1", "-o", "mail", "side")
    (repo.path / ".git/info/exclude").write_text("mail/\n")
    for key in ("allowFilter", "allowAnySHA1InWant"):
        repo.git("config", f"uploadpack.{key}", "true")
    repo.git("clone", "-q", "--bare", ".", "../up.git")
    repo.git("remote", "add", "origin", "../up.git")
    return repo


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Repo]:
    """A repository in each state."""
    top = tmp_path_factory.mktemp("matrix")
    first = story(top / "first")
    found = {"clean": first}
    for state in ("modified", "staged", "conflict"):
        found[state] = first.copy(top / state)
    edit(found["modified"], EDITED)
    edit(found["staged"], EDITED)
    found["staged"].git("add", MODEL)
    found["conflict"].try_git("merge", "-q", "clash")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_DEFAULT_HASH", "sha256")
        found["sha256"] = story(top / "other/repo")
    found["partial"] = Repo(top / "partial")
    found["partial"].path.mkdir()
    theta(found["partial"], "clone", "-q", "--filter=blob:none", "-b", "main", first.path.as_uri(), ".")
    for branch in ("side", "other", "clash"):
        found["partial"].git("branch", "-q", branch, f"origin/{branch}")
    return found


def files(repo: Repo) -> dict[str, str]:
    return {path.name: sha256(path) for path in repo.path.glob("*.safetensors")}


def staged(repo: Repo) -> dict[str, str]:
    """The sha256 of the file that each staged checkpoint is, by what git's own command writes."""
    found = {}
    for entry in index_entries(repo):
        if entry.path.endswith(".safetensors") and not entry.stage:
            place = repo.git("checkout-index", "--temp", "--", entry.path).split("\t")[0]
            found[entry.path] = sha256(repo.path / place)
            (repo.path / place).unlink()
    return found


def wrong(repo: Repo, right: Container[str], told: str) -> Iterator[str]:
    """Yield what must not be, whatever the commands were; ``right`` are contents that files may have."""
    if "Traceback" in told or "bug in theta" in told:
        yield "a failure"
    for commit in repo.git("rev-list", "HEAD", "--branches").split():
        assert_commit(repo, commit)
    shown = theta(repo, "status").out
    entries = index_entries(repo)
    unmerged = {entry.path for entry in entries if entry.stage}
    tracked = {entry.path for entry in entries}
    for path, content in files(repo).items():
        if path in unmerged or not (repo.path / path).read_bytes().startswith(MAGIC.encode()):
            continue
        if content not in right or (path in tracked and f"{path} is still a manifest" not in shown):
            yield f"{path} is a manifest"
    if (repo.path / STORES).exists():
        yield f"{[*(repo.path / STORES).rglob('*')]}"
    if unmerged:
        return
    assert_index(repo)
    found = files(repo)
    yield from (
        f"{path} is neither as staged nor as it may be"
        for path, want in staged(repo).items()
        if found.get(path) not in (want, None) and found[path] not in right
    )


@pytest.mark.campaign
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("row", ROWS)
def test_each_command_in_each_state(places: dict[str, Repo], tmp_path: Path, row: str, state: str) -> None:
    cell(places[state].copy(tmp_path / "repo"), state, row)


@pytest.mark.parametrize(
    ("state", "row"),
    [
        ("clean", "rebase -q side"),
        ("modified", "stash -q ; stash pop -q"),
        ("staged", "commit -qm x"),
        ("conflict", f"checkout -q --theirs -- {MODEL}"),
        ("partial", "pull -q --no-rebase --no-edit origin side"),
        ("sha256", "merge -q --no-edit side"),
    ],
)
def test_one_command_in_each_state(places: dict[str, Repo], tmp_path: Path, state: str, row: str) -> None:
    assert row in ROWS
    cell(places[state].copy(tmp_path / "repo"), state, row)


def cell(repo: Repo, state: str, row: str) -> None:
    """Run a row of commands of git in a state."""
    if state != "partial":
        repo.git("clone", "-q", "--bare", ".", "../up.git")
    right = {combined(repo, repo.path.parent, ("embed.weight", 2.0), (EDITED, 1.0))}
    before, told = files(repo), ""
    for line in row.split(" ; "):
        done = repo.try_git(*shlex.split(line))
        told += done.stderr + done.stdout
    found = [*wrong(repo, right | {*before.values()}, told)]
    assert not found, told
    for operation in ("merge", "rebase", "cherry-pick", "revert", "am"):
        repo.try_git(operation, "--abort")
    repo.git("reset", "-q", "--hard")
    repo.git("checkout", "-q", "-f", "main")
    assert_index(repo)
    assert not (repo.path / STORES).exists()
