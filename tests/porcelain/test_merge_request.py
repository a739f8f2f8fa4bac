"""A merge without a command line: each route, and each way in which it ends, as a program sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compat.inprocess import branched, committed, copied, shift, started
from tests.compat.story import MODEL
from tests.support import Repo, read_model
from theta.errors import NotFoundError, ThetaError, UsageError
from theta.merging.recipe_files import load
from theta.merging.states import Conflict
from theta.merging.strategies import Policy, Strategy
from theta.porcelain.commands import merging, settling
from theta.porcelain.commands.dialogue import Nobody
from theta.porcelain.commands.merge_request import (
    Ending,
    GitOptions,
    MergeRequest,
    MergeResult,
    Settlement,
    TensorOptions,
)
from theta.porcelain.merge.answers import Answer, Answers, UndoneError
from theta.porcelain.search.space import axis
from theta.porcelain.search.trials import SearchRequest
from theta.porcelain.workspace.session import Session

TENSOR, OTHER = "layer.1.weight", "layer.2.weight"
AVERAGE = TensorOptions(["average"])


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Branches a, b and c changed one tensor, d another one, ahead goes on from a."""
    repo = started(tmp_path_factory.mktemp("forest") / "repo")
    branched(repo, a=[(TENSOR, 1.0)], b=[(TENSOR, 2.0)], c=[(TENSOR, 6.0)], d=[(OTHER, 3.0)])
    repo.git("switch", "-q", "-c", "ahead", "a")
    committed(repo, (OTHER, 5.0))
    repo.theta("switch", "-q", "a")
    return repo


@pytest.fixture
def repo(forest: Repo, tmp_path: Path) -> Repo:
    return copied(forest, tmp_path / "repo")


def merged(repo: Repo, *revisions: str, **more: object) -> MergeResult:
    """The result of a merge with these revisions."""
    request = MergeRequest(revisions, **more)  # type: ignore[arg-type]
    return merging.merge(Session.here(repo.path), request)


def strategies(found: Settlement) -> dict[str, str]:
    """Tensor -> what settled it, of the only checkpoint that was settled."""
    (item,) = found.settled
    assert (item.path, item.tensors) == (MODEL, 5)
    return dict(item.decided)


def head(repo: Repo) -> str:
    return repo.git("rev-parse", "HEAD")


def test_one_branch_at_once(repo: Repo) -> None:
    before = head(repo)
    result = merged(repo, "b", tensors=AVERAGE, message="both")
    assert (result.ending, result.code, result.before) == (Ending.MERGED, 0, before)
    assert result.commit == head(repo) != before
    assert strategies(result.settlement) == {TENSOR: "average"}
    assert result.summary is not None
    assert (result.summary.commit, result.summary.subject) == (result.commit, "both")
    assert [*result.summary.checkpoints] == [MODEL]
    assert (shift(repo, TENSOR), repo.git("status", "--porcelain")) == (1.5, "")


def test_one_branch_by_git(repo: Repo) -> None:
    result = merged(repo, "b", tensors=AVERAGE, git=GitOptions(["--signoff"]))
    assert (result.ending, strategies(result.settlement)) == (Ending.MERGED, {TENSOR: "average"})
    assert "Signed-off-by: Ada Tester" in repo.git("log", "-1", "--format=%B")
    assert shift(repo, TENSOR) == 1.5


def test_several_branches(repo: Repo) -> None:
    result = merged(repo, "b", "c", "d", tensors=AVERAGE)
    assert (result.ending, strategies(result.settlement)) == (Ending.MERGED, {TENSOR: "average"})
    assert len(repo.git("rev-parse", "HEAD^@").split()) == 4
    assert (shift(repo, TENSOR), shift(repo, OTHER)) == (3.0, 3.0)


def test_several_branches_that_need_a_decision_change_nothing(repo: Repo) -> None:
    before = head(repo)
    result = merged(repo, "b", "c")
    assert (result.ending, result.code, result.commit) == (Ending.OPEN, 1, before)
    assert [conflict.name for conflict in result.settlement.conflicts[MODEL]] == [TENSOR]
    assert result.settlement.unmerged == (MODEL,)
    assert repo.git("status", "--porcelain") == ""


def test_several_branches_over_staged_files_are_refused(repo: Repo) -> None:
    repo.write("code.py", "print('other')\n")
    repo.git("add", "code.py")
    result = merged(repo, "b", "c", tensors=AVERAGE)
    assert (result.ending, result.code, result.staged) == (Ending.REFUSED, 2, ("code.py",))


def test_what_head_has_is_up_to_date(repo: Repo) -> None:
    result = merged(repo, "main")
    assert (result.ending, result.code, result.before) == (Ending.UP_TO_DATE, 0, result.commit)


def test_a_branch_ahead_is_a_fast_forward(repo: Repo) -> None:
    result = merged(repo, "ahead")
    assert (result.ending, result.commit) == (Ending.FORWARDED, repo.git("rev-parse", "ahead"))
    assert shift(repo, OTHER) == 5.0


def test_a_search_is_a_request_with_the_best_parameters(repo: Repo) -> None:
    """The scale of our change on this tensor is 1, and that of b is 2; 1.5 lies in the middle."""
    asked = SearchRequest((axis("weight=0:1:0.25"),), "middle")
    own = read_model(repo.path / MODEL)[TENSOR]

    def score(file: Path) -> float:
        return -abs(float((read_model(file)[TENSOR] - own).mean()) - 0.5)

    request = MergeRequest(["b"], AVERAGE)
    found, done = merging.search(Session.here(repo.path), request, asked, score)
    assert [trial.point for trial in done.trials] == [(0.0,), (0.25,), (0.5,), (0.75,), (1.0,)]
    assert found.tensors.strategies == ("average",)
    assert found.tensors.searched == "greatest score over weight=0:1:0.25: -0.0 of 5 trials"


def test_a_conflict_is_a_result_that_is_gone_on_with(repo: Repo) -> None:
    before = head(repo)
    result = merged(repo, "b")
    assert (result.ending, result.code, result.commit) == (Ending.CONFLICTS, 1, before)
    assert [conflict.name for conflict in result.settlement.conflicts[MODEL]] == [TENSOR]
    assert result.settlement.go_on == "theta merge --continue"
    again = merged(repo, "c")
    assert (again.ending, again.code, again.left) == (Ending.REFUSED, 128, "1 file(s) are in conflict")
    result = merging.go_on(Session.here(repo.path), TensorOptions(["theirs"]))
    assert (result.ending, strategies(result.settlement)) == (Ending.MERGED, {TENSOR: "theirs"})
    assert shift(repo, TENSOR) == 2.0
    with pytest.raises(ThetaError, match="no merge in progress"):
        merging.go_on(Session.here(repo.path), AVERAGE)
    with pytest.raises(ThetaError, match="no merge in progress"):
        merging.conclude(Session.here(repo.path))


def test_a_conflict_is_resolved_and_then_concluded(repo: Repo) -> None:
    merged(repo, "b")
    left = merging.conclude(Session.here(repo.path))
    assert (left.ending, left.settlement.unmerged) == (Ending.CONFLICTS, (MODEL,))
    found = settling.resolve(Session.here(repo.path), AVERAGE, [MODEL])
    assert (strategies(found), found.unmerged, found.idle) == ({TENSOR: "average"}, (), False)
    assert settling.resolve(Session.here(repo.path), AVERAGE).idle
    result = merging.conclude(Session.here(repo.path))
    assert (result.ending, result.commit) == (Ending.MERGED, head(repo))
    assert "Theta-Merge: -X average" in repo.git("log", "-1", "--format=%B")


def test_a_merge_is_given_up(repo: Repo) -> None:
    before = head(repo)
    merged(repo, "b")
    result = merging.abort(Session.here(repo.path))
    assert (result.ending, result.code, head(repo)) == (Ending.ABORTED, 0, before)
    assert (repo.git("status", "--porcelain"), shift(repo, TENSOR)) == ("", 1.0)
    refused = merging.abort(Session.here(repo.path))
    assert (refused.ending, refused.code) == (Ending.REFUSED, 128)
    assert "MERGE_HEAD missing" in refused.said.err[0]


@pytest.mark.parametrize("others", [("b",), ("b", "c")], ids=["one", "several"])
def test_no_commit_stops_before_it(repo: Repo, others: tuple[str, ...]) -> None:
    before = head(repo)
    result = merged(repo, *others, tensors=AVERAGE, no_commit=True)
    assert (result.ending, result.code, result.summary) == (Ending.PREPARED, 0, None)
    assert head(repo) == before
    assert len((repo.path / ".git/MERGE_HEAD").read_text().split()) == len(others)
    assert merging.go_on(Session.here(repo.path), TensorOptions()).ending is Ending.MERGED


def test_a_squashed_merge_leaves_one_change(repo: Repo) -> None:
    before = head(repo)
    result = merged(repo, "b", tensors=AVERAGE, squash=True)
    assert (result.ending, strategies(result.settlement)) == (Ending.PREPARED, {TENSOR: "average"})
    assert (head(repo), (repo.path / ".git/MERGE_HEAD").exists()) == (before, False)
    assert repo.git("diff", "--cached", "--name-only", "--", ":(exclude).theta") == MODEL


@pytest.mark.parametrize("others", [("b",), ("b", "c")], ids=["one", "several"])
def test_a_rehearsal_tells_and_changes_nothing(repo: Repo, others: tuple[str, ...]) -> None:
    before = repo.git("cat-file", "--batch-all-objects", "--batch-check=%(objectname)")
    result = merged(repo, *others, dry_run=True)
    assert (result.ending, result.code, result.base) == (Ending.REHEARSED, 1, repo.git("rev-parse", "main"))
    result = merged(repo, *others, tensors=AVERAGE, dry_run=True)
    assert (result.ending, result.code, result.settlement.unmerged) == (Ending.REHEARSED, 0, ())
    states = {row.name: (row.state, row.strategy) for row in result.rows[MODEL]}
    assert states[TENSOR] == ("merged", "average")
    assert repo.git("cat-file", "--batch-all-objects", "--batch-check=%(objectname)") == before
    assert repo.git("status", "--porcelain") == ""


def test_a_merge_is_done_again(repo: Repo) -> None:
    merged(repo, "b", tensors=AVERAGE)
    done = merging.again(Session.here(repo.path), "HEAD")
    assert (done.same, done.by_hand, done.commit) == (True, [], head(repo))
    assert done.tree == repo.git("rev-parse", "HEAD^{tree}")
    with pytest.raises(UsageError, match="is not a merge"):
        merging.again(Session.here(repo.path), "HEAD~1")


def test_another_base_is_compared_with(repo: Repo) -> None:
    """Compared with what a has, only ahead changed anything, though main is what the histories share."""
    repo.git("switch", "-q", "--detach", "b")
    repo.theta("status")
    result = merged(repo, "ahead", base="b", tensors=TensorOptions(scope="all"))
    assert (result.ending, shift(repo, TENSOR), shift(repo, OTHER)) == (Ending.MERGED, 1.0, 5.0)
    assert merging.again(Session.here(repo.path), "HEAD").same
    assert f"--base {repo.git('rev-parse', 'b')}" in repo.git("log", "-1", "--format=%B")


def test_a_recipe_names_what_is_merged(repo: Repo) -> None:
    models = "".join(
        f"- model: {name}\n  parameters: {{weight: {part}}}\n" for name, part in (("a", 3), ("b", 1))
    )
    text = f"merge_method: linear\nmodels:\n{models}"
    result = merged(repo, tensors=TensorOptions(recipe=load(text.encode(), "recipe.yml")))
    assert (result.ending, shift(repo, TENSOR)) == (Ending.MERGED, 1.25)


def test_a_strategy_of_git_takes_whole_files(repo: Repo) -> None:
    ours = GitOptions(["--strategy=ours", "--no-edit"], {"--strategy": "ours"})
    with pytest.raises(UsageError, match="-X average would have no effect"):
        merged(repo, "b", tensors=AVERAGE, git=ours)
    result = merged(repo, "b", git=ours)
    assert (result.ending, result.commit, shift(repo, TENSOR)) == (Ending.MERGED, head(repo), 1.0)


def test_a_hook_that_refuses_the_commit_leaves_the_merge(repo: Repo) -> None:
    hook = repo.path / ".git/hooks/pre-merge-commit"
    if hook.exists():  # theta's, which a git from 2.54 on has as a setting
        hook = hook.with_name("pre-merge-commit.before-theta")
    repo.write(str(hook.relative_to(repo.path)), "#!/bin/sh\necho no such merge >&2\nexit 1\n")
    hook.chmod(0o755)
    result = merged(repo, "b", tensors=AVERAGE)
    assert (result.ending, result.code, result.before) == (Ending.PREPARED, 1, result.commit)
    assert "no such merge" in result.said.err
    hook.unlink()
    assert merging.conclude(Session.here(repo.path)).ending is Ending.MERGED


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (MergeRequest(["nowhere"]), NotFoundError, "no such revision"),
        (MergeRequest(), UsageError, "nothing to merge"),
        (MergeRequest(["b"], TensorOptions(["ours", "base"])), UsageError, "only one strategy"),
        (MergeRequest(["b"], TensorOptions(rules=["heads*=ours"])), UsageError, "matches no tensor"),
        (MergeRequest(["b"], TensorOptions(["fisher"], statistics=["b:x"])), UsageError, "2 sides"),
    ],
    ids=["revision", "nothing", "strategies", "rule", "statistics"],
)
def test_what_cannot_be_done_is_an_error(
    repo: Repo, request_: MergeRequest, error: type[ThetaError], words: str
) -> None:
    before = repo.git("status", "--porcelain"), head(repo)
    with pytest.raises(error, match=words):
        merging.merge(Session.here(repo.path), request_)
    assert (repo.git("status", "--porcelain"), head(repo)) == before


def test_what_head_has_is_up_to_date_whatever_settles_tensors(repo: Repo) -> None:
    before = head(repo)
    assert merging.is_done(Session.here(repo.path), MergeRequest(["main"], AVERAGE))
    assert not merging.is_done(Session.here(repo.path), MergeRequest(["main", "b"], AVERAGE))
    for dry_run in (False, True):
        result = merging.merge(Session.here(repo.path), MergeRequest(["main"], AVERAGE, dry_run=dry_run))
        assert (result.ending, result.code, result.said.out) == (
            Ending.UP_TO_DATE,
            0,
            (merging.UP_TO_DATE,),
        )
    assert head(repo) == before


class Script(Nobody):
    """A dialogue with a list of answers that keeps every message; an empty answer takes the last one back."""

    asks = True

    def __init__(self, *answers: str) -> None:
        self.waiting, self.told, self.used = [*answers], list[Settlement](), list[Answer]()

    def asker(self, _session: Session, answers: Answers) -> Policy:
        """Return a policy that gives the next strategy of the list."""

        def answer(conflict: Conflict) -> Strategy | None:
            word = self.waiting.pop(0)
            if not word:
                answers.given.pop()
                raise UndoneError
            strategy = Strategy(word)
            answers.given.append(Answer(conflict, strategy))
            answers.keep()
            return strategy

        return answer

    def recalled(self, answer: Answer) -> None:
        """Keep it."""
        self.used.append(answer)

    def settled(self, settlement: Settlement) -> None:
        """Keep it."""
        self.told.append(settlement)


def asked(repo: Repo, dialogue: Script, *revisions: str) -> MergeResult:
    return merging.merge(Session.here(repo.path), MergeRequest(revisions), dialogue)


def test_whoever_is_there_is_asked_and_told(repo: Repo) -> None:
    dialogue = Script("average")
    result = asked(repo, dialogue, "b")
    assert (result.ending, dialogue.told) == (Ending.MERGED, [result.settlement])
    assert strategies(result.settlement) == {TENSOR: "average"}


def test_an_answer_that_is_taken_back_is_asked_for_again(repo: Repo) -> None:
    repo.theta("switch", "-q", "ahead")
    repo.git("branch", "-q", "-f", "both", "b")
    repo.git("switch", "-q", "both")
    repo.theta("status")
    committed(repo, (OTHER, 7.0))
    dialogue = Script("theirs", "", "ours", "theirs")
    result = asked(repo, dialogue, "ahead")
    assert result.ending is Ending.MERGED
    assert strategies(result.settlement) == {TENSOR: "ours", OTHER: "theirs"}
    assert (shift(repo, TENSOR), shift(repo, OTHER), dialogue.waiting) == (2.0, 5.0, [])


Called = Callable[[Session], object]


@pytest.mark.parametrize("call", [merging.abort, merging.conclude], ids=["abort", "conclude"])
def test_nothing_is_printed(repo: Repo, call: Called, capfd: pytest.CaptureFixture[str]) -> None:
    merged(repo, "b", tensors=AVERAGE, no_commit=True)
    call(Session.here(repo.path))
    merged(repo, "c", tensors=AVERAGE)
    merged(repo, "d", git=GitOptions(["--stat"]))
    assert capfd.readouterr() == ("", "")
