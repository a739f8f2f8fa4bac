"""Merges keep git's habits: hooks (faults G5), octopus guards (G3), and no request is dropped (B2)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.compat.inprocess import branched, copied, shift, started, theta
from tests.compat.story import MODEL, edit
from tests.support import Repo

TENSOR = "layer.1.weight"
AVERAGE = ("-X", "average")
HOOKS = (
    "pre-commit",
    "pre-merge-commit",
    "prepare-commit-msg",
    "commit-msg",
    "post-commit",
    "post-merge",
)


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Four branches: a, b and c changed one tensor, d another one; a is checked out."""
    repo = started(tmp_path_factory.mktemp("forest") / "repo")
    branched(repo, a=[(TENSOR, 1.0)], b=[(TENSOR, 2.0)], c=[(TENSOR, 6.0)], d=[("layer.2.weight", 3.0)])
    theta(repo, "switch", "-q", "a")
    return repo


@pytest.fixture
def repo(forest: Repo, tmp_path: Path) -> Repo:
    return copied(forest, tmp_path / "repo")


def hook(repo: Repo, name: str, body: str) -> None:
    """The user's hook, which was there before theta's."""
    place = repo.path / ".git/hooks" / name
    if place.exists() and "# theta hook" in place.read_text():
        place = place.with_name(f"{name}.before-theta")
    place.write_text(f"#!/bin/sh\n{body}\n")
    place.chmod(0o755)


def noting(repo: Repo) -> Path:
    """Hooks that note their names and arguments."""
    notes = repo.path.parent / "hooks-run"
    for name in HOOKS:
        hook(repo, name, f'echo {name} "$@" >> {notes}')
    return notes


def ran(notes: Path) -> list[str]:
    lines = notes.read_text().splitlines()
    notes.unlink()
    return lines


def heads(repo: Repo) -> list[str]:
    return repo.git("rev-parse", "HEAD^@").split()


@pytest.mark.parametrize("others", [["b"], ["b", "d"], ["b", "--signoff"]])
def test_g5_a_merge_runs_the_hooks_that_git_runs(repo: Repo, others: list[str]) -> None:
    """Merged in memory, several branches, and through git, which an option asks for."""
    notes = noting(repo)
    theta(repo, "merge", *AVERAGE, *others)
    assert ran(notes) == [
        "pre-merge-commit",
        "prepare-commit-msg .git/MERGE_MSG merge",
        "commit-msg .git/MERGE_MSG",
        "post-merge 0",
    ]
    assert shift(repo, TENSOR) == 1.5
    assert ("Signed-off-by" in repo.git("log", "-1", "--format=%B")) == ("--signoff" in others)
    theta(repo, "merge", "--replay", "HEAD")


def test_g5_hooks_of_other_ways_to_end_a_merge(repo: Repo) -> None:
    notes = noting(repo)
    theta(repo, "merge", *AVERAGE, "--no-verify", "b")
    assert ran(notes) == ["prepare-commit-msg .git/MERGE_MSG merge", "post-merge 0"]
    theta(repo, "merge", *AVERAGE, "--squash", "c")
    assert ran(notes) == ["post-merge 1"]
    theta(repo, "reset", "-q", "--hard", "HEAD~1")
    theta(repo, "merge", "c", code=1)
    theta(repo, "resolve", *AVERAGE)
    theta(repo, "merge", "--continue")
    assert [line.split()[0] for line in ran(notes)][:3] == ["pre-commit", "prepare-commit-msg", "commit-msg"]


@pytest.mark.parametrize("gate", ["pre-merge-commit", "commit-msg"])
def test_g5_a_gate_that_fails_stops_the_merge(repo: Repo, gate: str) -> None:
    before = repo.git("rev-parse", "HEAD")
    hook(repo, gate, "exit 1")
    theta(repo, "merge", *AVERAGE, "b", code=1)
    assert repo.git("rev-parse", "HEAD", "MERGE_HEAD").split() == [before, repo.git("rev-parse", "b")]
    assert shift(repo, TENSOR) == 1.5
    hook(repo, gate, "exit 0")
    theta(repo, "merge", "--continue")
    assert len(heads(repo)) == 2
    theta(repo, "merge", "--replay", "HEAD")


def test_the_editor_opens_where_it_is_asked_for(repo: Repo, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "1s/.*/said in the editor/" "$1"\n')
    editor.chmod(0o755)
    theta(repo, "merge", *AVERAGE, "-e", "b", env={"GIT_EDITOR": str(editor)})
    assert repo.git("log", "-1", "--format=%s") == "said in the editor"
    assert "Theta-Merge: -X average" in repo.git("log", "-1", "--format=%B")


def test_g5_a_merge_killed_in_a_hook_goes_on(repo: Repo) -> None:
    """The hook kills theta, the git that it started, and the script that theta installed, if it waits."""
    up = "p=$(cut -d' ' -f4 /proc/$p/stat)"
    walk = f'p=$PPID; while [ $p -gt 1 ] && [ $p != {os.getpid()} ]; do all="$p $all"; {up}; done'
    hook(repo, "pre-merge-commit", f"{walk}; kill -9 $all")
    repo.afresh = True
    repo.theta("merge", *AVERAGE, "b", code=-9)
    hook(repo, "pre-merge-commit", "exit 0")
    theta(repo, "merge", "--continue")
    assert (len(heads(repo)), shift(repo, TENSOR)) == (2, 1.5)
    theta(repo, "merge", "--replay", "HEAD")


def test_g5_hooks_in_a_folder_of_the_users_own(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    repo.git("config", "core.hooksPath", str(tmp_path / "own"))
    (tmp_path / "own/commit-msg").write_text('#!/bin/sh\necho "Reviewed-by: hook" >> "$1"\n')
    (tmp_path / "own/commit-msg").chmod(0o755)
    theta(repo, "merge", *AVERAGE, "b")
    assert "Reviewed-by: hook" in repo.git("log", "-1", "--format=%B")


def test_g3_an_octopus_refuses_what_is_staged(repo: Repo) -> None:
    before = repo.git("rev-parse", "HEAD")
    repo.write("code.py", "print('staged')\n")
    for command in (["add", "code.py"], ["rm", "-q", "-f", "code.py"]):
        repo.git(*command)
        staged = repo.git("diff", "--cached", "--name-status")
        told = theta(repo, "merge", *AVERAGE, "b", "d", code=2)
        assert "would be overwritten by merge" in told.err
        assert "code.py" in told.err
        assert repo.git("rev-parse", "HEAD") == before
        assert repo.git("diff", "--cached", "--name-status") == staged


def test_g3_an_octopus_puts_changes_aside(repo: Repo) -> None:
    repo.write("code.py", "print('staged')\n")
    repo.git("add", "code.py")
    mine = edit(repo, "embed.weight", 9.0)
    theta(repo, "merge", *AVERAGE, "--autostash", "b", "d")
    assert len(heads(repo)) == 3
    assert (repo.path / "code.py").read_text() == "print('staged')\n"
    assert (shift(repo, TENSOR), shift(repo, "embed.weight")) == (1.5, 9.0)
    assert repo.git("show", "HEAD:code.py") == "print('hello')"
    assert mine
    assert repo.git("stash", "list") == ""


def test_g3_heads_are_reduced(repo: Repo) -> None:
    own, b, d = (repo.git("rev-parse", name) for name in ("a", "b", "d"))
    theta(repo, "merge", *AVERAGE, "a", "b", "d", "b")
    assert heads(repo) == [own, b, d]
    theta(repo, "switch", "-q", "main")
    theta(repo, "merge", *AVERAGE, "b", "d")
    assert heads(repo) == [b, d]
    theta(repo, "merge", "--replay", "HEAD")


def test_g3_configuration_of_git_counts_for_several_branches(repo: Repo) -> None:
    before = repo.git("rev-parse", "HEAD")
    repo.git("config", "merge.ff", "only")
    theta(repo, "merge", *AVERAGE, "b", "d", code=128)
    repo.git("config", "--unset", "merge.ff")
    repo.git("config", "pull.octopus", "ours")
    theta(repo, "merge", *AVERAGE, "b", "d", code=2)
    assert repo.git("rev-parse", "HEAD") == before
    theta(repo, "merge", "b", "d")
    assert (len(heads(repo)), shift(repo, TENSOR)) == (3, 1.0)


def test_messages_name_tags_and_early_parts_as_git_does(repo: Repo) -> None:
    tagged = f"object {repo.git('rev-parse', 'b')}\ntype commit\ntag v1\ntagger A <a@b.c> 1700000000 +0000\n"
    signature = "-----BEGIN PGP SIGNATURE-----\n\nabc\n-----END PGP SIGNATURE-----\n"
    text = f"{tagged}\nthe text of the tag\n{signature}"
    repo.git("tag", "v1", repo.git("hash-object", "-t", "tag", "-w", "--stdin", stdin=text))
    repo.git("commit", "-q", "--allow-empty", "-m", "empty")
    theta(repo, "merge", *AVERAGE, "v1")
    assert repo.git("log", "-1", "--format=%B").startswith("Merge tag 'v1' into a\n\nthe text of the tag\n")
    assert "mergetag object" in repo.git("cat-file", "-p", "HEAD")
    theta(repo, "switch", "-q", "d")
    repo.git("commit", "-q", "--allow-empty", "-m", "empty")
    theta(repo, "switch", "-q", "c")
    theta(repo, "merge", *AVERAGE, "d~1")
    assert repo.git("log", "-1", "--format=%s") == "Merge branch 'd' (early part) into c"


def recipe(repo: Repo, *models: str) -> str:
    repo.write("r.yaml", f"merge_method: linear\nmodels: [{', '.join(f'{{model: {m}}}' for m in models)}]\n")
    return "r.yaml"


def test_b2_a_recipe_that_cannot_be_carried_out_is_an_error(repo: Repo) -> None:
    for _ in range(2):
        repo.git("commit", "-q", "--allow-empty", "-m", "later")
    before = repo.git("rev-parse", "HEAD")
    told = theta(repo, "merge", "--recipe", recipe(repo, "HEAD~1", "HEAD~2"), code=2)
    assert "cannot be carried out" in told.err
    assert "HEAD~2" in told.err
    assert repo.git("rev-parse", "HEAD") == before


REQUESTS = {
    "rule": ["--rule", f"{TENSOR}=ours"],
    "strategy": ["-X", "ties"],
    "strategy beside git's option": ["-X", "patience", "-X", "average"],
    "scope": ["--scope", "all"],
    "seed": ["--seed", "3"],
    "allow-nan": ["--allow-nan"],
}


@pytest.mark.parametrize("names", [["HEAD~1"], ["HEAD~1", "HEAD~2"], ["HEAD~1", "old"], ["HEAD"]])
def test_b2_what_asks_for_nothing_of_theta_is_up_to_date_as_in_git(repo: Repo, names: list[str]) -> None:
    for _ in range(2):
        repo.git("commit", "-q", "--allow-empty", "-m", "later")
    repo.git("branch", "old", "HEAD~1")
    before = repo.git("rev-parse", "HEAD")
    for asked in ([], ["-X", "ours"], ["-X", "patience"], ["--no-ff"], ["--no-prompt"], ["-m", "said"]):
        assert theta(repo, "merge", *asked, *names).out == "Already up to date.\n"
    for asked in REQUESTS.values():
        assert theta(repo, "merge", *asked, *names).out == "Already up to date.\n"
        assert theta(repo, "merge", "--dry-run", *asked, *names).out == "Already up to date.\n"
    assert theta(repo, "merge", "--dry-run", *names).out == "Already up to date.\n"
    told = json.loads(theta(repo, "merge", "--dry-run", "--json", *names).out)["theta.merge/v1"]
    assert (told["up_to_date"], told["fast_forward"], told["checkpoints"]) == (True, None, {})
    assert repo.git("rev-parse", "HEAD") == before
    assert not (repo.path / ".git" / "MERGE_HEAD").exists()


def test_a_merge_that_is_done_again_is_up_to_date(repo: Repo) -> None:
    """A script may merge again, with the same words."""
    for words in (("b",), ("b", "c"), ("--scope", "all", "d")):
        theta(repo, "merge", *AVERAGE, *words)
        before = repo.git("rev-parse", "HEAD")
        assert theta(repo, "merge", *AVERAGE, *words).out == "Already up to date.\n"
        assert repo.git("rev-parse", "HEAD") == before
    searched = ("-X", "ties", "--search", "density=0.2:0.4:0.1", "--score", "false {}", "b")
    assert theta(repo, "merge", *searched).out == "Already up to date.\n"


def test_a_rehearsal_tells_of_a_fast_forward(repo: Repo) -> None:
    repo.git("checkout", "-q", "-B", "behind", "a")
    repo.git("checkout", "-q", "-b", "ahead")
    shift_by = edit(repo, TENSOR, 1.0)
    repo.git("commit", "-q", "-am", shift_by)
    ahead = repo.git("rev-parse", "HEAD")
    repo.git("checkout", "-q", "behind")
    line = f"would fast-forward to {ahead[:12]}"
    assert line in theta(repo, "merge", "--dry-run", "ahead").out
    assert (
        json.loads(theta(repo, "merge", "--dry-run", "--json", "ahead").out)["theta.merge/v1"]["fast_forward"]
        == ahead
    )
    for given in ("--no-ff", "--squash"):
        assert line not in theta(repo, "merge", "--dry-run", given, "ahead").out
    repo.git("config", "merge.ff", "false")
    assert line not in theta(repo, "merge", "--dry-run", "ahead").out
    repo.git("config", "--unset", "merge.ff")
    assert theta(repo, "merge", "ahead").out
    assert repo.git("rev-parse", "HEAD") == ahead, "git forwards, as was told"


def test_b2_a_request_holds_for_the_branches_that_are_left(repo: Repo) -> None:
    repo.git("commit", "-q", "--allow-empty", "-m", "later")
    asked = ("-X", "fisher", *3 * ["--statistics", f"d:{MODEL}"])
    told = theta(repo, "merge", *asked, "HEAD~1", "d", code=2)
    assert "--statistics cannot be carried out" in told.err
    theta(repo, "merge", *AVERAGE, "HEAD~1", "d")
    assert len(heads(repo)) == 2


def test_b2_options_of_a_continued_merge_have_something_to_settle(repo: Repo) -> None:
    theta(repo, "merge", "--no-commit", *AVERAGE, "d")
    told = theta(repo, "merge", "--continue", "--rule", f"{TENSOR}=ours", code=2)
    assert "nothing is in conflict" in told.err
    theta(repo, "merge", "--continue")


def test_b2_a_recipe_computes_where_git_would_fast_forward(repo: Repo) -> None:
    theta(repo, "switch", "-q", "main")
    theta(repo, "merge", "--recipe", recipe(repo, "main", "c"))
    assert (len(heads(repo)), shift(repo, TENSOR)) == (2, 3.0)
    theta(repo, "merge", "--replay", "HEAD")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--rule", "layr.1.weight=ours", "b"], "matches no tensor"),
        (["-s", "ours", "-X", "average", "b"], "-X average would have no effect"),
        (["-s", "ours", "--dry-run", "b"], "--dry-run would have no effect"),
        (["--replay", "HEAD", "-X", "average"], "-X average would have no effect"),
        (["--abort", "--seed", "3"], "--seed would have no effect"),
        (["--continue", "b"], "--continue takes no revision"),
        (["-X", "fisher", "--statistics", f"a:{MODEL}", "b"], "given 1 times and the merge has 2 sides"),
        (
            ["-X", "average", "--statistics", f"a:{MODEL}", "--statistics", f"b:{MODEL}", "b"],
            "--statistics would have no effect",
        ),
    ],
)
def test_b2_what_would_be_dropped_in_silence_is_refused(repo: Repo, args: list[str], words: str) -> None:
    before = repo.git("rev-parse", "HEAD")
    assert words in theta(repo, "merge", *args, code=2).err
    assert repo.git("rev-parse", "HEAD") == before
    assert not (repo.path / ".git/MERGE_HEAD").exists()


def test_b2_what_other_commands_cannot_do_is_refused(repo: Repo) -> None:
    assert "only a merge has" in theta(repo, "cherry-pick", "--recipe", recipe(repo, "b"), "b", code=2).err
    theta(repo, "cherry-pick", "b", code=1)
    assert "only a merge has" in theta(repo, "resolve", "--recipe", "r.yaml", code=2).err
    assert "matches no tensor" in theta(repo, "resolve", "--rule", "nosuch=ours", code=2).err
    assert "not a file that git knows" in theta(repo, "resolve", "nosuch", code=13).err
    assert MODEL in repo.git("ls-files", "-u")


def test_options_of_a_merge_are_read_as_git_reads_them(repo: Repo, tmp_path: Path) -> None:
    """Bundles, abbreviations and values in the next word, with a strategy for tensors and without."""
    (tmp_path / "words").write_text("of a file\n")
    theta(repo, "merge", "-qm", "one", "-m", "two", "--no-ff", "-X", "average", "b")
    assert repo.git("log", "-1", "--format=%B").startswith("one\n\ntwo")
    theta(repo, "reset", "-q", "--hard", "HEAD^")
    theta(repo, "merge", "--fil", str(tmp_path / "words"), "--clean", "verbatim", "-X", "average", "b")
    assert repo.git("log", "-1", "--format=%s") == "of a file"
    theta(repo, "reset", "-q", "--hard", "HEAD^")
    head = repo.git("rev-parse", "HEAD")
    told = theta(repo, "merge", "--nosuch", "-X", "average", "b", code=2)
    assert "git merge lists no such option: '--nosuch b'" in told.err
    assert repo.git("rev-parse", "HEAD") == head
