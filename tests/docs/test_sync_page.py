"""``sync.md`` is true: its Python blocks run, one after the other, in a repository such as it speaks of."""

from __future__ import annotations

import pytest

from tests.docs.pages import Block
from tests.docs.test_python_page import MODEL, run, training
from tests.support import Repo, read_model

__all__ = ["training"]


@pytest.mark.page("sync", "python")
def test_the_page_on_sync_runs(
    training: Repo, monkeypatch: pytest.MonkeyPatch, page_blocks: list[Block]
) -> None:
    names, printed = run(page_blocks, training, monkeypatch)
    assert printed.startswith("None {} ")
    assert names["second"].commit == training.git("rev-parse", "main")
    training.git("show", "main:" + MODEL)
    for place in ("served", "follower"):
        found = read_model(training.path.parent / place / MODEL)
        assert all(names["arrays"][name].tobytes() == value.tobytes() for name, value in found.items())
