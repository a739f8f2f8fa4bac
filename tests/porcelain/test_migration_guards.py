"""A migration loses no file that is not committed, survives a kill, and believes no hostile history."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import msgpack
import pytest

from tests.porcelain.test_migration import (
    KEPT,
    MODEL,
    assert_whole,
    content,
    in_dvc,
    migrated,
    session_of,
    spoilt,
    write_model,
)
from tests.support import Repo
from theta.errors import CorruptError, FormatError, RefusedError, UsageError, WouldOverwriteError
from theta.porcelain.migration import exporting, rewriting, zarr_arrays


def in_git(path: Path, versions: int = 2) -> Repo:
    """A repository whose commits have versions of the model as plain blobs."""
    repo = Repo.create(path)
    for version in range(versions):
        write_model(repo, version)
        repo.write("code.py", f"print({version})\n")
        repo.git("add", "-A")
        repo.git("commit", "-qm", f"version {version}")
    return repo


def refs(repo: Repo) -> str:
    """All refs, and the commit at HEAD."""
    return repo.git("for-each-ref") + repo.git("rev-parse", "HEAD")


# -- files that are not committed -----------------------------------------------------


@pytest.mark.parametrize("history", [False, True], ids=["one commit", "all history"])
def test_a_retrained_model_that_dvc_was_not_told_of_is_not_overwritten(tmp_path: Path, history: bool) -> None:
    """The file is ignored: neither 'git status' nor git's own check shows it."""
    repo, _ = in_dvc(tmp_path, old=False)
    new = write_model(repo, 9, "m.safetensors")
    before = refs(repo)
    packs = sorted((repo.path / ".git/objects").rglob("*"))
    with pytest.raises(WouldOverwriteError, match=r"m\.safetensors is not committed"):
        migrated(repo, "dvc", history=history)
    assert sorted((repo.path / ".git/objects").rglob("*")) == packs
    assert (repo.path / "m.safetensors").read_bytes() == new
    assert (refs(repo), repo.git("status", "--porcelain")) == (before, "")


def test_a_link_into_the_cache_of_dvc_becomes_a_file(tmp_path: Path) -> None:
    repo, models = in_dvc(tmp_path, old=False)
    md5 = hashlib.md5(models[-1]).hexdigest()
    cached = tmp_path / "elsewhere/files/md5" / md5[:2] / md5[2:]
    (repo.path / "m.safetensors").unlink()
    (repo.path / "m.safetensors").symlink_to(cached)
    migrated(repo, "dvc", history=False)
    assert not (repo.path / "m.safetensors").is_symlink()
    assert (repo.path / "m.safetensors").read_bytes() == cached.read_bytes() == models[-1]
    assert_whole(repo)


def test_untracked_attributes_are_not_overwritten(tmp_path: Path) -> None:
    repo = in_git(tmp_path / "repo", 1)
    place = repo.write(".gitattributes", "*.txt text\n")
    with pytest.raises(WouldOverwriteError, match=r"\.gitattributes"):
        migrated(repo, "raw", history=False)
    assert place.read_text() == "*.txt text\n"


def test_a_committed_mean_does_not_overwrite_an_untracked_file(tmp_path: Path) -> None:
    repo = in_git(tmp_path / "repo")
    migrated(repo, "raw", history=True)
    repo.git("checkout", "-q", "--orphan", "bare")
    repo.git("rm", "-rqf", ".")
    repo.git("commit", "-q", "--allow-empty", "-m", "empty")
    mine = write_model(repo, 7)
    said = repo.theta(
        "average", "main~1", "main", "--path", MODEL, "--commit", code=WouldOverwriteError.exit_code
    )
    assert "would be overwritten" in said.stderr
    assert (repo.path / MODEL).read_bytes() == mine
    assert repo.git("log", "--format=%s") == "empty"


def test_edits_that_git_was_told_to_overlook_stay(tmp_path: Path) -> None:
    repo = in_git(tmp_path / "repo")
    repo.git("update-index", "--assume-unchanged", "code.py")
    place = repo.write("code.py", "print('mine')\n")
    migrated(repo, "raw", history=False)
    assert place.read_text() == "print('mine')\n"
    repo = in_git(tmp_path / "other")
    repo.git("update-index", "--skip-worktree", MODEL)
    mine, before = write_model(repo, 7), refs(repo)
    with pytest.raises(RefusedError):
        migrated(repo, "raw", history=False)
    assert ((repo.path / MODEL).read_bytes(), refs(repo)) == (mine, before)


def test_submodules_keep_their_edits_and_a_staged_commit_of_one_is_refused(tmp_path: Path) -> None:
    inner, repo = in_git(tmp_path / "inner"), in_git(tmp_path / "repo")
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner.path), "sub")
    repo.git("commit", "-qm", "a submodule")
    repo.git("config", "submodule.recurse", "true")
    repo.write("sub/code.py", "print('mine')\n")
    repo.write("sub/more.py", "print('staged')\n")
    sub = Repo(repo.path / "sub")
    sub.git("add", "more.py")
    sub.git("checkout", "-q", "--detach", "HEAD")
    before = sub.git("status", "--porcelain")
    migrated(repo, "raw", history=False)
    assert sub.git("status", "--porcelain") == before == " M code.py\nA  more.py"
    sub.git("commit", "-qm", "more", "more.py")
    repo.git("add", "sub")
    staged = repo.git("rev-parse", ":sub")
    with pytest.raises(RefusedError, match="sub has changes"):
        exporting.export(session_of(repo), "raw")
    assert repo.git("rev-parse", ":sub") == staged


# -- kills, other worktrees, operations in progress -----------------------------------

_KILLED = """
import os, sys
from theta.porcelain.drive import renewing, running
from theta.porcelain.migration import exporting, importing, rewriting
from theta.porcelain.workspace.session import Session
from theta.git.run import Git
def die(*_, **__): os._exit(9)
run = Git.run
def moved(git, *args, **more):
    done = run(git, *args, **more)
    if args[0] == "update-ref": die()
    return done
{patch}
session = Session.here({path!r})
{call}
"""
_MIGRATE = "importing.migrate(session, importing.MigrateRequest('raw', (), {}, False))"


@pytest.mark.parametrize(
    ("patch", "call"),
    [
        ("rewriting.move = die", _MIGRATE.format(True)),
        ("Git.run = moved", _MIGRATE.format(True)),
        ("Git.run = moved", _MIGRATE.format(False)),
        ("running.settle = die", _MIGRATE.format(False)),
        ("Git.run = moved", "exporting.export(session, 'raw')"),
    ],
    ids=["before the refs move", "after", "after one commit", "before files are filled", "an export"],
)
def test_a_kill_leaves_no_index_that_takes_the_migration_back(tmp_path: Path, patch: str, call: str) -> None:
    repo = in_git(tmp_path / "repo")
    if "export" in call:
        migrated(repo, "raw")
        for ref in repo.git("for-each-ref", "--format=%(refname)", KEPT).split():
            repo.git("update-ref", "-d", ref)
    wanted, before = (repo.path / MODEL).read_bytes(), repo.git("rev-parse", "HEAD")
    text = _KILLED.format(patch=patch, call=call, path=str(repo.path))
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 9
    repo.theta("status")
    assert repo.git("diff", "--cached", "HEAD", "--name-only") == ""
    assert repo.git("status", "--porcelain") == ""
    assert (repo.git("rev-parse", "HEAD") == before) == ("rewriting" in patch)
    repo.theta("restore", ".")
    assert (repo.path / MODEL).read_bytes() == wanted
    repo.git("fsck", "--strict", "--no-dangling")


@pytest.mark.parametrize("killed", [False, True])
def test_a_file_of_dvc_is_back_when_the_refs_do_not_move(
    tmp_path: Path, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git knows nothing of the file, and so can not bring it back."""
    repo, models = in_dvc(tmp_path, old=False)
    before, names = refs(repo), sorted(os.listdir(repo.path))
    if killed:
        call = _MIGRATE.format(True).replace("raw", "dvc")
        text = _KILLED.format(patch="rewriting.move = die", call=call, path=str(repo.path))
        assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 9
        repo.theta("status")
    else:
        monkeypatch.setattr(rewriting, "move", _refuse)
        with pytest.raises(RefusedError, match="somebody else"):
            migrated(repo, "dvc")
    assert sorted(os.listdir(repo.path)) == names
    assert (repo.path / "m.safetensors").read_bytes() == models[-1]
    assert (refs(repo), repo.git("status", "--porcelain")) == (before, "")


def _refuse(*_: object) -> None:
    raise RefusedError("somebody else moved a branch")


@pytest.mark.parametrize("way", ["in", "out"])
def test_a_branch_of_another_worktree_is_not_moved(tmp_path: Path, way: str) -> None:
    repo = in_git(tmp_path / "repo")
    repo.git("worktree", "add", "-q", "-b", "side", str(tmp_path / "linked"))
    before = refs(repo)
    with pytest.raises(RefusedError, match=r"side is checked out in .*linked"):
        migrated(repo, "raw") if way == "in" else exporting.export(session_of(repo), "raw")
    assert refs(repo) == before
    Repo(tmp_path / "linked").git("switch", "-q", "--detach")
    if way == "in":
        migrated(repo, "raw")
        assert_whole(repo)


def test_the_head_of_a_bare_repository_is_nobodys_worktree(tmp_path: Path) -> None:
    bare = in_git(tmp_path / "repo").clone(tmp_path / "bare.git", "--bare")
    bare.git("worktree", "add", "-q", str(tmp_path / "linked"), "main")
    linked = Repo(tmp_path / "linked")
    with pytest.raises(RefusedError, match=r"main is checked out in .*linked"):
        migrated(bare, "raw")
    migrated(linked, "raw")
    assert_whole(linked)


@pytest.mark.parametrize("history", [False, True], ids=["one commit", "all history"])
def test_a_stopped_rebase_is_refused_and_can_end(tmp_path: Path, history: bool) -> None:
    repo = in_git(tmp_path / "repo", 3)
    repo.git("rebase", "-q", "-i", "HEAD~1", env={"GIT_SEQUENCE_EDITOR": "sed -i s/^pick/edit/"})
    with pytest.raises(RefusedError, match="a rebase is in progress"):
        migrated(repo, "raw", history=history)
    with pytest.raises(RefusedError, match="a rebase is in progress"):
        exporting.export(session_of(repo), "raw")
    repo.git("rebase", "--continue")
    repo.git("worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    linked = Repo(tmp_path / "linked")
    linked.git("rebase", "-q", "-i", "HEAD~1", env={"GIT_SEQUENCE_EDITOR": "sed -i s/^pick/edit/"})
    with pytest.raises(RefusedError, match="in progress"):
        migrated(repo, "raw")


def test_a_symbolic_branch_follows(tmp_path: Path) -> None:
    repo = in_git(tmp_path / "repo")
    repo.git("symbolic-ref", "refs/heads/alias", "refs/heads/main")
    assert migrated(repo, "raw").refs == ("refs/heads/main",)
    assert repo.git("rev-parse", "alias") == repo.git("rev-parse", "main")
    assert_whole(repo)


# -- hostile histories ----------------------------------------------------------------


@pytest.mark.parametrize("path", [".git/m.safetensors", ".GIT/hooks", ".theta/m.safetensors", "a/.Git/x"])
@pytest.mark.parametrize("folder", [False, True])
def test_an_output_of_dvc_is_no_file_of_git_or_theta(tmp_path: Path, path: str, folder: bool) -> None:
    repo, _ = in_dvc(tmp_path, old=False)
    cache = tmp_path / "elsewhere/files/md5"
    data = json.dumps([{"md5": "a" * 32, "relpath": "m.safetensors"}]).encode() if folder else b"x"
    md5 = hashlib.md5(data).hexdigest()
    suffix = ".dir" if folder else ""
    (cache / md5[:2]).mkdir(exist_ok=True)
    (cache / md5[:2] / (md5[2:] + suffix)).write_bytes(data)
    place = path if folder or path.endswith(".safetensors") else f"{path}/m.safetensors"
    repo.write("x.dvc", f"outs:\n- md5: {md5}{suffix}\n  path: {place}\n")
    repo.git("add", "-A")
    repo.git("commit", "-qm", "hostile")
    for dry in (True, False):
        with pytest.raises(UsageError, match="cannot be saved as"):
            migrated(repo, "dvc", dry=dry)


def test_outputs_that_dvc_names_otherwise_keep_their_file(tmp_path: Path) -> None:
    repo, models = in_dvc(tmp_path, old=False)
    md5 = hashlib.md5(models[-1]).hexdigest()
    outs = f"outs:\n- md5: {md5}\n  path: m.safetensors\n- etag: abc\n  path: other.safetensors\n"
    repo.write("m.safetensors.dvc", outs)
    repo.git("commit", "-qam", "two outputs")
    done = migrated(repo, "dvc", history=False)
    assert "m.safetensors.dvc" in done.left
    assert (repo.path / "m.safetensors.dvc").read_text() == outs
    assert content(repo, "HEAD", "m.safetensors") == models[-1]


@pytest.mark.parametrize("data", [b"[{", b"\xff\xfe[", b"[" * 200_000, b"{}"])
def test_a_list_of_dvc_that_is_none_ends_in_one_line(tmp_path: Path, data: bytes) -> None:
    repo, _ = in_dvc(tmp_path, old=False)
    md5 = hashlib.md5(data).hexdigest()
    place = tmp_path / "elsewhere/files/md5" / md5[:2] / f"{md5[2:]}.dir"
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(data)
    repo.write("folder.dvc", f"outs:\n- md5: {md5}.dir\n  path: folder\n")
    repo.git("commit", "-qam", "broken")
    with pytest.raises(FormatError, match="is no list"):
        migrated(repo, "dvc", history=False)


@pytest.mark.parametrize("how", [{"id": "pickle"}, {"id": "json2"}, {}, {"id": ["blosc"]}, "blosc", [1], 7])
def test_objects_of_git_theta_are_decompressed_and_nothing_else(
    how: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The codec 'pickle' of numcodecs runs what the object says."""
    monkeypatch.chdir(tmp_path)
    root = msgpack.unpackb(spoilt(lambda about: about.update(compressor=how)))
    root["parameter"]["0.0"] = b"cos\nsystem\n(S'touch ran'\ntR."
    with pytest.raises(CorruptError, match="a chunk of git-theta is compressed in a way"):
        zarr_arrays.unpacked(msgpack.packb(root))
    assert not (tmp_path / "ran").exists()


# -- tags and the map -----------------------------------------------------------------

_BLOCK = b"-----BEGIN %b-----\n\nabc=\n-----END %b-----\n"


@pytest.mark.parametrize("kind", [b"PGP SIGNATURE", b"PGP MESSAGE", b"SSH SIGNATURE", b"SIGNED MESSAGE"])
def test_a_tag_loses_its_signature_alone(kind: bytes) -> None:
    text = b"release\n\nsee -----BEGIN PGP SIGNATURE----- of it\n" + _BLOCK % (b"CERTIFICATE", b"CERTIFICATE")
    assert rewriting.unsigned(text) == text
    assert rewriting.unsigned(text + _BLOCK % (kind, kind)) == text
    quoted = text + _BLOCK % (kind, kind) + b"and more\n"
    assert rewriting.unsigned(quoted) == quoted
    assert rewriting.unsigned(_BLOCK % (kind, kind)) == b""


def test_a_tag_keeps_all_that_it_says_and_no_signature_of_its_headers(tmp_path: Path) -> None:
    repo = in_git(tmp_path / "repo")
    text = "the key\n\n-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n"
    named = f"object {repo.git('rev-parse', 'HEAD')}\ntype commit\ntag v1\ntagger A <a@b> 1 +0000\n"
    oid = repo.git(
        "hash-object", "-t", "tag", "-w", "--stdin", stdin=f"{named}gpgsig-sha256 -----\n x\n\n{text}"
    )
    repo.git("update-ref", "refs/tags/v1", oid)
    migrated(repo, "raw")
    new = repo.git("rev-parse", "HEAD")
    assert repo.git("cat-file", "tag", "v1") == (named + "\n" + text).replace(named[7:47], new).strip()


def test_a_map_is_written_where_commits_are_written_anew_only(tmp_path: Path) -> None:
    repo = in_git(tmp_path / "repo")
    place, before = repo.write("map.txt", "kept\n"), refs(repo)
    repo.theta("migrate", "raw", "--dry-run", "--all-history", "--object-map", "map.txt")
    said = repo.theta("migrate", "raw", "--object-map", "map.txt", code=UsageError.exit_code)
    assert "--all-history" in said.stderr
    for bad in ("none/map.txt", "models"):
        said = repo.theta("migrate", "raw", "--all-history", "--object-map", bad, code=UsageError.exit_code)
        assert f"{bad} cannot be written" in said.stderr
        repo.theta("export-history", "--as", "raw", "--object-map", bad, code=UsageError.exit_code)
    assert (place.read_text(), refs(repo)) == ("kept\n", before)
    repo.theta("migrate", "raw", "--all-history", "--object-map", "map.txt")
    assert len(place.read_text().splitlines()) == 2
