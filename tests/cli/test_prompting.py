"""The prompt of ``theta merge``: every key of it, with the answers typed by the test."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.compat.inprocess import Ran, contested, copied, shift, theta
from tests.compat.story import LAYERS, MODEL
from tests.support import Repo, make_model, read_model
from theta.cli import prompting, terminal
from theta.errors import UsageError

ONE, TWO, THREE = LAYERS
Ask = Callable[..., Ran]


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Branches ours and theirs changed three tensors, by 1 and by 3."""
    return contested(tmp_path_factory.mktemp("forked") / "repo")


@pytest.fixture
def repo(forked: Repo, tmp_path: Path) -> Repo:
    return copied(forked, tmp_path / "repo")


@pytest.fixture
def ask(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Run theta as on a terminal; all answers must be asked for."""

    def run(answers: list[str], *args: str, code: int = 0) -> Ran:
        waiting: Iterator[str] = iter(answers)
        asked: list[str] = []

        def read(question: str) -> str:
            asked.append(question)
            answer = next(waiting)
            if answer == "^D":
                raise EOFError
            return answer

        monkeypatch.setattr(terminal, "on_terminal", lambda: True)
        monkeypatch.setattr(prompting, "_line", read)
        ran = theta(repo, *(args or ("merge", "side")), code=code)
        assert len(asked) == len(answers)
        return ran

    return run


def shifts(repo: Repo) -> list[float]:
    return [shift(repo, name) for name in (ONE, TWO, THREE)]


@pytest.mark.parametrize(
    ("answers", "want"),
    [
        (["avg", "tu", "tt"], [2.0, 1.0, 3.0]),
        (["to", "avg 0.25", "linear weight=[1,3]"], [0.0, 2.5, 2.5]),
        (["avg !"], [2.0, 2.0, 2.0]),
        (["tt", "avg!"], [3.0, 2.0, 2.0]),
        (["avg @layer.[02]*", "tu"], [2.0, 1.0, 2.0]),
        (["avg @ layer.0*", "tt", "tu"], [2.0, 3.0, 1.0]),
        (["tu", "u", "tt", "tt", "u", "tu", "avg"], [3.0, 1.0, 2.0]),
        (["avg @layer.1*", "u", "tu @*0*", "to", "tt"], [1.0, 0.0, 3.0]),
        (["linear: !"], [2.0, 2.0, 2.0]),
    ],
)
def test_answers(repo: Repo, ask: Ask, answers: list[str], want: list[float]) -> None:
    ask(answers)
    assert shifts(repo) == want
    assert len(repo.git("rev-parse", "HEAD^@").split()) == 2
    assert "the same tree" in theta(repo, "merge", "--replay", "HEAD").out


def test_the_panel_tells_what_there_is_to_know(ask: Ask) -> None:
    shown = ask(["c", "?", "avg !"]).out
    assert shown.count(f"{ONE}  1 of 3") == 2
    for word in (
        "original",
        "ours",
        "theirs",
        "32\N{MULTIPLICATION SIGN}32",
        "f32",
        "‖·‖",
        "cosine +1.000",
        "equal signs 100%",
        "both modified",
    ):
        assert word in shown, word
    for word in ("ties", "dare_linear", "take the original", "density"):
        assert word in shown, word


def test_parameters_are_asked_for(repo: Repo, ask: Ask) -> None:
    from theta.merging.strategies import describe

    given = {"weight": "1, 3", "normalize": "true"}
    answers = [given.get(parameter.name, "") for parameter in describe("linear").parameters]
    ask(["linear", *answers, "tu !"])
    assert shifts(repo) == [2.5, 1.0, 1.0]


def test_a_parameter_is_checked_when_it_is_typed(repo: Repo, ask: Ask) -> None:
    """A value that cannot be is refused at its own question, and asked for again."""
    shown = ask(["linear", "much", "1,2,3", "1,normalize=x", "1,3", "maybe", "?", "", "", "", "tu !"]).out
    for reason in (
        "weight is a number, not much",
        "weight has 3 values and the merge has 2 inputs",
        "normalize is true or false, not maybe",
        "normalize: true or false",
    ):
        assert reason in " ".join(shown.split()), reason
    assert shifts(repo) == [2.5, 1.0, 1.0]
    assert "the same tree" in theta(repo, "merge", "--replay", "HEAD").out


def test_keys_hold_at_a_parameter_too(repo: Repo, ask: Ask) -> None:
    """``u`` goes back a question, ``c`` shows the tensor, ``q`` stops; none is taken as a value."""
    shown = ask(["linear", "1", "u", "3,1", "c", "u", "u", "tt", "u", "linear", "1,3", "true", "q"], code=1)
    assert shown.out.count(ONE) >= 3
    assert repo.git("status", "--porcelain") == f"UU {MODEL}"
    ask(["linear", "q"], "resolve", code=1)
    ask(["linear", "", "quit"], "resolve", code=1)
    ask(["ties", "0.5", "^D"], "resolve", code=1)
    ask(["tu !"], "resolve")
    assert shifts(repo) == [1.0, 1.0, 1.0]


def test_what_is_required_or_does_not_apply_is_said_before_other_questions(repo: Repo, ask: Ask) -> None:
    shown = ask(["nearswap", "", "u", "linear:weight=[1,2,3]", "tu !"]).out
    assert "nearswap needs t" in shown
    assert "weight has 3 values" in shown
    assert shifts(repo) == [1.0, 1.0, 1.0]


def test_nonsense_is_asked_again(repo: Repo, ask: Ask) -> None:
    shown = ask(["", "nonsense", "avg 7", "average:beta=1", "!", "u", "tu !"]).out
    assert "unknown merge strategy 'nonsense'" in shown
    assert "nothing to undo" in shown
    assert shifts(repo) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("key", ["q", "^D"])
def test_stopping_loses_nothing(repo: Repo, ask: Ask, key: str) -> None:
    told = ask(["tt", "avg @layer.1*", key], code=1)
    assert "theta resolve" in told.err
    assert repo.git("status", "--porcelain") == f"UU {MODEL}"
    assert shifts(repo) == [1.0, 1.0, 1.0]
    shown = ask(["tu"], "resolve").out
    assert f"{ONE}: theirs, as answered before" in shown
    assert shifts(repo) == [3.0, 2.0, 1.0]
    theta(repo, "merge", "--continue")
    theta(repo, "merge", "--replay", "HEAD")


def test_a_terminal_is_not_asked_when_told_not_to(ask: Ask) -> None:
    ask([], "merge", "--no-prompt", "side", code=1)
    ask([], "resolve", "-X", "average")


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        ("avg", "average"),
        ("avg 0.3", "average:alpha=0.3"),
        ("tt", "theirs"),
        ("ties density=0.2", "ties:density=0.2"),
        ("slerp 0.4", "slerp:t=0.4"),
    ],
)
def test_what_answers_mean(answer: str, want: str) -> None:
    assert str(prompting.read_answer(answer.split())) == want


def test_what_is_no_answer() -> None:
    with pytest.raises(UsageError):
        prompting.read_answer(["avg", "much"])


@pytest.mark.parametrize(
    ("answers", "want"),
    [(["take_them", "take_us", "average"], [3.0, 1.0, 2.0]), (["take_original !"], [0.0, 0.0, 0.0])],
)
def test_f5_the_names_of_git_theta_are_understood(
    repo: Repo, ask: Ask, answers: list[str], want: list[float]
) -> None:
    ask(answers)
    assert shifts(repo) == want


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("avgg", "avg"), ("take_then", "take_them"), ("tise:density=0.5", "ties"), ("ties:densty=1", "density")],
)
def test_f5_a_typo_gets_a_suggestion(repo: Repo, ask: Ask, typo: str, meant: str) -> None:
    assert f"did you mean {meant}?" in ask([typo, "q"], code=1).out
    theta(repo, "merge", "--abort")
    assert f"did you mean {meant}?" in theta(repo, "merge", "-X", typo, "side", code=2).err
    assert f"did you mean {meant}?" in theta(repo, "merge", "--rule", f"*={typo}", "side", code=2).err


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (40, 100)])
def test_f5_help_leaves_the_tensor_on_the_screen(repo: Repo, rows: int, columns: int) -> None:
    from rich.console import Console

    from theta.porcelain.merge import resolving
    from theta.porcelain.merge.answers import Answers
    from theta.porcelain.workspace.session import Session

    theta(repo, "merge", "side", code=1)
    session = Session.here(repo.path)
    lines = iter(["?", "? ties", "q"])
    seen: list[int] = []
    screen = Console(width=columns, height=rows, record=True, file=io.StringIO())

    def read(question: str) -> str:
        seen.append(len(screen.export_text(clear=False).splitlines()) + len(seen) + 1)
        return next(lines)

    prompt = prompting.Prompt(session, Answers(session), screen, read)
    conflict = resolving.conflicts(session)[MODEL][0]
    assert prompt.decide(conflict) is None
    assert seen[1] <= rows
    shown = screen.export_text()
    assert "trim each difference" in shown
    assert "-X" not in shown
    assert "? help" in shown  # the menu is on one line
    assert max(map(len, prompting._HELP.splitlines())) < columns


def test_f5_all_strategies_are_listed_and_the_tensor_again(ask: Ask) -> None:
    shown = ask(["??", "avg !"]).out
    assert shown.count(f"{ONE}  1 of 3") == 2
    assert shown.rindex("trim each difference") < shown.rindex(f"{ONE}  1 of 3")


def test_b6_unequal_shapes_say_why_and_what_can_work(repo: Repo) -> None:
    """Faults 2, B6: the hint must not recommend what just did not apply."""
    for branch, rows in (("side", 40), ("ours", 20)):
        theta(repo, "switch", "-q", branch)
        tensors = read_model(repo.path / MODEL)
        tensors[ONE] = np.full((rows, 32), rows, np.float32)
        tensors[TWO] = tensors[TWO].astype(np.int16 if branch == "side" else np.float32)
        make_model(repo.path / MODEL, tensors)
        theta(repo, "commit", "-q", "-am", "shapes")
    for command in (["merge", "-X", "average", "side"], ["resolve", "-X", "average"]):
        told = theta(repo, *command, code=1)
        assert f"{ONE}: average does not apply: " in told.out
        assert "ours f32 [20, 32], theirs f32 [40, 32]" in told.out
        assert f"{TWO}: average does not apply: i16 is never computed with" in told.out
        assert f'theta resolve -X average --rule "{ONE}=ours|theirs|base"' in told.err
    theta(repo, "resolve", "-X", "average", "--rule", f"{ONE}=theirs", "--rule", f"{TWO}=ours")
    theta(repo, "merge", "--continue")
    theta(repo, "merge", "--replay", "HEAD")


def test_f7_the_way_on_names_what_is_left(repo: Repo) -> None:
    for branch in ("side", "ours"):
        theta(repo, "switch", "-q", branch)
        repo.write("code.py", f"print('{branch}')\n")
        theta(repo, "commit", "-q", "-am", "code")
    told = theta(repo, "merge", "side", code=1)
    assert "for checkpoints run 'theta resolve -X ours|theirs|base|average'; edit other files" in told.err
    told = theta(repo, "resolve", "-X", "ours", code=1)
    assert "theta resolve" not in told.err
    assert "edit files, then 'theta add FILE'; then 'theta merge --continue'" in told.err
