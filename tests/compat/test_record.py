"""The record is the deed (faults B1): a commit's trailer says what was applied, and does it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.compat.inprocess import committed, contested, copied, shift, theta
from tests.compat.story import LAYERS, MODEL, digest, edit, new_model
from tests.support import Repo, make_model
from theta.cli import prompting, terminal
from theta.git.repository import Repository
from theta.porcelain.merge.trailers import values as trailer_values
from theta.porcelain.merge.trailers import with_trailers
from theta.porcelain.workspace.session import Session

ONE, TWO, THREE = NAMES = LAYERS
CONTINUES = {"GIT_EDITOR": "true"}
_SIGNED = b"subject\n\nbody\n\nSigned-off-by: A <a@b>\n"
_CUT = (
    _SIGNED
    + b"\n# ------------------------ >8 ------------------------\n# the difference\ndiff --git a/a b/a\n"
)


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Branches ours and side changed three tensors, by 1 and by 3; branch third one of them by 8."""
    return contested(tmp_path_factory.mktemp("forked") / "repo", third=[(TWO, 8.0)])


@pytest.fixture
def repo(forked: Repo, tmp_path: Path) -> Repo:
    return copied(forked, tmp_path / "repo")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Answer as if on a terminal; without answers there is no terminal."""

    def given(*lines: str) -> None:
        waiting: Iterator[str] = iter(lines)
        monkeypatch.setattr(terminal, "on_terminal", lambda: bool(lines))
        monkeypatch.setattr(prompting, "_line", lambda _: next(waiting))

    return given


def shifts(repo: Repo) -> list[float]:
    return [shift(repo, name) for name in NAMES]


def trailers(repo: Repo) -> list[str]:
    return repo.git("log", "-1", "--format=%(trailers:key=Theta-Merge,valueonly)").splitlines()


def assert_same_again(repo: Repo) -> None:
    told = theta(repo, "merge", "--replay", "HEAD").out
    assert "the same tree" in told
    assert "by hand" not in told


def test_b1_an_answer_is_kept_when_the_rest_is_settled_by_a_strategy(
    repo: Repo, answers: Callable[..., None]
) -> None:
    answers("tt", "q")
    told = theta(repo, "merge", "side", code=1)
    assert f"{MODEL}: 2 in conflict" in told.out
    assert "(2 in conflict)" in theta(repo, "status").out
    answers()
    assert f"{ONE}: theirs, as answered before" in theta(repo, "resolve", "-X", "average").out
    theta(repo, "merge", "--continue")
    assert shifts(repo) == [3.0, 2.0, 2.0]
    assert trailers(repo) == [f"-X average --rule {ONE}=theirs"]
    assert_same_again(repo)


def test_b1_a_rule_counts_more_than_what_was_answered(repo: Repo, answers: Callable[..., None]) -> None:
    answers("tt", "avg @*.1.*", "q")
    theta(repo, "merge", "side", code=1)
    answers()
    theta(repo, "resolve", "-X", "base", "--rule", f"{ONE}=ours")
    theta(repo, "merge", "--continue")
    assert shifts(repo) == [1.0, 2.0, 0.0]
    assert_same_again(repo)


@pytest.mark.parametrize("command", [["merge", "side"], ["resolve"]])
def test_b1_a_rule_is_kept_when_the_rest_stays_in_conflict(repo: Repo, command: list[str]) -> None:
    if command == ["resolve"]:
        theta(repo, "merge", "side", code=1)
    told = theta(repo, *command, "--rule", f"{TWO}=base", code=1)
    assert f"{MODEL}: 2 in conflict" in told.out
    assert "(2 in conflict)" in theta(repo, "status").out
    theta(repo, "resolve", "--rule", f"{ONE}=ours", code=1)
    assert "(1 in conflict)" in theta(repo, "status").out
    assert f"{TWO}: base, as answered before" in theta(repo, "resolve", "-X", "theirs").out
    theta(repo, "merge", "--continue")
    assert shifts(repo) == [1.0, 0.0, 3.0]
    assert_same_again(repo)


@pytest.mark.parametrize(
    ("args", "want", "line"),
    [
        (
            ["-X", "ours", "--rule", "embed*=base", "--rule", "*.[01].*=theirs"],
            [3.0, 3.0, 1.0],
            "-X ours --rule '*.[01].*=theirs'",
        ),
        (
            ["-X", "dare_linear:density=0.5", "--seed", "7", "--rule", f"{TWO}=base"],
            None,
            f"-X dare_linear:density=0.5 --rule {TWO}=base --seed 7",
        ),
        (["-X", "average", "--no-ff", "-X", "ignore-space-change"], [2.0, 2.0, 2.0], "-X average"),
    ],
)
def test_b1_a_merge_says_what_it_did(
    repo: Repo, args: list[str], want: list[float] | None, line: str
) -> None:
    theta(repo, "merge", *args, "side")
    assert want is None or shifts(repo) == want
    assert trailers(repo) == [line]
    assert_same_again(repo)


def test_b1_the_prompt_and_a_later_round_with_another_seed(repo: Repo, answers: Callable[..., None]) -> None:
    """Two files: one is settled at once, the other one later and on other terms."""
    for branch, seed in (("side", 5), ("ours", 6)):
        theta(repo, "switch", "-q", branch)
        new_model(repo, "other.safetensors", seed)
        theta(repo, "add", ".")
        theta(repo, "commit", "-q", "-m", "more")
    theta(repo, "merge", "-X", "dare_linear:density=0.5", "--seed", "3", "side", code=1)
    answers("tu !")
    theta(repo, "resolve", "--seed", "4")
    answers()
    theta(repo, "merge", "--continue")
    assert trailers(repo) == [
        f"-X dare_linear:density=0.5 --seed 3 -- {MODEL}",
        "--rule '*=ours' --seed 4",
    ]
    assert_same_again(repo)


def test_b1_what_is_changed_by_hand_afterwards_is_not_told(repo: Repo) -> None:
    theta(repo, "merge", "--no-commit", "-X", "average", "side")
    edit(repo, ONE, 5.0)
    repo.git("commit", "-q", "-a", "--no-edit")
    assert trailers(repo) == []
    told = theta(repo, "merge", "--replay", "HEAD").out
    assert f"{MODEL}: settled by hand" in told


def test_b1_a_recipe_names_base_and_branches(repo: Repo) -> None:
    repo.write(
        "recipe.yaml",
        "merge_method: task_arithmetic\nbase_model: third\nmodels: [{model: ours}, {model: side}]\n"
        f"rules: {{'{ONE}': base}}\n",
    )
    theta(repo, "merge", "--recipe", "recipe.yaml", "side")
    assert_same_again(repo)


def test_b1_several_branches_at_once(repo: Repo) -> None:
    theta(repo, "merge", "-X", "average", "--rule", f"{ONE}=theirs", "side", "third")
    assert shifts(repo) == [3.0, 4.0, 2.0]
    assert_same_again(repo)


@pytest.mark.parametrize("message", [["--no-edit"], ["-m", "said by the user"]])
def test_b1_a_conflict_of_plain_git(repo: Repo, message: list[str]) -> None:
    assert repo.try_git("merge", "side").returncode == 1
    theta(repo, "resolve", "-X", "average", "--rule", f"{TWO}=base")
    repo.git("commit", "-q", *message)
    assert shifts(repo) == [2.0, 0.0, 2.0]
    assert trailers(repo) == [f"-X average --rule {TWO}=base"]
    assert_same_again(repo)


@pytest.mark.parametrize("program", ["git", "theta"])
def test_f4_the_conflicts_in_the_message_are_files_of_the_user(repo: Repo, program: str) -> None:
    """Without an editor git keeps its list of conflicts, which named files below ``.theta/`` too."""
    assert repo.try_git("merge", "side").returncode == 1
    listed = repo.path / ".git" / "MERGE_MSG"
    listed.write_text(f"{listed.read_text().rstrip()}\n#\t.theta/{MODEL}/a/1.0000\n")
    theta(repo, "resolve", "-X", "average")
    run = repo.git if program == "git" else repo.theta
    run("commit", "-q", "--no-edit")
    said = repo.git("log", "-1", "--format=%B")
    assert f"#\t{MODEL}" in said
    assert ".theta/" not in said
    assert trailers(repo) == ["-X average"]


@pytest.mark.parametrize(
    ("command", "program"),
    [("cherry-pick", "git"), ("revert", "theta"), ("rebase", "git"), ("rebase", "theta")],
)
def test_b1_one_commit_applied_to_another(repo: Repo, command: str, program: str) -> None:
    if command == "revert":
        committed(repo, (TWO, 4.0), (ONE, 4.0), (THREE, 4.0))
    name = {"cherry-pick": "side", "revert": "HEAD~1", "rebase": "side"}[command]
    if program == "git":
        assert repo.try_git(command, name).returncode == 1
        theta(repo, "resolve", "-X", "average", "--rule", f"{TWO}=theirs")
        repo.git(command, "--continue", env=CONTINUES)
    else:
        edits = ["--no-edit"] if command == "revert" else []
        theta(repo, command, *edits, "-X", "average", "--rule", f"{TWO}=theirs", name)
    assert shift(repo, ONE) != shift(repo, TWO)
    assert trailers(repo)[0].startswith(f"-X average --rule {TWO}=theirs --applied ")
    assert_same_again(repo)


def test_b1_a_pick_of_a_pick_tells_its_own(repo: Repo) -> None:
    theta(repo, "cherry-pick", "-X", "average", "side")
    theta(repo, "switch", "-q", "third")
    theta(repo, "cherry-pick", "-X", "theirs", "ours")
    assert len(trailers(repo)) == 1
    assert trailers(repo)[0].startswith("-X theirs --applied ")
    assert_same_again(repo)


@pytest.mark.parametrize("others", [["side"], ["side", "third"]])
def test_b1_a_squashed_merge(repo: Repo, others: list[str]) -> None:
    theta(repo, "merge", "--squash", "-X", "average", *others)
    repo.git("commit", "-q", "--no-edit")
    assert trailers(repo)[0].startswith("-X average --squashed ")
    assert_same_again(repo)


def test_b1_a_stash_has_no_commit_that_could_tell(repo: Repo) -> None:
    theta(repo, "switch", "-q", "main")
    edit(repo, ONE, 4.0)
    theta(repo, "stash")
    theta(repo, "switch", "-q", "ours")
    theta(repo, "stash", "pop", code=1)
    theta(repo, "resolve", "-X", "average")
    assert shift(repo, ONE) == 2.5
    theta(repo, "commit", "-q", "-m", "with the stash")
    assert trailers(repo) == []
    assert "not a merge" in theta(repo, "merge", "--replay", "HEAD", code=2).err


def test_b1_the_metadata_is_told_too(repo: Repo) -> None:
    from tests.support import make_model, read_model

    for branch in ("side", "ours"):
        theta(repo, "switch", "-q", branch)
        make_model(repo.path / MODEL, read_model(repo.path / MODEL), metadata={"by": branch})
        theta(repo, "commit", "-q", "-am", "metadata")
    theta(repo, "merge", "-X", "average", "--rule", "(container)=theirs", "side")
    assert trailers(repo) == ["-X average --rule '(container)=theirs'"]
    assert_same_again(repo)


def test_b1_a_deleted_file_is_told_too(repo: Repo) -> None:
    theta(repo, "switch", "-q", "-c", "gone", "main")
    theta(repo, "rm", "-q", MODEL)
    theta(repo, "commit", "-q", "-m", "gone")
    theta(repo, "switch", "-q", "ours")
    kept = digest(repo)
    theta(repo, "merge", "gone", code=1)
    theta(repo, "resolve", "-X", "ours")
    theta(repo, "merge", "--continue")
    assert digest(repo) == kept
    assert trailers(repo) == ["-X ours"]
    assert_same_again(repo)


def test_b1_an_answer_outlives_the_program(repo: Repo, answers: Callable[..., None]) -> None:
    """The terminal goes away in the middle of the questions."""
    answers("tt", "avg @*.1.*", "u")
    theta(repo, "merge", "side", code=70)
    answers()
    theta(repo, "merge", "--continue", "-X", "ours")
    assert shifts(repo) == [3.0, 1.0, 1.0]
    assert_same_again(repo)


def test_b1_a_message_of_the_users_own_gets_the_trailer(repo: Repo) -> None:
    theta(repo, "merge", "--no-commit", "-X", "average", "side")
    theta(repo, "commit", "-q", "-m", "said by the user")
    assert repo.git("log", "-1", "--format=%s") == "said by the user"
    assert trailers(repo) == ["-X average"]
    theta(repo, "commit", "-q", "--allow-empty", "-m", "and another")
    assert trailers(repo) == []


# -- a line is a line ------------------------------------------------------------------------------

STRANGE = "a\nb\r\v\x1c\x85\u2028\\u000a 'q'"


@pytest.fixture(scope="module")
def strange_once(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Branches main and side changed two tensors of a file; it and one of them have strange names."""
    repo = Repo.create(tmp_path_factory.mktemp("strange") / "repo")
    names, path = (STRANGE, "c"), f"{STRANGE}.safetensors"
    values = {name: np.ones((4, 4), np.float32) for name in names}
    make_model(repo.path / path, values)
    theta(repo, "track", "*.safetensors")
    theta(repo, "add", ".")
    repo.git("commit", "-q", "-m", "one")
    repo.git("branch", "side")
    for branch, factor in (("main", 2), ("side", 5)):
        theta(repo, "switch", "-q", branch)
        make_model(repo.path / path, {name: value * factor for name, value in values.items()})
        theta(repo, "commit", "-q", "-a", "-m", "changed")
    theta(repo, "switch", "-q", "main")
    return repo


@pytest.fixture
def strange(strange_once: Repo, tmp_path: Path) -> Repo:
    return copied(strange_once, tmp_path / "repo")


@pytest.mark.parametrize("message", [[], ["-m", "several lines\n\nof a message"]])
def test_line_ends_in_a_rule_a_path_and_a_name_stay_in_one_trailer(strange: Repo, message: list[str]) -> None:
    theta(strange, "merge", *message, "-X", "average", "--rule", "a\n*\v*=theirs", "side")
    (trailer,) = trailers(strange)
    assert trailer.startswith("--escaped -X average --rule 'a\\u000a*\\u000b*=theirs'")
    assert_same_again(strange)


def test_line_ends_in_the_exact_rule_of_an_answer(strange: Repo, answers: Callable[..., None]) -> None:
    answers("tt", "to")
    theta(strange, "merge", "side")
    assert "a\\u000ab" in "".join(trailers(strange))
    assert_same_again(strange)


def test_a_git_that_claims_another_encoding_or_separators_reads_the_trailer(repo: Repo) -> None:
    for key, value in (
        ("i18n.commitEncoding", "ISO-8859-1"),
        ("i18n.logOutputEncoding", "ISO-8859-1"),
        ("trailer.separators", "#"),
        ("trailer.ifmissing", "doNothing"),
    ):
        repo.git("config", key, value)
    theta(repo, "merge", "-X", "average", "--rule", "layer.0.*[t\u6a21]=theirs", "side")
    assert "[t\u6a21]=theirs" in repo.git("cat-file", "-p", "HEAD")
    assert_same_again(repo)


def test_a_replay_fails_over_a_trailer_that_it_cannot_understand(repo: Repo) -> None:
    theta(repo, "merge", "-X", "average", "side")
    for trailer, told in (
        ("Theta-Merge: -X average --rule 'a\n*=theirs'", "does not read each of them"),
        ("Theta-Merge: -X average --rule 'a", "No closing quotation"),
        ("Theta-Merge: -X average\n\nsaid later", "does not read each of them"),
        (f"Theta-Merge: --rule {ONE}=ours", "does not settle"),
        ("Theta-Merge: -X average -- other.safetensors", "which is not merged"),
    ):
        repo.git("commit", "-q", "--amend", "--no-verify", "-m", f"merged\n\n{trailer}")
        assert told in theta(repo, "merge", "--replay", "HEAD", code=2).err


def test_a_replay_tells_what_it_did_not_merge_again(repo: Repo) -> None:
    theta(repo, "merge", "-X", "average", "side")
    repo.git("commit", "-q", "--amend", "--no-verify", "-m", "by hand")
    assert ", but for 1 file settled by hand" in theta(repo, "merge", "--replay", "HEAD").out


@pytest.mark.parametrize("message", [b"subject\n\nbody\n", _SIGNED, _CUT])
def test_a_trailer_longer_than_an_argument_is_written(repo: Repo, message: bytes) -> None:
    """Git takes trailers as arguments, of which Linux takes 128 KiB each."""
    line = f"Theta-Recipe: {'x' * 200_000}"
    text = with_trailers(Repository.discover(repo.path), message, [line])
    repo.git("commit", "-q", "--allow-empty", "--cleanup=scissors", "-F", "-", stdin=text.decode())
    assert trailer_values(Session.here(repo.path), "HEAD", "Theta-Recipe") == ["x" * 200_000]
    signed = trailer_values(Session.here(repo.path), "HEAD", "Signed-off-by")
    assert signed == ["A <a@b>"] * message.count(b"Signed-off-by")
