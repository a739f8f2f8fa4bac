"""``theta scan``: files, folders and revisions; and the one-line warnings of add and clone."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import struct
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.checks import never_a_bug, refused
from tests.support import Repo, make_model, random_tensors
from theta.porcelain.tensors import scanning

DATA = Path(__file__).parents[1] / "formats" / "data"


class Gadget:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


EVIL = pickle.dumps({"w": np.zeros(8, np.float32), "x": Gadget()}, 4)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A repository with a harmless and a dangerous checkpoint, and a plain file that is a pickle."""
    repo = Repo.create(tmp_path_factory.mktemp("scan") / "repo")
    repo.theta("track", "*.pt", "*.pkl", "*.safetensors")
    repo.write("good.pt", (DATA / "checkpoint.1.pt").read_bytes())
    repo.write("plain.bin", EVIL)
    repo.write("sub/evil.pkl", EVIL)
    make_model(repo.path / "m.safetensors", random_tensors({"w": (4, 4)}))
    repo.theta("add", ".")
    repo.theta("commit", "-m", "all")
    return repo


def found(repo: Repo, *args: str, code: int = 1) -> dict[str, Any]:
    """The entries of ``theta scan --json``, by name."""
    rows = json.loads(repo.theta("scan", "--json", *args, code=code).stdout)["theta.scan/v1"]
    return {row["name"]: row for row in rows}


def test_a_file_a_folder_and_a_revision_agree(repo: Repo) -> None:
    assert found(repo, "good.pt", code=0)["good.pt"]["verdict"] == "safe"
    here = found(repo)
    assert {name: row["verdict"] for name, row in here.items() if row["verdict"] != "safe"} == {
        "plain.bin": "dangerous",
        "sub/evil.pkl": "dangerous",
    }
    committed = found(repo, "HEAD")
    assert {name.partition(":")[2]: row["globals"] for name, row in committed.items()} == {
        name: row["globals"] for name, row in here.items()
    }
    one = found(repo, "HEAD:sub/evil.pkl")["HEAD:sub/evil.pkl"]
    assert {"where": "", "global": f"{os.name}.system", "verdict": "dangerous"} in one["globals"]


def test_links_in_a_folder_are_not_left_out(repo: Repo, tmp_path: Path) -> None:
    """Downloaded models are folders of links, and such a folder is not clean because nobody looked."""
    snapshot = tmp_path / "snapshot"
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "a1").write_bytes(EVIL)
    snapshot.mkdir()
    (snapshot / "model.pt").symlink_to("../blobs/a1")
    (snapshot / "more").symlink_to("../blobs")
    (snapshot / "nothing").symlink_to("nowhere")
    here = found(repo, str(snapshot))
    assert {Path(name).name: row["verdict"] for name, row in here.items()} == {
        "model.pt": "dangerous",
        "more": "unknown",
    }
    assert here[str(snapshot / "more")]["unread"] == ["a link to a folder, which was not scanned"]


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shut").mkdir()
    listed = os.scandir

    def closed(place: str) -> Any:
        if os.path.basename(place) == "shut":  # root could read it
            raise PermissionError(13, "Permission denied", place)
        return listed(place)

    monkeypatch.setattr(os, "scandir", closed)
    (row,) = scanning.scan(["."], tmp_path)
    assert (row.name, row.report.worst()) == ("shut", "unknown")
    assert row.report.broken == ("a folder that cannot be read: Permission denied",)


def test_people_see_what_is_dangerous(repo: Repo) -> None:
    done = repo.theta("scan", "sub", code=1)
    assert done.stdout.splitlines() == [
        "sub/evil.pkl: dangerous",
        f"  dangerous  {os.name}.system",
        "1 file scanned, 1 with pickles",
    ]
    assert not (repo.path / "pwned").exists()


def test_what_is_neither_a_file_nor_a_revision(repo: Repo, tmp_path: Path) -> None:
    refused(repo.theta("scan", "nothing.pt", code=None), 13, "nothing.pt")
    refused(repo.theta("scan", "HEAD:nothing.pt", code=None), 13, "nothing.pt")
    refused(repo.theta("-C", str(tmp_path), "scan", "nothing.pt", code=None), 13, "nothing.pt")


def test_add_and_clone_warn_in_one_line(repo: Repo, tmp_path: Path) -> None:
    repo.write("sub/more.pkl", pickle.dumps(Gadget(), 3))
    done = repo.theta("add", "sub/more.pkl")
    lines = [line for line in done.stderr.splitlines() if "would call" in line]
    assert len(lines) == 1 and lines[0].startswith("warning: sub/more.pkl: ")
    assert "would call" not in repo.theta("add", "sub/more.pkl", "good.pt").stderr
    repo.git("rm", "-q", "--cached", "sub/more.pkl")
    cloned = repo.theta("clone", str(repo.path), str(tmp_path / "clone"))
    assert [line.split(":")[1].strip() for line in cloned.stderr.splitlines() if "would call" in line] == [
        "sub/evil.pkl"
    ]
    never_a_bug(cloned)


def zipped(*members: tuple[str, bytes]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def distributed() -> bytes:
    """Two archives, one behind the other; the second is dangerous."""
    return zipped(("a/data.pkl", pickle.dumps({}, 2))) + zipped(("b/data.pkl", EVIL))


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(EVIL),
        distributed(),
        zipped(("archive/data.pkl", pickle.dumps([], 2)), ("archive/extra", EVIL)),
        pickle.dumps([1], 2) + EVIL,
        pickle.dumps(Gadget(), 0),
        EVIL[:-1],
    ],
    ids=["gzip", "two archives", "a stray member", "two pickles", "protocol 0", "cut off"],
)
def test_where_a_pickle_may_hide(tmp_path: Path, repo: Repo, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert found(repo, str(path))[str(path)]["verdict"] == "dangerous"


def test_a_header_that_looks_like_a_protocol_is_no_pickle(tmp_path: Path, repo: Repo) -> None:
    """The length 640 of a header is ``80 02``, as a pickle of protocol 2 begins."""
    path = make_model(tmp_path / "m.safetensors", {"w": np.zeros(2, np.float32)}, {"k": "v" * 541})
    while path.read_bytes()[:2] != b"\x80\x02":
        text = path.read_bytes()[8:]
        head = text[: text.rindex(b"}") + 1].ljust(640)
        path.write_bytes(struct.pack("<Q", 640) + head + bytes(8))
    assert found(repo, str(path), code=0)[str(path)] == {
        "name": str(path),
        "verdict": "safe",
        "globals": [],
        "unread": [],
    }
