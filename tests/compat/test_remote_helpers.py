"""Partial clones of a remote behind a helper, which hands its environment to the git of the remote."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.inprocess import started, theta
from tests.compat.story import SHAPES, digest, edit
from tests.support import Repo

NOTES = [f"notes/{number}.txt" for number in range(3)]
LINES = "".join(f"line {number}\n" for number in range(40))


@pytest.fixture(scope="module", params=["sha1", "sha256"])
def origin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Both branches changed all tensors and all texts, and a path differs in each of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_DEFAULT_HASH", request.param)
        repo = started(tmp_path_factory.mktemp(request.param) / "origin")
    for key in ("allowFilter", "allowAnySHA1InWant"):
        repo.git("config", f"uploadpack.{key}", "true")
    _saved(repo, "base", LINES, 0.0)
    theta(repo, "switch", "-q", "-c", "side")
    repo.git("mv", NOTES[0], "moved.txt")
    _saved(repo, "side", "side\n" + LINES, 1.0)
    theta(repo, "switch", "-q", "main")
    _saved(repo, "main", LINES + "main\n", 2.0)
    return repo


def _saved(repo: Repo, name: str, text: str, by: float) -> None:
    for path in NOTES:
        moved = name == "side" and path == NOTES[0]
        repo.write("moved.txt" if moved else path, f"{path}\n{text}")
    for tensor in SHAPES:
        edit(repo, tensor, by)
    theta(repo, "add", ".")
    theta(repo, "commit", "-q", "-m", name)


@pytest.mark.parametrize("kind", ["blob:none", "tree:0"])
def test_a_merge_and_its_rehearsal(origin: Repo, tmp_path: Path, kind: str) -> None:
    url, place = f"ext::git-upload-pack {origin.path}", tmp_path / "clone"
    allowed = ("-c", "protocol.ext.allow=always")
    origin.git(*allowed, "clone", "-q", f"--filter={kind}", "--no-checkout", url, str(place))
    clone = Repo(place, origin.ticks)
    clone.git("config", "protocol.ext.allow", "always")
    theta(clone, "install")
    theta(clone, "checkout", "-q", "main")
    told = theta(clone, "merge", "--dry-run", "-X", "average", "origin/side").out
    assert "5 tensors: 5 merged" in told
    assert "CONFLICT" not in told
    loose = clone.git("count-objects")
    theta(clone, "merge", "--dry-run", "-X", "average", "origin/side")
    assert clone.git("count-objects") == loose, "a rehearsal writes nothing of its own"
    theta(clone, "merge", "-q", "-X", "average", "origin/side")
    theta(origin, "switch", "-q", "--detach", "main")
    theta(origin, "merge", "-q", "-X", "average", "side")
    assert clone.git("rev-parse", "HEAD^{tree}") == origin.git("rev-parse", "HEAD^{tree}")
    assert digest(clone) == digest(origin)
    assert "the same tree" in theta(clone, "merge", "--replay", "HEAD").out
