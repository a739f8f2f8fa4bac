"""Objects are found in packs, loose, and in alternates, and as they come; nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import Repo
from theta.git.backends.loose_and_packed import ObjectFiles, places


@pytest.mark.parametrize("form", ["sha1", "sha256"])
def test_what_git_has_is_found(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DEFAULT_HASH", form)
    repo = Repo.create(tmp_path / "repo")
    objects = repo.path / ".git/objects"
    found = ObjectFiles(places(objects), 20 if form == "sha1" else 32)
    for turn in range(4):
        repo.write("a", f"{turn}" * 3)
        repo.git("add", "-A")
        repo.git("commit", "-qm", f"{turn}")
        ids = repo.git("rev-list", "--all", "--objects", "--no-object-names").split()
        absent = [oid[:-1] + ("0" if oid[-1] != "0" else "1") for oid in ids]
        assert all(map(found.has, ids)) and not any(map(found.has, absent))
        repo.git("repack", "-q", *(["-a", "-d"] if turn == 2 else ["-d"]))  # some packs, then one
        assert all(map(found.has, ids)) and not any(map(found.has, absent))
    repo.git("clone", "-q", "--shared", ".", str(tmp_path / "shared"))
    borrowed = ObjectFiles(places(tmp_path / "shared/.git/objects"), len(ids[0]) // 2)
    assert all(map(borrowed.has, ids)) and not any(map(borrowed.has, absent))


def test_a_file_that_ends_early_is_known(repo: Repo) -> None:
    """libgit2 would read it for ever."""
    oid = repo.git("rev-parse", "HEAD:code.py")
    place = repo.path / ".git/objects" / oid[:2] / oid[2:]
    whole = place.read_bytes()
    place.chmod(0o600)
    for data, is_cut in ((whole, False), (whole[:-9], True), (whole[:5], True), (b"", True), (b"no", False)):
        place.write_bytes(data)
        assert ObjectFiles([place.parents[1]], 20).is_cut_short(oid) is is_cut
    place.write_bytes(whole)
    repo.git("repack", "-q", "-a")
    place.write_bytes(whole[:-9])
    assert not ObjectFiles([place.parents[1]], 20).is_cut_short(oid)
    place.unlink()
    assert not ObjectFiles([place.parents[1]], 20).is_cut_short(oid)


def test_a_damaged_index_has_nothing(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    for number, data in enumerate((b"", b"PACK" * 400, b"\xfftOc\0\0\0\x02" + b"\xff" * 1100)):
        (tmp_path / f"pack/pack-{number}.idx").write_bytes(data)
    assert not ObjectFiles([tmp_path], 20).has("ab" * 20)
