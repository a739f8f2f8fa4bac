"""Commits in one small file: bundles, and git's patches, brought into another clone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement
from tests.compat.inprocess import copied, started, theta
from tests.compat.story import MODEL, TENSOR, digest, edit, run_either
from tests.support import Repo
from theta.errors import CorruptError, ExitCode
from theta.porcelain.share import bundles
from theta.porcelain.workspace.session import Session


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repo, Repo]:
    """A repository with a commit that its clone does not have."""
    place = tmp_path_factory.mktemp("mail")
    ours = started(place / "ours")
    theirs = Repo(place / "theirs")
    theta(ours, "clone", "-q", ours.path.as_uri(), str(theirs.path))
    edit(ours, TENSOR)
    theta(ours, "commit", "-qam", "trained")
    return ours, theirs


@pytest.fixture
def ours(pair: tuple[Repo, Repo]) -> Repo:
    return pair[0]


@pytest.fixture
def theirs(pair: tuple[Repo, Repo], tmp_path: Path) -> Repo:
    return copied(pair[1], tmp_path / "theirs")


def test_a_bundle_brings_a_commit_and_its_checkpoint(ours: Repo, theirs: Repo, tmp_path: Path) -> None:
    said = theta(ours, "bundle", "create", str(tmp_path / "new.bundle"), "main~1..main").out
    size = (tmp_path / "new.bundle").stat().st_size
    assert "; the checkpoints are 28.7 kB" in said
    assert size < (ours.path / MODEL).stat().st_size / 3
    theirs.theta("bundle", "apply", str(tmp_path / "new.bundle"))
    assert_agreement(theirs, {MODEL: digest(ours)})
    assert theirs.git("rev-parse", "HEAD") == ours.git("rev-parse", "main")
    assert "is okay" in theirs.theta("bundle", "verify", str(tmp_path / "new.bundle")).stderr


def test_a_bundle_is_merged_with_what_was_done_here(ours: Repo, theirs: Repo, tmp_path: Path) -> None:
    session = Session.here(ours.path)
    made = bundles.create(session, tmp_path / "new.bundle", ["main~1..main"])
    assert list(made.heads) == ["refs/heads/main"]
    edit(theirs, "head.weight")
    theta(theirs, "commit", "-qam", "mine")
    said = theta(theirs, "bundle", "apply", str(tmp_path / "new.bundle")).out
    assert "1 changed of" in said
    assert "file" not in said  # of those below .theta/ that git would count
    assert_agreement(theirs)
    assert len(theirs.git("rev-list", "--parents", "-1", "HEAD").split()) == 3


def test_a_bundle_that_does_not_fit_says_why(ours: Repo, theirs: Repo, tmp_path: Path) -> None:
    file, ours = tmp_path / "new.bundle", copied(ours, tmp_path / "ours")
    edit(ours, "head.weight")
    theta(ours, "commit", "-qam", "later")
    ours.git("branch", "other", "main~1")
    theta(ours, "bundle", "create", str(file), "main~1..main")
    done = theta(theirs, "bundle", "apply", str(file), code=int(ExitCode.NOT_FOUND))
    assert "continues commit" in done.err and "which is not here" in done.err
    theta(ours, "bundle", "create", str(file), "main", "other")
    done = theta(theirs, "bundle", "apply", str(file), code=2)
    assert "refs/heads/main, refs/heads/other" in done.err
    theta(theirs, "bundle", "apply", str(file), "other")
    assert theirs.git("rev-parse", "HEAD") == ours.git("rev-parse", "other")
    file.write_bytes(b"nothing")
    assert "no bundle" in theta(theirs, "bundle", "apply", str(file), code=int(ExitCode.IO_ERROR)).err


_EVIL = (
    "+refs/heads/evil:refs/heads/main",
    "refs/heads/evil:refs/heads/main",
    "--upload-pack=touch ran",
    "--rebase=true",
    "-f",
    "main",
    "refs/heads/*",
    "refs/heads/a..b",
    "refs/heads/\udcff:refs/heads/main",
)


def _with_heads(ours: Repo, file: Path, *names: str) -> Path:
    """Write a bundle of main whose heads have these names."""
    ours.git("bundle", "create", "-q", str(file), "main")
    oid, pack = ours.git("rev-parse", "main"), file.read_bytes().partition(b"\n\n")[2]
    rows = "".join(f"{oid} {name}\n" for name in names).encode("utf-8", "surrogateescape")
    file.write_bytes(b"# v2 git bundle\n" + rows + b"\n" + pack)
    return file


def test_a_head_of_a_bundle_is_no_refspec_and_no_option(ours: Repo, theirs: Repo, tmp_path: Path) -> None:
    """A file from a stranger moved the branch that was checked out, by force, over an unpushed commit."""
    file = _with_heads(ours, tmp_path / "evil.bundle", _EVIL[0], "refs/heads/evil")
    edit(theirs, "head.weight")
    theta(theirs, "commit", "-qam", "not pushed")
    before = theirs.git("for-each-ref"), theirs.git("rev-parse", "HEAD")
    for words in ((), (_EVIL[0],)):
        done = theta(theirs, "bundle", "apply", str(file), *words, code=int(ExitCode.CORRUPT))
        assert "no name of a ref" in done.err
    assert (theirs.git("for-each-ref"), theirs.git("rev-parse", "HEAD")) == before
    session = Session.here(theirs.path)
    for name in _EVIL:
        with pytest.raises(CorruptError, match="no name of a ref"):
            bundles.read(session, _with_heads(ours, file, name, "refs/heads/evil"))
    for name in ("HEAD", "refs/heads/-x", "refs/heads/é"):
        assert list(bundles.read(session, _with_heads(ours, file, name)).heads) == [name]


@pytest.mark.parametrize("program", ["git", "theta"])
def test_a_patch_carries_tensors_and_says_which(
    ours: Repo, theirs: Repo, tmp_path: Path, program: str
) -> None:
    ours.git("format-patch", "-q", "-1", "-o", str(tmp_path), "main")
    (patch,) = tmp_path.glob("*.patch")
    text = patch.read_text()
    assert f" {TENSOR}\n-    f32 [32, 32] sha256:" in text, text[-900:]
    assert len(text) < (ours.path / MODEL).stat().st_size / 2
    done = run_either(theirs, program, "am", "-q", str(patch))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert_agreement(theirs, {MODEL: digest(ours)})
    assert theirs.git("rev-parse", "HEAD^{tree}") == ours.git("rev-parse", "main^{tree}")


@pytest.mark.parametrize("program", ["git", "theta"])
@pytest.mark.parametrize("way", ["--index", "-3"])
def test_a_patch_that_is_applied_has_no_trees_yet(
    ours: Repo, theirs: Repo, tmp_path: Path, program: str, way: str
) -> None:
    """The filter told of a tree that is not there, and the file was restored all the same."""
    ours.git("format-patch", "-q", "-1", "-o", str(tmp_path), "main")
    done = run_either(theirs, program, "apply", way, *map(str, tmp_path.glob("*.patch")))
    assert (done.returncode, "theta" in done.stderr.replace(".theta", "")) == (0, False), done.stderr
    theirs.git("commit", "-qm", "patched")
    assert_agreement(theirs, {MODEL: digest(ours)})


@pytest.mark.parametrize("program", ["git", "theta"])
def test_a_slow_series_of_patches_leaves_each_checkpoint_as_git_knows_it(
    ours: Repo, theirs: Repo, tmp_path: Path, program: str
) -> None:
    """Git keeps the index in memory from patch to patch: a file filled in early looks changed."""
    ours = copied(ours, tmp_path / "ours")
    edit(ours, TENSOR, 2.0)
    theta(ours, "commit", "-qam", "trained again")
    ours.git("format-patch", "-q", "-2", "-o", str(tmp_path), "main")
    hook = theirs.write(
        ".git/hooks/pre-applypatch", '#!/bin/sh\n[ "$(cat .git/rebase-apply/next)" = 1 ] || sleep 1.1\n'
    )
    hook.chmod(0o755)
    run = theirs.git if program == "git" else theirs.theta
    run("am", "-q", *map(str, sorted(tmp_path.glob("*.patch"))))
    assert_agreement(theirs, {MODEL: digest(ours)})
    assert theirs.git("rev-parse", "HEAD^{tree}") == ours.git("rev-parse", "main^{tree}")
