"""Everything that theta stores is read by ``tests.independent``, which knows the specification alone."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.independent import DECODERS, restore
from tests.independent.codecs import dense
from tests.independent.histories import Story
from tests.independent.numbers import KINDS, Kind, Words, empty, to_bytes, to_words
from tests.independent.primitives import Cursor
from tests.support import Repo, make_model, random_tensors, sha256
from tests.support.environment import ROOT

HERE = Path(__file__).parent
BUNDLES = sorted(HERE.glob("repository-*.bundle"))
STREAMS = sorted((HERE / "codecs").glob("*.json"))


def test_the_reader_needs_neither_theta_nor_numpy() -> None:
    code = (
        "import sys, tests.independent; print(*sorted({'theta', 'theta_native', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_codec_of_the_specification_is_read() -> None:
    page = (ROOT / "theta" / "docs" / "codecs.md").read_text()
    codecs = set(re.findall(r"^``(\w+/\d+)``: ", page, re.MULTILINE))
    assert codecs == {"dense/1", *DECODERS}


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.stem)
def test_golden_repositories_are_restored(tmp_path: Path, bundle: Path) -> None:
    repository = tmp_path / "clone.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(bundle), str(repository)], check=True)
    assert read_all(repository, json.loads(bundle.with_suffix(".json").read_text())) > 20


def read_all(repository: Path, wanted: Mapping[str, Mapping[str, str]]) -> int:
    """Restore the files of commits, which have these digests; return how many there are."""
    read = 0
    for commit, digests in wanted.items():
        for path, digest in digests.items():
            with tempfile.TemporaryFile() as out:
                restore(repository, commit, path, out)
                out.seek(0)
                assert hashlib.file_digest(out, "sha256").hexdigest() == digest, (commit, path)
            read += 1
    return read


@dataclass
class Given:
    """A layer whose words are given."""

    kind: Kind
    shape: list[int]
    given: Words

    @property
    def count(self) -> int:
        """The number of words."""
        return self.kind.size(self.shape) // self.kind.width

    def words(self, start: int, stop: int) -> Words:
        """Return some words, as a copy."""
        return self.given[start:stop]


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_golden_streams_are_decoded(path: Path) -> None:
    golden = json.loads(path.read_text())
    kind, shape = KINDS[golden["dtype"]], golden["shape"]
    found = hashlib.sha256()
    for (start, stop), stream in zip(golden["ranges"], golden["chunks"], strict=True):
        cursor = Cursor(base64.b64decode(stream))
        if golden["base"] is None:
            words = dense(cursor, stop - start, kind)
        else:
            shared = base64.b64decode(golden["shared"] or "")
            decoder = DECODERS[golden["codec"]](
                Given(kind, shape, empty(kind)), _base(golden["base"]), shared
            )
            words = decoder.chunk(cursor, start, stop)
        cursor.end()
        found.update(to_bytes(words))
    assert found.hexdigest() == golden["sha256"]


def _base(golden: dict[str, Any]) -> Given:
    kind = KINDS[golden["dtype"]]
    return Given(kind, golden["shape"], to_words(base64.b64decode(golden["raw"]), kind))


def test_there_are_golden_streams_of_every_codec() -> None:
    assert {json.loads(path.read_text())["codec"] for path in STREAMS} == {"dense/1", *DECODERS}


def test_a_history_with_every_codec_is_read(tmp_path: Path) -> None:
    story = Story(tmp_path / "repo", seed=1)
    story.live(5)
    assert story.codecs() == {"dense/1", *DECODERS}
    assert read_all(story.repo.path, story.digests) > 50


def test_a_repository_of_sha256_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    repo = Repo.create(tmp_path / "repo")
    repo.theta("track", "*.safetensors")
    model = make_model(repo.path / "model.safetensors", random_tensors({"a": (8, 8), "b": (3,)}))
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "model")
    assert len(repo.git("rev-parse", "HEAD")) == 64
    assert read_all(repo.path, {"HEAD": {"model.safetensors": sha256(model)}}) == 1


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(100, 112))
def test_many_histories_are_read(tmp_path: Path, seed: int) -> None:
    """Read 12 histories of 8 commits: all came back on 27 Nov 2026, in 444 seconds of a busy machine."""
    story = Story(tmp_path / "repo", seed)
    story.live(8)
    read_all(story.repo.path, story.digests)
