"""Care of a repository, called without the command line: who changed a tensor, what things cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support import Repo, make_model, random_tensors, read_model
from theta.errors import BusyError, NotFoundError, UsageError
from theta.porcelain.care import blaming, collecting, costs
from theta.porcelain.workspace.session import Session

MODEL = "model.safetensors"
SHAPES = {"layers.0.w": (64, 64), "layers.1.w": (64, 64), "head": (8,), "rest": (8,)}


def changed(repo: Repo, path: str, *names: str, step: float = 1.0) -> None:
    tensors = read_model(repo.path / path)
    make_model(repo.path / path, {n: t + np.float32(step) * (n in names) for n, t in tensors.items()})


def commit(repo: Repo, message: str, **env: str) -> str:
    repo.theta("commit", "-qam", message, env=env)
    return repo.git("rev-parse", "HEAD")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repo, dict[str, str]]:
    """Two branches that changed different tensors, joined; then a rename, and a change taken back."""
    repo = Repo.create(tmp_path_factory.mktemp("care") / "repo")
    repo.theta("track", "*.safetensors")
    make_model(repo.path / MODEL, random_tensors(SHAPES))
    repo.theta("add", "-A")
    made = {"base": commit(repo, "base")}
    repo.theta("switch", "-qc", "side")
    changed(repo, MODEL, "head")
    made["side"] = commit(repo, "side", GIT_AUTHOR_NAME="Someone Else")
    repo.theta("switch", "-q", "main")
    changed(repo, MODEL, "layers.0.w")
    made["ours"] = commit(repo, "ours")
    repo.theta("merge", "-q", "--no-edit", "side")
    repo.theta("mv", MODEL, "renamed.safetensors")
    made["renamed"] = commit(repo, "renamed")
    before = (repo.path / "renamed.safetensors").read_bytes()
    changed(repo, "renamed.safetensors", "rest")
    commit(repo, "there")
    (repo.path / "renamed.safetensors").write_bytes(before)
    made["back"] = commit(repo, "and back")
    return repo, made


def test_blame_names_the_commit_that_last_changed_each_tensor(history: tuple[Repo, dict[str, str]]) -> None:
    repo, made = history
    session = Session.here(repo.path)
    found = {o.name: o for o in blaming.blame(session, blaming.BlameRequest("renamed.safetensors"))}
    assert list(found) == sorted(SHAPES)
    origins = {"layers.0.w": "ours", "layers.1.w": "base", "head": "side", "rest": "back"}
    assert {name: origin.commit for name, origin in found.items()} == {n: made[c] for n, c in origins.items()}
    assert found["head"].author.name == "Someone Else"
    assert {o.path for o in found.values()} == {MODEL, "renamed.safetensors"}
    old = blaming.blame(session, blaming.BlameRequest(MODEL, made["base"], "layers.*"))
    assert [(o.name, o.commit) for o in old] == [("layers.0.w", made["base"]), ("layers.1.w", made["base"])]
    for request in (("nofile",), (MODEL,), (MODEL, made["base"], "no*"), ("code.py",), (MODEL, "nobranch")):
        with pytest.raises(NotFoundError):
            blaming.blame(session, blaming.BlameRequest(*request))


def test_blame_on_the_command_line(history: tuple[Repo, dict[str, str]]) -> None:
    """Tensors of a checkpoint by theta; other files and git's options by git."""
    repo, made = history
    below = Repo(repo.path / "below", repo.ticks)
    below.path.mkdir()
    line = below.theta("blame", "../renamed.safetensors#head").stdout
    assert line.split()[:3] == [made["side"][:10], "(Someone", "Else"]
    body = json.loads(repo.theta("blame", "--json", "main:renamed.safetensors#head").stdout)["theta.blame/v1"]
    assert [(row["name"], row["commit"]) for row in body["tensors"]] == [("head", made["side"])]
    for args in (["code.py"], ["-s", "renamed.safetensors"], ["main", "--", "code.py"]):
        assert repo.theta("blame", *args).stdout == repo.git("blame", *args) + "\n"
    repo.theta("blame", "no#x", code=13)
    repo.theta("blame", "--json", "code.py", code=2)


def packed(repo: Repo) -> None:
    repo.git("reflog", "expire", "--expire=all", "--all")
    repo.git("repack", "-adFq", "--window=0")
    repo.git("prune", "--expire=now")


def bytes_of(repo: Repo) -> int:
    rows = repo.git("cat-file", "--batch-all-objects", "--batch-check=%(objectsize:disk)")
    return sum(map(int, rows.split()))


def test_what_du_calls_free_becomes_free(history: tuple[Repo, dict[str, str]], tmp_path: Path) -> None:
    """A branch of its own is deleted and pruned: as many bytes are gone as were told."""
    repo = history[0].copy(tmp_path / "copy")
    repo.theta("switch", "-qc", "alone")
    changed(repo, "renamed.safetensors", "layers.1.w", step=0.5)
    commit(repo, "alone")
    packed(repo)
    found = {row.name: row for row in costs.usage(Session.here(repo.path), "branch").rows}
    alone = found["refs/heads/alone"]
    assert 0 < alone.freed < alone.stored
    assert found["refs/heads/side"].freed == 0
    repo.theta("switch", "-q", "main")
    before = bytes_of(repo)
    repo.git("branch", "-qD", "alone")
    repo.git("reflog", "expire", "--expire=all", "--all")
    assert costs.unreachable(Session.here(repo.path).repo) == alone.freed
    packed(repo)
    assert before - bytes_of(repo) == pytest.approx(alone.freed, rel=0.1)


def test_du_by_checkpoint_tensors_and_commit(history: tuple[Repo, dict[str, str]]) -> None:
    repo, made = history
    session = Session.here(repo.path)
    (model,) = [row for row in costs.usage(session).rows if row.name == "renamed.safetensors"]
    tensors = {row.name: row for row in costs.usage(session, "tensors").rows}
    layers = tensors["renamed.safetensors#layers.*.w"]
    assert 2 * 64 * 64 * 2 < layers.stored < model.stored < 4 * 64 * 64 * 4
    assert sum(row.stored for row in tensors.values() if "#" in row.name) <= model.stored
    commits = {row.name: row for row in costs.usage(session, "commit").rows}
    assert max(commits, key=lambda oid: commits[oid].stored) == made["base"]
    assert commits[made["renamed"]].stored < 500
    assert commits[made["base"]].note == "base"
    with pytest.raises(UsageError, match="colour"):
        costs.usage(session, "colour")
    body = json.loads(repo.theta("du", "--json", "-n", "1").stdout)["theta.du/v1"]
    assert [row["name"] for row in body["rows"]] == ["renamed.safetensors"]
    assert body["total"] == bytes_of(repo)
    assert "renamed.safetensors" in repo.theta("du").stdout


def test_gc_frees_what_nothing_names(history: tuple[Repo, dict[str, str]], tmp_path: Path) -> None:
    """Objects of a deleted branch go with ``--prune=now``, but not while another theta is at work."""
    repo = history[0].copy(tmp_path / "copy")
    repo.theta("switch", "-qc", "alone")
    (repo.path / "renamed.safetensors").unlink()
    make_model(repo.path / "renamed.safetensors", random_tensors({"w": (256, 256)}, seed=9))
    gone = commit(repo, "alone")
    repo.theta("switch", "-q", "main")
    repo.git("branch", "-qD", "alone")
    repo.git("reflog", "expire", "--expire=all", "--all")
    told = json.loads(repo.theta("gc", "--dry-run", "--json").stdout)["theta.gc/v1"]["unreachable"]
    assert told > 100_000
    collecting.collect(Session.here(repo.path), [])
    assert repo.try_git("cat-file", "-e", gone).returncode == 0, "the young ones stay"
    session = Session.here(repo.path)
    with session.journal.driving(), pytest.raises(BusyError):
        collecting.collect(Session.here(repo.path), ["--prune=now"])
    assert repo.try_git("cat-file", "-e", gone).returncode == 0
    done = json.loads(repo.theta("gc", "--prune=now", "--json").stdout)["theta.gc/v1"]
    assert done["before"] - done["after"] > 0.9 * told
    assert repo.try_git("cat-file", "-e", gone).returncode == 1
    repo.theta("fsck", "--read-data")


@pytest.mark.parametrize("by", ["git", "theta"])
@pytest.mark.parametrize("is_first", [False, True])
def test_what_the_index_names_stays_after_gc(
    history: tuple[Repo, dict[str, str]], tmp_path: Path, by: str, is_first: bool
) -> None:
    """Git keeps the files of the index, and theta the tree of each tensor, by which it is named."""
    if is_first:
        repo = Repo(tmp_path / "new", history[0].ticks)
        repo.path.mkdir()
        repo.git("init", "-q")
        repo.theta("track", "*.safetensors")
    else:
        repo = history[0].copy(tmp_path / "repo")
    make_model(repo.path / MODEL, random_tensors(SHAPES, seed=9))
    before = (repo.path / MODEL).read_bytes()
    repo.theta("add", MODEL)
    (repo.git if by == "git" else repo.theta)("gc", "-q" if by == "git" else "--prune=now", "--prune=now")
    lost = "missing" in repo.git(
        "cat-file", "--batch-check", stdin="".join(f"{tree}\n" for tree in trees(repo))
    )
    assert lost == (by == "git")
    (repo.path / MODEL).unlink()
    repo.theta("restore", MODEL)
    assert (repo.path / MODEL).read_bytes() == before
    repo.theta("commit", "-qm", "after gc")
    repo.git("fsck", "--strict")
    repo.theta("fsck")


def trees(repo: Repo) -> list[str]:
    """The trees that the staged manifest names."""
    manifest = Session.here(repo.path).index.manifests[MODEL]
    return [manifest.skeleton, *(line.tree for line in manifest.lines)]


def test_gc_at_once_and_a_change_in_another_worktree_exclude_each_other(
    history: tuple[Repo, dict[str, str]], tmp_path: Path
) -> None:
    """A save that begins during the gc would lose its pack; the locks of worktrees are their own."""
    repo = history[0].copy(tmp_path / "copy")
    repo.git("worktree", "add", "-q", "--detach", str(tmp_path / "other"))
    here, there = Session.here(repo.path), Session.here(tmp_path / "other")
    there.journal.patience = here.journal.patience = 0
    with there.journal.exclusive():
        with pytest.raises(BusyError):
            collecting.collect(here, ["--prune=now"])
        with pytest.raises(BusyError):
            collecting.collect(here, ["--pru=now"])
        collecting.collect(here, ["--prune=now", "--prune=2.weeks.ago"])
    with here.journal.exclusive(alone=True):
        with pytest.raises(BusyError), there.journal.exclusive():
            pass
        with pytest.raises(BusyError), there.journal.beside_others():
            pass
    collecting.collect(here, ["--prune=now"])
