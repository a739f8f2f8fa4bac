"""Histories of other stores become theta's, every version byte for byte, and go back."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numcodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from tests.support import Repo, sha256
from theta.errors import CorruptError, FormatError, NotFoundError, RefusedError, ThetaError, UsageError
from theta.porcelain.migration import exporting, importing, rewriting, zarr_arrays
from theta.porcelain.migration.importing import MigrateRequest, MigrateResult
from theta.porcelain.workspace.session import Session
from theta.store.read.random_access import StoredSource

MODEL = "models/m.safetensors"
KEPT = "refs/theta/before-migration/"

# {"parameter": a 5 x 7 float32 array} as tensorstore 0.1.86 and msgpack write it for git-theta 0.2.0.
BY_TENSORSTORE = base64.b64decode(
    "galwYXJhbWV0ZXKCpy56YXJyYXnE03siY2h1bmtzIjpbNSw3XSwiY29tcHJlc3NvciI6eyJibG9ja3NpemUiOjAsImNsZXZlbCI6NSwi"
    "Y25hbWUiOiJsejQiLCJpZCI6ImJsb3NjIiwic2h1ZmZsZSI6LTF9LCJkaW1lbnNpb25fc2VwYXJhdG9yIjoiLiIsImR0eXBlIjoiPGY0"
    "IiwiZmlsbF92YWx1ZSI6bnVsbCwiZmlsdGVycyI6bnVsbCwib3JkZXIiOiJDIiwic2hhcGUiOls1LDddLCJ6YXJyX2Zvcm1hdCI6Mn2j"
    "MC4wxJwCATMEjAAAAIwAAACcAAAAu6DLP0e01b/UdVs/3zcvPv05D73Flxg/Hd3jvyc41j94JRW/cL9QvuoT1D2gOms9H5KZvvdAnb8v"
    "ldE/aSSiPC2TmT9Wvw+/HWfXPtIRhb4Iqz4+sXphPxxNlT/qSya/TvZEPyqG5b1G7im/QysvvgQfxT3YyFO+JA8AP+3Us79TU0m+OhOP"
    "PowcDb8="
)


def values(version: int) -> dict[str, NDArray[Any]]:
    """Tensors of which one changes from version to version."""
    found = {f"l{n}.w": np.random.default_rng(n).standard_normal((48, 32)).astype("f4") for n in range(3)}
    found[f"l{version % 3}.w"] += np.float32(1e-3 * version)
    return found


def write_model(repo: Repo, version: int, path: str = MODEL) -> bytes:
    """Write a version of the checkpoint; return its bytes."""
    place = repo.path / path
    place.parent.mkdir(parents=True, exist_ok=True)
    save_file(values(version), place)
    return place.read_bytes()


def session_of(repo: Repo) -> Session:
    """A session of a user who stands in the root."""
    return Session.here(repo.path)


def migrated(
    repo: Repo, origin: str, *patterns: str, history: bool = True, dry: bool = False
) -> MigrateResult:
    """The result of a migration."""
    return importing.migrate(session_of(repo), MigrateRequest(origin, patterns, history, dry))


def content(repo: Repo, revision: str, path: str = MODEL) -> bytes:
    """The file that theta gives for a revision."""
    session = session_of(repo)
    source = StoredSource(session.objects, session.at(revision).manifests[path])
    return source.read(0, source.size)


def assert_whole(repo: Repo) -> None:
    """Assert that git, theta, index and files agree."""
    repo.git("fsck", "--strict", "--no-dangling")
    assert repo.git("status", "--porcelain") == ""
    repo.theta("fsck")


@pytest.fixture(scope="module")
def lfs_template(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A history of 20 commits with a branch, a merge and an annotated tag; git-lfs keeps its model."""
    repo = Repo.create(tmp_path_factory.mktemp("lfs") / "repo")
    repo.git("lfs", "install", "--local")
    repo.git("lfs", "track", "*.safetensors", "*.png")
    repo.write("p.png", b"\x89PNG" * 300)
    for version in range(15):
        write_model(repo, version)
        repo.git("add", "-A")
        repo.git("commit", "-qm", f"version {version}")
    repo.git("tag", "-a", "v1", "-m", "first release", "HEAD~5")
    repo.git("checkout", "-qb", "side", "HEAD~3")
    write_model(repo, 40)
    repo.git("commit", "-qam", "on the side")
    repo.git("checkout", "-q", "main")
    repo.git("merge", "-q", "-s", "ours", "side", "-m", "merged")
    repo.write("code.py", "print(2)\n")
    repo.git("commit", "-qam", "code alone")
    return repo


@pytest.fixture
def in_lfs(lfs_template: Repo, tmp_path: Path) -> Repo:
    """A copy of that repository."""
    return lfs_template.copy(tmp_path / "repo")


def by_lfs(repo: Repo, revision: str) -> str:
    """The SHA-256 that the pointer of a revision names."""
    return repo.git("show", f"{revision}:{MODEL}").split("sha256:")[1].split()[0]


def test_every_version_of_an_lfs_history_becomes_a_checkpoint(in_lfs: Repo) -> None:
    old = in_lfs.git("rev-list", "--topo-order", "--all").split()
    wanted = {oid: by_lfs(in_lfs, oid) for oid in old[:-1]}
    about = ("log", "--all", "--topo-order", "--format=%an%ae%ad%cn%cd%B")
    before = in_lfs.git(*about)
    done = migrated(in_lfs, "lfs")
    assert done.files == {MODEL: 16}
    assert done.left == {"p.png"}
    assert set(done.refs) == {"refs/heads/main", "refs/heads/side", "refs/tags/v1"}
    assert in_lfs.git("log", "--branches", "--tags", "--topo-order", "--format=%an%ae%ad%cn%cd%B") == before
    for oid, digest in wanted.items():
        assert hashlib.sha256(content(in_lfs, done.rewritten[oid])).hexdigest() == digest
    assert sha256(in_lfs.path / MODEL) == wanted[old[0]]
    assert in_lfs.git("cat-file", "-t", "v1") == "tag"
    assert in_lfs.git("check-attr", "filter", MODEL, "p.png").split()[2::3] == ["theta", "lfs"]
    assert in_lfs.git("rev-parse", f"{KEPT}heads/main") == old[0]
    assert_whole(in_lfs)


def test_an_exported_history_has_the_commits_of_before(in_lfs: Repo) -> None:
    wanted = in_lfs.git("rev-parse", "main^{tree}", "side^{tree}", "v1^{tree}")
    migrated(in_lfs, "lfs")
    with pytest.raises(RefusedError, match="an earlier migration"):
        exporting.export(session_of(in_lfs), "lfs")
    for ref in in_lfs.git("for-each-ref", "--format=%(refname)", KEPT).split():
        in_lfs.git("update-ref", "-d", ref)
    for file in (in_lfs.path / ".git/lfs/objects").rglob("*"):
        if file.is_file() and file.stat().st_size > 5000:
            file.unlink()
    done = exporting.export(session_of(in_lfs), "lfs")
    assert done.files == {MODEL: 16}
    assert in_lfs.git("show", f"main:{MODEL}").startswith("version https://git-lfs")
    assert in_lfs.git("lfs", "fsck") == "Git LFS fsck OK"
    # The order of the lines of .gitattributes is another one.
    new = in_lfs.git("rev-parse", "main:models", "side:models", "v1:models")
    trees = wanted.split()
    assert new.split() == [in_lfs.git("rev-parse", f"{tree}:models") for tree in trees]
    assert in_lfs.git("status", "--porcelain") == ""
    assert in_lfs.git("ls-tree", "main", ".theta") == ""


def test_one_new_commit_leaves_the_history_alone(in_lfs: Repo) -> None:
    head, wanted = in_lfs.git("rev-parse", "HEAD"), sha256(in_lfs.path / MODEL)
    done = migrated(in_lfs, "lfs", history=False)
    assert (done.files, done.rewritten) == ({MODEL: 1}, {})
    assert in_lfs.git("rev-parse", "HEAD^") == head
    assert hashlib.sha256(content(in_lfs, "HEAD")).hexdigest() == sha256(in_lfs.path / MODEL) == wanted
    assert_whole(in_lfs)


def test_a_dry_run_tells_what_is_missing_and_changes_nothing(in_lfs: Repo) -> None:
    gone = by_lfs(in_lfs, "HEAD")
    (in_lfs.path / ".git/lfs/objects" / gone[:2] / gone[2:4] / gone).unlink()
    before = in_lfs.git("for-each-ref")
    done = migrated(in_lfs, "lfs", dry=True)
    assert [gone[:12] in line for line in done.lacking] == [True]
    with pytest.raises(NotFoundError, match=gone[:12]):
        migrated(in_lfs, "lfs")
    said = in_lfs.theta("migrate", "lfs", "--all-history", "--dry-run", code=1).stdout
    assert "missing: models/m.safetensors" in said
    assert "stays with Git LFS: p.png" in said
    assert in_lfs.git("for-each-ref") == before


def test_an_object_with_other_bytes_stops_all(in_lfs: Repo) -> None:
    oid = by_lfs(in_lfs, "HEAD~4")
    place = in_lfs.path / ".git/lfs/objects" / oid[:2] / oid[2:4] / oid
    place.chmod(0o644)
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(data)
    before = in_lfs.git("for-each-ref")
    with pytest.raises(CorruptError, match="other bytes than its name says"):
        migrated(in_lfs, "lfs")
    assert in_lfs.git("for-each-ref") == before
    assert in_lfs.git("status", "--porcelain") == ""


def test_changes_that_are_not_committed_are_refused(in_lfs: Repo) -> None:
    in_lfs.write("code.py", "print(3)\n")
    with pytest.raises(RefusedError, match=r"code\.py has changes"):
        migrated(in_lfs, "lfs")


def test_a_shallow_clone_is_refused(in_lfs: Repo, tmp_path: Path) -> None:
    shallow = in_lfs.clone(tmp_path / "shallow", "--depth", "1")
    with pytest.raises(RefusedError, match="shallow"):
        migrated(shallow, "lfs", dry=True)


def test_lines_of_a_nested_file_of_attributes_do_not_win(tmp_path: Path) -> None:
    """Git takes the last line of the nearest file: theta's has to be there."""
    repo = Repo.create(tmp_path / "repo")
    repo.git("lfs", "install", "--local")
    repo.write("models/.gitattributes", "m.* filter=lfs diff=lfs merge=lfs -text\nn.bin filter=lfs -text\n")
    write_model(repo, 1)
    repo.write("models/n.bin", b"\0" * 2000)
    repo.git("add", "-A")
    repo.git("commit", "-qm", "one")
    migrated(repo, "lfs", "*.safetensors")
    assert repo.git("check-attr", "filter", MODEL, "models/n.bin").split()[2::3] == ["theta", "lfs"]
    assert_whole(repo)


def test_plain_blobs_become_checkpoints_and_plain_blobs_again(tmp_path: Path) -> None:
    repo = Repo.create(tmp_path / "repo")
    wanted = []
    for version in range(3):
        wanted.append(write_model(repo, version))
        repo.git("add", "-A")
        repo.git("commit", "-qm", f"version {version}")
    tree = repo.git("rev-parse", "HEAD^{tree}")
    assert migrated(repo, "raw").files == {MODEL: 3}
    assert [content(repo, f"HEAD~{2 - n}") for n in range(3)] == wanted
    assert_whole(repo)
    with pytest.raises(UsageError, match="no checkpoint of plain git"):
        migrated(repo, "raw")
    repo.theta("commit", "--allow-empty", "-qm", "later")
    for ref in repo.git("for-each-ref", "--format=%(refname)", KEPT).split():
        repo.git("update-ref", "-d", ref)
    said = repo.theta("export-history", "--as", "raw", "--object-map", "map.txt")
    assert "1 file(s) with 3 version(s)" in said.stderr + said.stdout
    assert repo.git("rev-parse", "HEAD^{tree}") == tree
    assert len((repo.path / "map.txt").read_text().splitlines()) == 4
    assert repo.git("status", "--porcelain", "--untracked-files=no") == ""


def test_unsigned_bytes_of_a_commit_stay_and_signatures_go() -> None:
    tree, parent = "a" * 40, "b" * 40
    data = (
        b"tree "
        + b"0" * 40
        + b"\nparent "
        + b"1" * 40
        + b"\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n"
        b"gpgsig -----BEGIN\n line\n -----END\nencoding latin1\n"
        b"mergetag object x\n type commit\n\ncaf\xe9\n\ntree z\n"
    )
    people = "author A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n"
    wanted = f"tree {tree}\nparent {parent}\n{people}encoding latin1\n\n"
    assert rewriting.rewritten_bytes(data, tree, [parent]) == wanted.encode() + b"caf\xe9\n\ntree z\n"


# -- DVC ------------------------------------------------------------------------------


def in_dvc(tmp_path: Path, *, old: bool) -> tuple[Repo, list[bytes]]:
    """A repository of DVC 2 (``old``) or 3: a file and a folder, each in two versions."""
    repo = Repo.create(tmp_path / "repo")
    cache = tmp_path / "elsewhere"
    repo.write(
        ".dvc/config",
        f"[core]\n    remote = x\n[cache]\n    dir = {os.path.relpath(cache, repo.path / '.dvc')}\n",
    )
    repo.write(".gitignore", "/m.safetensors\n/folder\nother\n")

    def kept(data: bytes, suffix: str = "") -> str:
        md5 = hashlib.md5(data).hexdigest()
        root = cache if old else cache / "files" / "md5"
        (root / md5[:2]).mkdir(parents=True, exist_ok=True)
        (root / md5[:2] / (md5[2:] + suffix)).write_bytes(data)
        return md5 + suffix

    models = []
    for version in range(2):
        data = write_model(repo, version, "m.safetensors")
        models.append(data)
        inner = [("a/x.safetensors", data), ("read.me", b"text %d" % version)]
        listed = [{"md5": kept(body), "relpath": name} for name, body in inner]
        folder = kept(json.dumps(listed).encode(), ".dir")
        way = "" if old else "  hash: md5\n"
        repo.write(
            "m.safetensors.dvc",
            f"outs:\n- md5: {kept(data)}\n  size: {len(data)}\n{way}  path: m.safetensors\n",
        )
        repo.write("folder.dvc", f"outs:\n- md5: {folder}\n  nfiles: 2\n{way}  path: folder\n")
        repo.write("text.csv.dvc", f"outs:\n- md5: {kept(b'a,b')}\n  path: text.csv\n")
        repo.git("add", "-A")
        repo.git("commit", "-qm", f"version {version}")
    return repo, models


@pytest.mark.parametrize("old", [True, False], ids=["dvc 2", "dvc 3"])
def test_outputs_of_dvc_become_checkpoints(tmp_path: Path, old: bool) -> None:
    repo, models = in_dvc(tmp_path, old=old)
    done = migrated(repo, "dvc")
    assert done.files == {"m.safetensors": 2, "folder/a/x.safetensors": 2}
    for n, data in enumerate(models):
        assert content(repo, f"HEAD~{1 - n}", "m.safetensors") == data
        assert content(repo, f"HEAD~{1 - n}", "folder/a/x.safetensors") == data
        assert repo.git("show", f"HEAD~{1 - n}:folder/read.me") == f"text {n}"
    assert repo.git("ls-files", "*.dvc") == "text.csv.dvc"
    assert (repo.path / ".gitignore").read_text() == "other\n"
    assert (repo.path / "m.safetensors").read_bytes() == models[-1]
    assert_whole(repo)


@pytest.mark.parametrize(
    "text",
    [
        "outs:\n- md5: {md5}\n  path: ../../m.safetensors\n",
        "outs:\n- md5: {md5}\n  path: /etc/m.safetensors\n",
        "wdir: ../..\nouts:\n- md5: {md5}\n  path: m.safetensors\n",
        "outs: [",
        "!!python/object/apply:os.system ['touch {md5}']",
    ],
)
def test_a_hostile_file_of_dvc_is_refused(tmp_path: Path, text: str) -> None:
    repo = Repo.create(tmp_path / "repo")
    repo.write("x.dvc", text.format(md5="a" * 32))
    repo.git("add", "-A")
    repo.git("commit", "-qm", "one")
    with pytest.raises(FormatError):
        migrated(repo, "dvc", dry=True)
    assert not (repo.path / ("a" * 32)).exists()


# -- git-theta ------------------------------------------------------------------------


def packed(arrays: Mapping[str, NDArray[Any]], chunks: tuple[int, ...] | None = None) -> bytes:
    """Arrays as git-theta packs them."""
    coder = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=-1)
    found = {}
    for name, array in arrays.items():
        size = chunks or tuple(max(n, 1) for n in array.shape)
        about = {
            "chunks": size,
            "compressor": coder.get_config(),
            "dtype": array.dtype.str,
            "fill_value": None,
            "filters": None,
            "order": "C",
            "shape": array.shape,
            "zarr_format": 2,
        }
        files = {".zarray": json.dumps(about).encode()}
        for at in np.ndindex(*(-(-n // m) for n, m in zip(array.shape, size, strict=True))):
            part = array[tuple(slice(n * m, n * m + m) for n, m in zip(at, size, strict=True))]
            whole = np.zeros(size, array.dtype)
            whole[tuple(map(slice, part.shape))] = part
            files[".".join(map(str, at)) or "0"] = coder.encode(whole)
        found[name] = files
    return bytes(msgpack.packb(found, use_bin_type=True))


class GitTheta:
    """A repository as git-theta 0.2.0 lays it out: metadata in git, objects of Git LFS."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self.rows: dict[str, Any] = {}
        repo.write(".gitattributes", "*.safetensors filter=theta merge=theta diff=theta\n")

    def put(self, name: str, kind: str, value: NDArray[Any], stored: bytes) -> None:
        """Let a tensor have this value, stored so."""
        oid = hashlib.sha256(stored).hexdigest()
        place = self.repo.path / ".git/lfs/objects" / oid[:2] / oid[2:4] / oid
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(stored)
        head = self.repo.git("rev-parse", "HEAD")
        self.rows[name] = {
            "tensor_metadata": {"shape": str(value.shape), "dtype": str(value.dtype), "hash": [1, 2]},
            "lfs_metadata": {
                "version": "https://git-lfs.github.com/spec/v1",
                "oid": oid,
                "size": str(len(stored)),
            },
            "theta_metadata": {"update_type": kind, "last_commit": head},
        }

    def commit(self) -> None:
        """Commit the metadata, as git-theta's filter does it."""
        self.repo.write(MODEL, json.dumps(self.rows, indent=4))
        self.repo.git("add", "-A")
        self.repo.git("commit", "-qm", "a version")


def test_every_update_of_git_theta_is_followed(tmp_path: Path) -> None:
    theirs = GitTheta(Repo.create(tmp_path / "repo"))
    rng = np.random.default_rng(0)
    value = {name: rng.standard_normal((9, 7)).astype("f4") for name in ("a", "b", "c", "d")}
    for name, array in value.items():
        theirs.put(name, "dense", array, packed({"parameter": array}, (4, 4) if name == "a" else None))
    theirs.commit()
    wanted = [dict(value)]
    left, right = rng.standard_normal((9, 2)).astype("f4"), rng.standard_normal((2, 7)).astype("f4")
    factor = rng.standard_normal((1, 7)).astype("f4")
    where = np.array([3, 20, 62])
    for _ in range(2):
        value["a"] = left @ right + value["a"]
        theirs.put("a", "low-rank", value["a"], packed({"R": left, "C": right}))
        value["b"] = value["b"] * factor
        theirs.put("b", "ia3", value["b"], packed({"ia3": factor}))
        flat = np.zeros(63, "f4")
        flat[where] = 0.5
        value["c"] = flat.reshape(9, 7) + value["c"]
        sparse = {
            "data": flat[where],
            "indices": where,
            "indptr": np.array([0, 3]),
            "shape": np.array([9, 7]),
        }
        theirs.put("c", "sparse", value["c"], packed(sparse))
        theirs.commit()
        wanted.append(dict(value))
    repo = theirs.repo
    assert migrated(repo, "git-theta").files == {MODEL: 3}
    for n, tensors in enumerate(wanted):
        (tmp_path / "out.safetensors").write_bytes(content(repo, f"HEAD~{2 - n}"))
        found = load_file(tmp_path / "out.safetensors")
        assert found.keys() == tensors.keys()
        for name, array in tensors.items():
            np.testing.assert_array_equal(found[name], array)
    assert "merge=text" in (repo.path / ".gitattributes").read_text()
    assert_whole(repo)


def test_an_array_that_tensorstore_wrote_is_read() -> None:
    found = zarr_arrays.unpacked(BY_TENSORSTORE)["parameter"]
    assert (found.shape, found.dtype.str) == ((5, 7), "<f4")
    assert found[0, :3].tolist() == [1.590842604637146, -1.669564127922058, 0.8572666645050049]


def test_arrays_of_every_shape_are_read() -> None:
    for array in (
        np.array(7),
        np.arange(100, dtype="i1"),
        np.zeros((0, 3)),
        np.arange(24.0).reshape(2, 3, 4),
    ):
        np.testing.assert_array_equal(zarr_arrays.unpacked(packed({"x": array}))["x"], array)
    missing = msgpack.unpackb(packed({"x": np.zeros((4, 4))}, (2, 2)))
    del missing["x"]["1.1"]
    np.testing.assert_array_equal(zarr_arrays.unpacked(msgpack.packb(missing))["x"], np.zeros((4, 4)))


def spoilt(change: Callable[[dict[str, Any]], object]) -> bytes:
    """An object whose metadata was changed."""
    root = msgpack.unpackb(BY_TENSORSTORE)
    about = json.loads(root["parameter"][".zarray"])
    change(about)
    root["parameter"][".zarray"] = json.dumps(about).encode()
    return bytes(msgpack.packb(root))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        msgpack.packb([1]),
        msgpack.packb({"x": {}}),
        spoilt(lambda about: about.update(shape=[1 << 40, 1 << 40])),
        spoilt(lambda about: about.update(shape=[-5, 7])),
        spoilt(lambda about: about.update(chunks=[0, 7])),
        spoilt(lambda about: about.update(chunks=[5, 8])),
        spoilt(lambda about: about.update(dtype="|O")),
        spoilt(lambda about: about.update(dtype="<f8")),
        spoilt(lambda about: about.update(compressor={"id": "pickle"})),
        spoilt(lambda about: about.update(compressor=None)),
        *(BY_TENSORSTORE[:n] for n in range(0, len(BY_TENSORSTORE), 37)),
    ],
)
def test_a_hostile_object_of_git_theta_ends_in_one_line(data: bytes) -> None:
    with pytest.raises(ThetaError):
        zarr_arrays.unpacked(data)
