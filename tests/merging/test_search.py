"""Parameters that score best: axes, ways through them, and merges that are made with what they found."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import theta
from tests.docs.pages import Block
from tests.support import Repo, make_model, read_model
from theta.errors import ThetaError, UsageError
from theta.merging.strategies import parse
from theta.porcelain.search import scoring, space
from theta.porcelain.search.space import Axis, Point, axis

MODEL = "m.safetensors"


def points(
    way: str, *axes: str, trials: int = 0, cost: Callable[[Point], float] | None = None
) -> list[Point]:
    """The points that a way asks for."""
    found: list[Point] = []

    def ask(point: Point) -> float:
        found.append(point)
        return cost(point) if cost else 0.0

    space.explore(way, list(map(axis, axes)), ask, trials)
    return found


# -- axes and ways -----------------------------------------------------------------------------


def test_a_grid_has_both_ends_and_all_combinations() -> None:
    assert [value for (value,) in points("", "t=0:1:0.1")] == [n / 10 for n in range(11)]
    assert points("", "a=0:1:0.5", "b=1:2:1") == [
        (0.0, 1.0),
        (0.0, 2.0),
        (0.5, 1.0),
        (0.5, 2.0),
        (1.0, 1.0),
        (1.0, 2.0),
    ]
    assert points("grid", "a=0:1:0.3", trials=2) == [(0.0,), (0.3,)]


@given(st.floats(-5, 5), st.floats(0.01, 3), st.sampled_from([0, 0.1, 0.3, 0.5, 1]), st.floats(-9, 9))
def test_values_stay_within_their_ends(low: float, width: float, share: float, value: float) -> None:
    one = Axis("x", low, low + width, width * share)
    assert one.low <= one.nearest(value) <= one.high + 1e-9


def test_random_points_repeat_with_the_seed_and_never_twice() -> None:
    assert points("random", "a=0:1", trials=5) == points("", "a=0:1", trials=5)
    steps = points("random", "a=0:1:0.25", trials=20)
    assert sorted(value for (value,) in steps) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_cma_follows_the_scores() -> None:
    cost = lambda point: (point[0] - 3) ** 2 + (point[1] - 0.25) ** 2  # noqa: E731
    asked = points("cma", "a=0:4", "b=0:1", trials=120, cost=cost)
    assert len(asked) <= 126
    assert min(map(cost, asked)) < 1e-2
    with pytest.raises(UsageError, match="two axes"):
        points("cma", "a=0:1")


@pytest.mark.parametrize(
    "text", ["", "a", "a=1", "a=1:0", "a=0:1:2", "a=0:nan", "a=0:1:-1", "A=0:1", "a=0:1:1:1"]
)
def test_what_is_no_axis_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="NAME=LOW:HIGH"):
        axis(text)


def test_a_grid_without_steps_or_without_end_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a step"):
        points("grid", "a=0:1")
    with pytest.raises(UsageError, match="too large"):
        points("grid", "a=0:1:0.001", "b=0:1:0.001")


@pytest.mark.parametrize(
    ("strategy", "axes", "values", "wanted"),
    [
        ("average", ["weight=0:1"], [0.3], "average:alpha=0.7"),
        ("ties:lambda=2", ["density=0:1"], [0.3], "ties:density=0.3,lambda=2"),
        ("ties:density=0.1", ["density=0:1"], [0.5], "ties:density=0.5"),
        ("task_arithmetic", ["weight[1]=0:1"], [0.4], "task_arithmetic:weight=[1,0.4]"),
        ("linear", ["weight[0]=0:1", "weight[1]=0:1"], [0.4, 0.2], "linear:weight=[0.4,0.2]"),
    ],
)
def test_values_become_parameters(strategy: str, axes: list[str], values: list[float], wanted: str) -> None:
    assert str(space.at(parse(strategy), list(map(axis, axes)), tuple(values), 2)) == wanted


@pytest.mark.parametrize(
    ("strategy", "text", "told"),
    [
        ("ties", "gamma=0:1", "no parameter 'gamma'"),
        ("ties", "density=0:2:1", "from 0 to 1"),
        ("ties", "lambda[0]=0:1", "one value for all sides"),
        ("ties", "weight[2]=0:1", "has 2 sides"),
    ],
)
def test_a_parameter_that_a_strategy_has_not_is_refused(strategy: str, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        space.at(parse(strategy), [axis(text)], (2.0,), 2)


@pytest.mark.page("merging-workflows", "text", 0)
def test_searches_of_the_page_have_points(page_blocks: list[Block]) -> None:
    (block,) = page_blocks
    counts = []
    for line in block.commands:
        options = re.findall(r"(--search-by|--search|--trials|-X) '?([^' ]+)", line)
        given = dict(options)
        axes = [value for name, value in options if name == "--search"]
        found = points(given.get("--search-by", ""), *axes, trials=int(given.get("--trials", 0)) or 9)
        counts.append(len(found))
        for point in found:
            space.at(parse(given["-X"]), list(map(axis, axes)), point, 2)
    assert counts[:2] == [9, 40]
    assert len(counts) == 3


# -- scores of commands ------------------------------------------------------------------------


def test_the_last_line_is_the_score(tmp_path: Path) -> None:
    place = tmp_path / "m.safetensors"
    assert scoring.by_command("echo noise; printf '%s\n' {} >&2; echo 2.5; echo")(place) == 2.5
    assert scoring.by_command('test "$THETA_CANDIDATE" = "{}" && echo -1e3')(place) == -1000


def test_a_name_of_the_repository_is_never_run(tmp_path: Path) -> None:
    odd = tmp_path / "m$(touch x).safetensors"
    with pytest.raises(UsageError, match="no name for a command line"):
        scoring.by_command(f'cd {tmp_path}; test -f "{{}}"; echo 1')(odd)
    assert scoring.by_command('test "$THETA_CANDIDATE" && echo 1')(odd) == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("echo {}; exit 3", "exit code 3"),
        ("kill -9 $$ {}", "code 137"),
        ("echo {}", "no number"),
        ("true {}", "nothing"),
    ],
)
def test_a_command_without_a_score_is_an_error(command: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ThetaError, match=told):
        scoring.by_command(command)(tmp_path)


def test_a_command_must_say_where_the_candidate_goes() -> None:
    with pytest.raises(UsageError, match="where the candidate goes"):
        scoring.by_command("python score.py")


# -- of merges ---------------------------------------------------------------------------------


def tensors() -> list[NDArray[Any]]:
    random = np.random.default_rng(0)
    return [random.normal(size=(24, 16)).astype("<f4") for _ in range(3)]


@pytest.fixture
def forked(repo: Repo) -> Repo:
    """Two fine-tunes of one model: base + d1 on main, base + d2 on ``side``, and a file beside it."""
    base, one, two = tensors()
    where = repo.path / MODEL
    repo.theta("track", "*.safetensors")
    make_model(where, {"w": base, "kept": base[:4]})
    (repo.path / "config.json").write_text("{}")
    repo.theta("add", ".")
    repo.theta("commit", "-qm", "base")
    for branch, moved in (("side", two), ("main", one)):
        repo.theta("switch", "-q", *(["-c"] if branch == "side" else []), branch)
        make_model(where, {"w": base + moved, "kept": base[:4]})
        repo.theta("commit", "-qam", branch)
    return repo


def near(share: float) -> Callable[[Path], float]:
    """A score that is greatest where theirs has ``share``."""
    base, one, two = tensors()

    def score(file: Path) -> float:
        assert (file.parent / "config.json").read_text() == "{}"
        found = read_model(file)
        assert np.array_equal(found["kept"], base[:4])
        return -float(np.abs(found["w"] - (base + (1 - share) * one + share * two)).mean())

    return score


def test_a_merge_is_made_with_what_scores_best(forked: Repo, tmp_path: Path) -> None:
    program = tmp_path / "score.py"
    target = tmp_path / "target.npy"
    base, one, two = tensors()
    np.save(target, base + 0.7 * one + 0.3 * two)
    program.write_text(
        "import sys, numpy as np\nfrom safetensors.numpy import load_file\n"
        f"gap = np.abs(load_file(sys.argv[1])['w'] - np.load({str(target)!r})).mean()\n"
        f"open({str(tmp_path / 'ran')!r}, 'a').write('x')\nprint('a line'); print(gap)\n"
    )
    command = f"{sys.executable} {program} {{}}"
    words = ("merge", "side", "-X", "average", "--search", "weight=0.1:0.5:0.2", "--score", command)
    head = forked.git("rev-parse", "HEAD")
    dry = forked.theta(*words, "--minimize", "--dry-run")
    assert "average:alpha=0.7" in dry.stderr
    assert forked.git("rev-parse", "HEAD") == head
    assert not forked.git("status", "--porcelain")
    done = forked.theta(*words, "--minimize")
    assert "known" in done.stderr
    assert (tmp_path / "ran").read_text() == "xxx"  # the second search knows all scores
    assert np.allclose(read_model(forked.path / MODEL)["w"], np.load(target), atol=1e-6)
    body = forked.git("log", "-1", "--format=%B")
    assert "-X average:alpha=0.7" in body
    assert "'least score over weight=0.1:0.5:0.2: " in body
    assert "score.py" not in body
    assert "of 3 trials" in body
    assert "the same tree" in forked.theta("merge", "--replay", "HEAD").stdout


def test_programs_search_too_and_nothing_changes(forked: Repo) -> None:
    objects = sorted(path for path in (forked.path / ".git" / "objects").rglob("*") if path.is_file())
    with theta.open(forked.path) as repo:
        found = repo.search("side", strategy="task_arithmetic", over=["lambda=0.25:1:0.25"], score=near(0.5))
        assert [trial.point for trial in found.trials] == [(0.25,), (0.5,), (0.75,), (1.0,)]
        assert str(found.best.strategy) == "task_arithmetic:lambda=0.5"
        merged = repo.merge("side", strategy=str(found.best.strategy), dry_run=True)
    assert merged.ending is theta.Ending.REHEARSED
    assert objects == sorted(path for path in (forked.path / ".git" / "objects").rglob("*") if path.is_file())


def test_an_interrupted_search_goes_on_where_it_stopped(forked: Repo) -> None:
    asked: list[Path] = []
    inner = near(0.5)

    def score(file: Path) -> float:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(file)
        return inner(file)

    with theta.open(forked.path) as repo:
        how: dict[str, Any] = {"strategy": "average", "over": ["weight=0:1:0.25"], "objective": "near"}
        with pytest.raises(KeyboardInterrupt):
            repo.search("side", score=score, **how)
        asked[:] = [Path()]
        found = repo.search("side", score=lambda file: float(len(asked)) * 0 + inner(file), **how)
    assert [trial.known for trial in found.trials] == [True, True, False, False, False]
    assert found.best.point == (0.5,)


def test_scores_that_are_no_numbers_win_nothing(forked: Repo) -> None:
    distance = near(0.5)

    def near_the_middle(file: Path) -> float:
        return 1.0 if distance(file) > -1e-3 else float("nan")

    how: dict[str, Any] = {"strategy": "average", "over": ["weight=0:1:0.5"]}
    with theta.open(forked.path) as repo:
        found = repo.search("side", score=near_the_middle, **how)
        assert found.best.point == (0.5,)
        with pytest.raises(ThetaError, match="no candidate has a score"):
            _ = repo.search("side", score=lambda _: float("nan"), objective="none", **how).best


def test_statistics_that_changed_are_another_search(forked: Repo) -> None:
    """A revision that moved has other statistics, and the scores of before are not used for them."""
    forked.theta("switch", "-q", "-c", "known")
    words = ["side", "-X", "average", "--rule", "w=fisher", "--search", "weight=0:1:1", "--score"]
    words += ["true {}; echo 1"]
    statistics = ["--statistics", "known:f.safetensors", "--statistics", "known:f.safetensors"]
    told = []
    for value in (1, 2):
        make_model(forked.path / "f.safetensors", {"w": np.full((24, 16), value, "<f4")})
        forked.theta("add", "f.safetensors")
        forked.theta("commit", "-qm", "statistics")
        forked.theta("switch", "-q", "main")
        told.append(forked.theta("merge", *words, *statistics, "--dry-run").stderr)
        forked.theta("switch", "-q", "known")
    assert not any("known" in line for line in told)


def test_a_candidate_that_cannot_be_computed_has_no_score(forked: Repo) -> None:
    with theta.open(forked.path) as repo:
        found = repo.search(
            "side", strategy="task_arithmetic", over=["lambda=1:1e39:5e38"], score=near(0.5), trials=3
        )
    assert [trial.score is None for trial in found.trials] == [False, True, True]
    assert "NaN or infinity" in found.trials[1].reason


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--search", "weight=0:1:1"], "--search needs --score"),
        (["--score", "x {}"], "--score goes with --search"),
        (["--trials", "3"], "--trials goes with --search"),
        (["--search", "weight=0:1:1", "--score", "echo 1 {}", "--search-by", "luck"], "no search by 'luck'"),
        (["--search", "weight=0:1:1", "--score", "echo 1 {}", "-X", "ours"], "name it"),
        (["--search", "weight=0:1:1", "--score", "echo 1 {}"], "name it"),
        (["--search", "weight=0:1:1", "--score", "echo 1 {}", "--recipe", "r.yaml"], "not of r.yaml"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(forked: Repo, words: list[str], told: str) -> None:
    """A recipe that composes a model, with a tokenizer of its own say, is refused as any other is."""
    (forked.path / ".git/info/exclude").write_text("r.yaml\n")
    forked.write(
        "r.yaml", "merge_method: linear\nmodels: [model: main, model: side]\ntokenizer_source: union\n"
    )
    branches = [] if "--recipe" in words else ["side"]
    done = forked.theta("merge", *branches, *words, code=2)
    assert told in done.stderr
    assert not forked.git("status", "--porcelain")
