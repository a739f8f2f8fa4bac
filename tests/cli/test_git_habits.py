"""theta beside git: the environment, options, exit codes, and what is left out of the output."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.checks import never_a_bug, refused
from tests.support import Repo, make_model, mutate, random_tensors, read_model
from theta.cli import console
from theta.cli.app import run
from theta.git import options
from theta.git.run import plain

QUIET = {"THETA_HOOKS": "off", "GIT_EDITOR": "true", "LC_ALL": "C"}

READING = """
log|log --oneline|log -1|log -n 2 --oneline|log -Shello --format=%s|log -SNone --format=%s
log -Ghello --oneline|log --author T|log --grep text --oneline|log --since yesterday|log -L1,2:f.txt
log --follow --oneline -- f.txt|log -p --oneline -- f.txt|log HEAD~2.. --oneline|log HEAD^! --oneline
log --merges --oneline|log --stat -1|log --stat HEAD~2..|log --stat --oneline -2
log --stat --format=%h -2|log --graph --oneline --all|log -g -2 --oneline|log --bogus|log -- nofile
log -z -2 --format=%H|log --word-diff -p -1|log --tags --simplify-by-decoration --oneline
log --reverse --stat --graph -2|show|show -s|show -s --format=%h|show --stat|show --name-only
show HEAD HEAD~1|show HEAD~2..HEAD|show v1|show HEAD:f.txt|show HEAD:d|show :f.txt|show HEAD:nofile
show HEAD -- f.txt|show :/text|show nobranch|show HEAD^!|show HEAD~1 f.txt|show --bogus|show -U0 side
show --format=raw -s|diff|diff --stat|diff --name-only|diff -U1|diff --cached|diff HEAD|diff HEAD~1..HEAD
diff HEAD^!|diff HEAD~1 f.txt|diff :/text HEAD|diff HEAD~1 HEAD side|diff --no-index f.txt g.txt
diff HEAD:f.txt side:f.txt|diff --diff-filter A HEAD~2|diff -Ghello|diff --quiet|diff --exit-code
diff --raw|diff --check|diff -R|diff --bogus|diff -- nofile|diff --base|diff -I side
diff --find-object HEAD:f.txt HEAD~2|diff --merge-base side|status -s|status -sb|status --short --branch
status --porcelain|status --porcelain -b|status --porcelain=v1|status --porcelain=v2
status --porcelain -z|status --porcelain --ignored|status --porcelain -uno|status -z
status --no-renames --porcelain|status -s f.txt|status --porcelain d|status --bogus|status --porcelain=v3
commit --short|commit --porcelain -a|commit -z|commit --bogus|commit -m|reset --bogus|checkout nobranch
switch|restore|restore --bogus x|add|add --bogus|rm|rm nofile|mv|mv nofile x|fetch nowhere|push nowhere
rebase --bogus|merge --bogus|cherry-pick --bogus|cherry-pick|revert --bogus|clone|clone --bogus
branch --bogus|tag --bogus
"""
LINES = [line for row in READING.strip().splitlines() for line in row.split("|")]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A checkpoint at first; then commits of text alone, a merge of a branch, a tag; changes of each kind."""
    repo = Repo.create(tmp_path_factory.mktemp("habits") / "repo")
    repo.theta("track", "*.safetensors")
    make_model(repo.path / "m.safetensors", random_tensors({"w": (8, 4), "v": (3,)}))
    repo.write("f.txt", "one\nhello\n")
    repo.write("d/sp ace", "x\n")
    repo.theta("add", "-A")
    repo.theta("commit", "-qm", "base")
    repo.git("switch", "-qc", "side", env=QUIET)
    repo.write("f.txt", "one\nhello\nside\n")
    repo.git("commit", "-qam", "side text", env=QUIET)
    repo.git("switch", "-q", "main", env=QUIET)
    repo.write("g.txt", "g\n")
    repo.git("add", "g.txt", env=QUIET)
    repo.git("commit", "-qm", "None", env=QUIET)
    repo.git("tag", "-am", "ann", "v1", env=QUIET)
    repo.git("commit", "-q", "--allow-empty", "-m", "empty", env=QUIET)
    repo.git("merge", "-q", "--no-edit", "side", env=QUIET)
    repo.write("f.txt", "one\nhello\nside\ndirty\n")
    repo.write("un tracked", "")
    repo.write("staged", "")
    repo.git("add", "staged", env=QUIET)
    return repo


def test_g6_what_git_prints_theta_prints(repo: Repo) -> None:
    """``show A..B`` was a bug of theta, ``status --porcelain -b`` printed the long form."""
    wrong = []
    for line in LINES:
        by_git, by_theta = (
            repo.try_git(*line.split(), env=QUIET),
            repo.theta(*line.split(), code=None, env=QUIET),
        )
        never_a_bug(by_theta)
        if (by_git.returncode, by_git.stdout) != (by_theta.returncode, by_theta.stdout):
            rows = difflib.unified_diff(by_git.stdout.splitlines(), by_theta.stdout.splitlines(), lineterm="")
            wrong.append((line, by_git.returncode, by_theta.returncode, by_theta.stderr, *rows))
    assert not wrong


@pytest.fixture
def two(tmp_path: Path) -> Repo:
    """Two commits of a checkpoint, of which the second resized a tensor."""
    repo = Repo.create(tmp_path / "repo")
    repo.theta("track", "*.safetensors")
    first = random_tensors({"embed": (40, 6), "w": (8, 4)})
    make_model(repo.path / "m.safetensors", first)
    repo.theta("add", "-A")
    repo.theta("commit", "-qm", "one")
    grown = np.concatenate([first["embed"] * 2, np.ones((5, 6), first["embed"].dtype)])
    make_model(repo.path / "m.safetensors", {**first, "embed": grown})
    repo.write("code.py", "changed\n")
    return repo


BOTH = "40x6 → 45x6".replace("x", "\N{MULTIPLICATION SIGN}")
LOOKS = [
    *(
        "status",
        "status -uno",
        "status -v",
        "diff --stat",
        "diff --cached",
        "diff HEAD~",
        "diff HEAD~ --name-only",
    ),
    *("show", "show --stat", "show -p HEAD~", "show HEAD~..HEAD", "log --stat", "log --stat --oneline"),
    *("log -p", "log --stat --format=%h", "log --name-status", "log --numstat --graph", "commit --dry-run"),
    *("show HEAD:", "show HEAD:./", "ls-tree HEAD", "ls-tree -r --name-only HEAD", "ls-tree -z -r HEAD"),
    *("show -m HEAD", "log --raw HEAD~..", "commit -m empty", "ls-files"),
    *("whatchanged", "whatchanged -- code.py", "whatchanged HEAD code.py"),
]


def test_f4_no_word_of_stores_or_of_sparse_checkouts(two: Repo) -> None:
    """``You are in a sparse checkout with 4 % of tracked files present`` and two lines a tensor."""
    attributes = ".theta/**"  # a line of the file .gitattributes itself
    for line in LOOKS:
        done = two.theta(*line.split(), code=None)
        said = (done.stdout + done.stderr).replace(attributes, "")
        assert ".theta" not in said, (line, said)
        assert "sparse checkout" not in said, (line, said)
    two.theta("commit", "-qam", "two")
    mutate(two.path / "m.safetensors", "w", lambda old: old + 1)
    for line in (*LOOKS, "stash push", "stash apply", "reset --hard", "stash pop"):
        done = two.theta(*line.split(), code=None)
        said = (done.stdout + done.stderr).replace(attributes, "")
        assert ".theta" not in said, (line, said)
        assert "sparse checkout" not in said, (line, said)


@pytest.mark.parametrize("program", ["theta", "git"])
@pytest.mark.parametrize("folder", [".", "sub"])
def test_f4_no_word_of_stores_in_the_editor(two: Repo, program: str, folder: str) -> None:
    """The template of a message had git's notice of sparse checkout, and two lines a tensor."""
    (two.path / "sub").mkdir()
    editor = two.path.parent / "editor"
    editor.write_text(f'#!/bin/sh\ncp "$1" {editor}.seen; echo "# 20% more" >"$1"; echo said >>"$1"\n')
    editor.chmod(0o755)
    run = two.theta if program == "theta" else two.git
    env = {**QUIET, "GIT_EDITOR": str(editor)}
    two.theta("add", "-A")
    run("-C", folder, "commit", env=env)
    seen = (editor.parent / "editor.seen").read_text()
    assert "m.safetensors" in seen
    assert ".theta" not in seen
    assert "sparse checkout" not in seen
    assert two.git("log", "-1", "--format=%s") == "said"
    notice = "# You are in a sparse checkout with 1% of tracked files present."
    run("commit", "-q", "--allow-empty", "-m", notice)
    assert two.git("log", "-1", "--format=%s") == notice, "no editor was asked"


@pytest.mark.parametrize("command", ["commit", "commit -a", "commit --no-edit"])
def test_f4_nothing_to_commit_says_no_more_than_that(two: Repo, command: str) -> None:
    """The refusal of git came with ``You are in a sparse checkout``."""
    two.theta("commit", "-qam", "two")
    done = two.theta(*command.split(), code=1)
    assert "nothing to commit" in done.stdout
    assert "sparse checkout" not in done.stdout


def test_f5_a_resized_tensor_has_numbers(two: Repo) -> None:
    """``show HEAD`` and ``diff --stats`` told nothing of a tensor that grew."""
    row = next(line for line in two.theta("diff", "--stats").stdout.splitlines() if line.startswith("S"))
    assert BOTH in row
    assert "100.000%" in row  # twice the old values
    two.theta("commit", "-qam", "two")
    said = two.theta("show").stdout
    assert f"S embed  {BOTH}, first 40 rows: ‖Δ‖/‖W‖ 100.000%, cosine 1.000000" in said


@pytest.mark.parametrize(
    ("shape", "words"),
    [((40, 9), "first 40x6 elements"), ((30, 4), "first 30x4 elements"), ((30, 6), "first 30 rows")],
)
@pytest.mark.parametrize("committed", [True, False])
def test_f5_columns_are_compared_as_rows_are(
    two: Repo, shape: tuple[int, int], words: str, committed: bool
) -> None:
    """Other column counts had no numbers; "(first 4 compared)" was cut at 78 columns."""
    two.theta("checkout", "-q", ".")
    before = read_model(two.path / "m.safetensors")
    new = np.full(shape, 7, np.float32)
    rows, columns = min(40, shape[0]), min(6, shape[1])
    new[:rows, :columns] = before["embed"][:rows, :columns] * 3
    make_model(two.path / "m.safetensors", {**before, "embed": new})
    if committed:
        two.theta("commit", "-qam", "two")
    words = words.replace("x", "\N{MULTIPLICATION SIGN}")
    asked = ["HEAD~", "HEAD"] if committed else []
    said = two.theta("diff", "--stats", *asked, env={"COLUMNS": "78"}).stdout
    assert "200.000%" in said
    assert f"embed: {words} compared" in said.splitlines()
    told = json.loads(two.theta("diff", "--json", "--stats", *asked).stdout)
    assert told["theta.diff/v1"][0]["tensors"][0]["stats"]["compared"] == [rows, columns]
    if committed:
        assert f"{words}: ‖Δ‖/‖W‖ 200.000%, cosine 1.000000" in two.theta("show").stdout


def test_f5_numbers_are_not_cut_at_78_columns(two: Repo) -> None:
    """Tables wrapped in the middle of numbers."""
    name = "model.layers.0.self_attn.q_proj.of.a.long.name.weight"
    make_model(two.path / "m.safetensors", random_tensors({name: (4096, 8)}))
    two.theta("commit", "-qam", "long name")
    mutate(two.path / "m.safetensors", name, lambda old: (old * 1.001).astype(old.dtype))
    wide = two.theta("diff", "--stats", env={"COLUMNS": "200"}).stdout.split()
    narrow = two.theta("diff", "--stats", env={"COLUMNS": "78"}).stdout
    numbers = [word for word in wide if any(letter.isdigit() for letter in word) and word != name]
    assert len(numbers) > 5
    assert [word for word in numbers if word not in narrow.split()] == []
    assert max(map(len, narrow.splitlines())) <= 78


def test_f2_a_rename_is_told_as_one(two: Repo) -> None:
    """A renamed checkpoint was "deleted" and "new", with all of its tensors."""
    two.theta("mv", "m.safetensors", "n.safetensors")
    two.theta("add", "-A")
    assert (
        " renamed m.safetensors -> n.safetensors: 1 changed of 2 tensors"
        in two.theta("commit", "-m", "mv").stdout
    )
    told = two.theta("log", "-1", "--stat").stdout.splitlines()
    assert " m.safetensors -> n.safetensors | 1 changed of 2 tensors" in told
    two.theta("mv", "n.safetensors", "o.safetensors")
    done = two.theta("commit", "--json", "-m", "again")
    assert json.loads(done.stdout)["theta.commit/v1"]["renamed"] == {"o.safetensors": "n.safetensors"}
    two.theta("switch", "-qc", "behind", "HEAD~")
    told = two.theta("merge", "main").stdout.splitlines()
    assert " renamed n.safetensors -> o.safetensors" in told
    assert not [line for line in told if "=>" in line], "told once"


def test_q_is_taken_by_commands_of_theta_too(tmp_path: Path) -> None:
    """``track -q`` was refused."""
    repo = Repo.create(tmp_path / "repo")
    for line in ("track -q *.npz", "track --quiet *.pt", "untrack -q *.pt", "fsck -q", "untrack -- *.npz"):
        assert repo.theta(*line.split()).stdout == "", line
    assert repo.theta("track", "--", "-q").stdout.startswith("tracking")


def test_a_bad_store_name_is_told_once(two: Repo) -> None:
    """``fsck`` printed REV:PATH twice."""
    text = two.git("show", "HEAD:m.safetensors").replace("store m.safetensors", "store ../x") + "\n"
    (two.path.parent / "bad").write_text(text)
    oid = two.git("hash-object", "-w", "--no-filters", str(two.path.parent / "bad"))
    two.git("update-index", "--cacheinfo", f"100644,{oid},m.safetensors")
    two.git("commit", "-qm", "bad", "--no-verify", env={"THETA_HOOKS": "off"})
    (line,) = [one for one in two.theta("fsck", code=None).stdout.splitlines() if "bad store" in one]
    assert line.count("m.safetensors") == 1


def test_f2_words_of_a_commit(tmp_path: Path) -> None:
    """A new file without tensors was "unchanged"; "41 deleted of 0 tensors"; the size was not the file's."""
    repo = Repo.create(tmp_path / "repo")
    repo.theta("track", "*.safetensors")
    make_model(repo.path / "none.safetensors", {})
    make_model(repo.path / "m.safetensors", random_tensors({"a": (10, 10), "b": (3,)}))
    size = (repo.path / "m.safetensors").stat().st_size
    assert f"({size} B in the file)" in repo.theta("add", "-A").stdout
    said = repo.theta("commit", "-m", "one").stdout
    head = repo.git("rev-parse", "--short", "HEAD")
    assert f"[main {head}] one\n" in said
    assert " 1 file changed, 2 insertions(+)\n" in said
    assert " none.safetensors: new, no tensors\n" in said
    assert " m.safetensors: new, 2 tensors\n" in said
    make_model(repo.path / "m.safetensors", {})
    (repo.path / "none.safetensors").unlink()
    said = repo.theta("commit", "-am", "two").stdout
    assert " m.safetensors: 2 deleted of 2 tensors\n" in said
    assert " none.safetensors: deleted, no tensors\n" in said


def test_f2_a_quiet_commit_says_nothing(two: Repo) -> None:
    """``commit -q`` still printed."""
    done = two.theta("commit", "-qam", "two")
    assert (done.stdout, done.stderr) == ("", "")


def test_f2_a_quiet_merge_or_rebase_says_nothing(two: Repo) -> None:
    two.git("commit", "-qam", "two")
    two.git("branch", "side")
    two.git("reset", "-q", "--hard", "HEAD~")
    make_model(two.path / "m.safetensors", {name: np.full(2, 9, np.float32) for name in "ab"})
    two.git("commit", "-qam", "three")
    for line in ("merge -q -X theirs side", "reset -q --hard HEAD^1", "rebase -q -X theirs side"):
        done = two.theta(*line.split())
        assert (done.stdout, done.stderr) == ("", "")


def test_f2_a_quiet_command_leaves_the_next_as_it_is(two: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """``theta demo`` runs one after the other in its process."""
    monkeypatch.chdir(two.path)
    for line in (["merge", "-q", "HEAD"], ["rebase", "-q", "HEAD"], ["doctor", "-q"], ["-q", "status"]):
        run(line)
        assert not console.quiet


def test_g4_a_repository_may_be_elsewhere(two: Repo, tmp_path: Path) -> None:
    """``GIT_DIR`` and ``GIT_WORK_TREE`` from outside failed."""
    outside = Repo(tmp_path)
    places = {"GIT_DIR": str(two.path / ".git"), "GIT_WORK_TREE": str(two.path)}
    assert "m.safetensors" in outside.theta("status", env=places).stdout
    by_options = ("--git-dir", places["GIT_DIR"], f"--work-tree={two.path}")
    assert "2 tensors" in outside.theta(*by_options, "diff").stdout
    outside.theta("commit", "-qam", "from outside", env=places)
    assert two.git("log", "-1", "--format=%s") == "from outside"
    assert two.git("status", "--porcelain") == ""
    refused(outside.theta("status", code=10, env={"GIT_DIR": "nowhere"}), 10, "nowhere")


def test_g4_an_index_elsewhere_is_never_ignored(two: Repo, tmp_path: Path) -> None:
    """``GIT_INDEX_FILE=x theta add`` wrote the main index."""
    before = two.git("ls-files", "-s")
    other = {"GIT_INDEX_FILE": str(tmp_path / "other")}
    refused(two.theta("add", "code.py", code=2, env=other), 2, "GIT_INDEX_FILE")
    for name in ("GIT_OBJECT_DIRECTORY", "GIT_LITERAL_PATHSPECS"):
        refused(two.theta("status", code=2, env={name: "1"}), 2, name)
    assert two.git("ls-files", "-s") == before
    same = {"GIT_INDEX_FILE": ".git/index"}  # as git sets it for hooks
    assert "m.safetensors" in two.theta("status", env=same).stdout


def test_g4_git_obeys_where_there_is_no_checkpoint(repo: Repo, tmp_path: Path) -> None:
    plain_repo = Repo.create(tmp_path / "plain")
    plain_repo.write("code.py", "changed\n")
    plain_repo.theta("add", "code.py", env={"GIT_INDEX_FILE": str(tmp_path / "other")})
    assert plain_repo.git("diff", "--cached", "--name-only") == ""
    assert (tmp_path / "other").exists()


def test_global_options_reach_every_git(two: Repo, tmp_path: Path) -> None:
    two.theta("-c", "user.name=It's!", "-c", "user.email=e@f", "commit", "-qam", "by another")
    assert two.git("log", "-1", "--format=%an <%ae>") == "It's! <e@f>"
    outside = Repo(tmp_path)
    assert "by another" in outside.theta("-C", str(two.path), "--no-pager", "log", "-1").stdout
    assert "by another" in two.theta("-P", "-c", "log.decorate=full", "log", "-1").stdout
    assert "refs/heads/main" in two.theta("-c", "log.decorate=full", "log", "-1").stdout


@pytest.mark.parametrize("command", ["diff", "log"])
def test_options_that_git_does_not_list_are_known(command: str) -> None:
    """The lists in theta.git.options have what this git offers for completion, values and all."""
    offered = plain(Path.cwd()).run(command, "--git-completion-helper-all", check=False)
    words = [word.removeprefix("--") for word in offered.text.split() if word != "--"]
    spec = options._NOT_LISTED[command].split()
    known = {name.rstrip("=?"): item for item in spec for name in item.split(",")}
    for word in words:
        name = word.rstrip("=")
        assert known.keys() & {name, name.removeprefix("no-"), f"no-{name}"}, word
        if word.endswith("="):
            assert known[name][-1] in "=?", word


@pytest.mark.parametrize(
    "row", ["log -S", "log -n", "log --author", "log -p -G", "show -S", "log -1 --format"]
)
def test_an_option_without_its_value_is_refused_as_git_does(repo: Repo, row: str) -> None:
    """The separator that theta puts before its own pathspec was taken for the value."""
    by_git, by_theta = repo.try_git(*row.split()), repo.theta(*row.split(), code=None)
    assert (by_theta.returncode, by_theta.stderr) == (by_git.returncode, by_git.stderr)
    assert by_theta.returncode
