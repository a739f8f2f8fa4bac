"""Git's files as theta reads them without a process are as git says."""

from __future__ import annotations

import pytest

from tests.support import Repo
from theta.git.commit_graph import index_tree
from theta.git.repository import Repository
from theta.porcelain.merge import trailers
from theta.porcelain.merge.trailers import with_trailers


@pytest.fixture
def filled(repo: Repo) -> Repo:
    for name in ("a", "b/c", "b/d/e", "b.c", "gone", "turned"):
        repo.write(name, name)
    repo.git("add", "-A")
    repo.git("commit", "-qm", "one")
    return repo


def test_the_index_as_git_lists_it(filled: Repo) -> None:
    filled.write("b/\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "odd")
    filled.git("add", "-A")
    filled.git("update-index", "--chmod=+x", "a")
    here = Repository.discover(filled.path)
    assert here.listing() == here.git().run("ls-files", "-s", "-z").stdout
    blob = here.write_blob(b"other")
    rows = "".join(f"100644 {blob} {stage}\ta\n" for stage in (1, 2, 3))
    filled.git("update-index", "--index-info", stdin=f"0 {'0' * len(blob)}\ta\n{rows}")
    assert here.listing() == here.git().run("ls-files", "-s", "-z").stdout
    rows = "".join(f"100644 {blob} 0\tmany/{number}\n" for number in range(5000))
    filled.git("update-index", "--index-info", stdin=rows)
    assert here.listing() == here.git().run("ls-files", "-s", "-z").stdout
    filled.git("update-index", "--split-index")
    assert here.listing() == here.git().run("ls-files", "-s", "-z").stdout


def test_the_tree_of_the_index_as_git_writes_it(filled: Repo) -> None:
    here = Repository.discover(filled.path)
    assert index_tree(here) == filled.git("rev-parse", "HEAD^{tree}").strip()
    filled.write("new/file", "new")
    filled.git("add", "new/file")
    filled.git("rm", "-q", "gone")
    assert index_tree(here) == filled.git("write-tree").strip()
    filled.write("later", "later")
    filled.git("add", "-N", "later")
    assert index_tree(here) in (None, filled.git("write-tree")), "git leaves it out, libgit2 does not"
    filled.git("reset", "-q", "later")
    blob = here.write_blob(b"other")
    rows = "".join(f"100644 {blob} {stage}\ta\n" for stage in (2, 3))
    filled.git("update-index", "--index-info", stdin=f"0 {'0' * len(blob)}\ta\n{rows}")
    assert index_tree(here) is None


@pytest.mark.parametrize(
    "text",
    [
        "Merge branch 'side'\n",
        "Merge branch 'side'\n\n\n",
        "key: value\n",
        "subject\n\nbody\n",
        "subject\n\nSigned-off-by: A <a@b>\n",
        "# comment\n",
        "subject\n# Conflicts:\n#\ta\n",
        "\nlate subject\n",
        "",
    ],
)
@pytest.mark.parametrize("longest", [1, 100_000])
@pytest.mark.parametrize("lines", [["Theta-Merge: -X ties"], ["Theta-Merge: a", "Theta-Merge: 'b  c' d"]])
def test_trailers_stand_where_git_puts_them(
    repo: Repo, text: str, lines: list[str], longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value too long for an argument stands where a short one would."""
    monkeypatch.setattr(trailers, "_LONG", longest)
    here = Repository.discover(repo.path)
    options = [word for line in lines for word in ("--trailer", line)]
    command = ["interpret-trailers", "--if-exists", "add", "--where", "end", *options]
    git = here.git()
    assert with_trailers(here, text.encode(), lines) == git.run(*command, stdin=text.encode()).stdout
    repo.git("config", "trailer.separators", ":=")
    repo.git("config", "trailer.theta-merge.key", "Other: ")
    again = Repository.discover(repo.path)
    assert with_trailers(again, text.encode(), lines) == git.run(*command, stdin=text.encode()).stdout
