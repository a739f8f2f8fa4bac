"""B4, B5: what a newer theta wrote, or nobody could have written, is named with the path that it concerns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.checks import never_a_bug
from tests.compat.inprocess import copied, started
from tests.compat.story import MODEL, TENSOR, digest
from tests.support import Repo
from tests.support.repos import describe
from theta.errors import ExitCode


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A repository with one checkpoint."""
    return started(tmp_path_factory.mktemp("model") / "repo")


@pytest.fixture
def repo(model: Repo, tmp_path: Path) -> Repo:
    """A copy that a test may change."""
    return copied(model, tmp_path / "repo")


def blob(repo: Repo, text: str) -> str:
    """The id of a new blob."""
    return repo.git("hash-object", "-w", "--stdin", stdin=text)


def commit_manifest(repo: Repo, text: str, path: str = MODEL) -> None:
    """Commit ``text`` as the manifest at ``path``, past theta; the file is left as it is."""
    repo.git("update-index", "--add", "--cacheinfo", f"100644,{blob(repo, text)},{path}")
    tree = repo.git("write-tree")
    repo.git("update-ref", "HEAD", repo.git("commit-tree", tree, "-p", "HEAD", "-m", "past theta"))


def with_record(repo: Repo, old: str, new: str) -> None:
    """Commit the checkpoint with ``old`` replaced by ``new`` in the ``@tensor`` of a tensor."""
    manifest = repo.git("show", f"HEAD:{MODEL}") + "\n"
    found = re.search(rf"{re.escape(TENSOR)}\n.* ([0-9a-f]{{40}})\n", manifest)
    assert found is not None
    rows = repo.git("ls-tree", found[1]).split("\n")
    record = repo.git("show", f"{found[1]}:@tensor") + "\n"
    assert old in record
    oid = blob(repo, record.replace(old, new))
    rows = [f"100644 blob {oid}\t@tensor" if row.endswith("@tensor") else row for row in rows]
    tree = repo.git("mktree", stdin="\n".join(rows) + "\n")
    commit_manifest(repo, manifest.replace(found[1], tree))


@pytest.mark.parametrize("codec", ["evil/9", "dense/2", "delta/9"])
def test_b4_a_codec_that_is_not_known_is_newer_than_this_theta(repo: Repo, codec: str) -> None:
    base = repo.git("rev-parse", "HEAD")
    with_record(repo, "dense/1", codec)
    fsck = repo.theta("fsck", code=int(ExitCode.CORRUPT))
    assert re.search(rf"{MODEL}#{TENSOR}: .*'{codec}', a codec that is newer than this theta", fsck.stdout)
    repo.git("branch", "newer")
    repo.git("update-ref", "HEAD", base)
    repo.theta("restore", "--staged", MODEL)
    (repo.path / MODEL).unlink()
    for args in (
        ["restore", "-s", "newer", MODEL],
        ["show", "--codecs", f"newer:{MODEL}"],
        ["show", f"newer:{MODEL}#{TENSOR}"],
        ["cat", f"newer:{MODEL}#{TENSOR}"],
        ["export", f"newer:{MODEL}", "-o", "out.npz"],
    ):
        done = repo.theta(*args, code=int(ExitCode.NEWER_FORMAT))
        assert "newer than this theta" in done.stderr, describe(done)
        assert MODEL in done.stderr.splitlines()[0], describe(done)
        never_a_bug(done)


def test_b4_a_merge_refuses_a_codec_that_is_not_known(repo: Repo) -> None:
    base = repo.git("rev-parse", "HEAD")
    for branch, letter in (("one", "1"), ("other", "2")):
        repo.git("update-ref", "HEAD", base)
        repo.git("read-tree", "HEAD")
        with_record(repo, "dense/1", f"evil/{letter}")
        text = repo.git("show", f"HEAD:{MODEL}") + "\n"
        changed = re.sub(rf"({TENSOR}\n.*sha256:).", rf"\g<1>{letter}", text)
        commit_manifest(repo, changed)
        repo.git("branch", branch)
    repo.git("update-ref", "HEAD", "one")
    repo.git("read-tree", "one")
    done = repo.theta("merge", "--dry-run", "-X", "average", "other", code=int(ExitCode.NEWER_FORMAT))
    assert "newer than this theta" in done.stderr, describe(done)
    assert MODEL in done.stderr, describe(done)
    never_a_bug(done)


MALFORMED = {
    "store": ("store model.safetensors", "store ../evil", "bad store name", ExitCode.BAD_MANIFEST),
    "entry": (f"end {TENSOR}", "end other", "broken entry", ExitCode.BAD_MANIFEST),
    "newer": ("theta checkpoint 1", "theta checkpoint 2", "format 2", ExitCode.NEWER_FORMAT),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_b5_restore_of_a_malformed_manifest_is_an_error(repo: Repo, kind: str) -> None:
    old, new, said, code = MALFORMED[kind]
    want = digest(repo)
    repo.theta("restore", MODEL)
    text = repo.git("show", f"HEAD:{MODEL}") + "\n"
    repo.git("update-index", "--add", "--cacheinfo", f"100644,{blob(repo, text)},other.safetensors")
    commit_manifest(repo, text.replace(old, new))
    (repo.path / MODEL).unlink()
    done = repo.theta("restore", ".", code=int(code))
    assert re.match(rf"error: {MODEL}: .*{said}", done.stderr), describe(done)
    assert digest(repo, "other.safetensors") == want, "the others are written all the same"
    for args in (
        ["show", "HEAD:" + MODEL],
        ["cat", f"HEAD:{MODEL}#{TENSOR}"],
        ["restore", "-s", "HEAD", "."],
    ):
        done = repo.theta(*args, code=None)
        never_a_bug(done)
        assert done.returncode != 0, describe(done)
        assert MODEL in done.stderr, describe(done)


@pytest.mark.parametrize("kind", ["store", "entry"])
def test_b5_log_says_malformed(repo: Repo, kind: str) -> None:
    old, new, said, _ = MALFORMED[kind]
    text = repo.git("show", f"HEAD:{MODEL}") + "\n"
    commit_manifest(repo, text.replace(old, new))
    done = repo.theta("log", "--stat", "-n", "1")
    assert re.search(rf"{MODEL} \| malformed: .*{said}", done.stdout), describe(done)
    assert '"malformed"' in repo.theta("log", "--json", "-n", "1").stdout


def test_stores_stay_beside_a_manifest_that_cannot_be_read(tracked: Repo) -> None:
    """The hook that follows what is staged took ``.theta/`` out of the index."""
    text = tracked.git("show", f"HEAD:{MODEL}").replace("end ", "ends ", 1) + "\n"
    stores = tracked.git("ls-files", "-s", ".theta")
    (tracked.path / ".git/theta/resync").write_text("")
    oid = tracked.git("hash-object", "-w", "--stdin", stdin=text)
    tracked.git("update-index", "--cacheinfo", f"100644,{oid},{MODEL}")
    assert tracked.git("ls-files", "-s", ".theta") == stores
