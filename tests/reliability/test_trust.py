"""The campaigns of ``bench/trust``: each runs a few cases, faults are seen, and the table adds up."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.trust import __main__ as program
from bench.trust import campaigns, mutated_inputs, outcome, page, runner, table
from bench.trust.clocks import Clocks
from bench.trust.disk import Errors, Full, Short
from bench.trust.hostile_texts import TEXTS
from bench.trust.hostile_trees import ATTACKS, Hostile
from bench.trust.kills import Kills
from bench.trust.outcome import NO_CASE, FaultError, Outcome
from bench.trust.power import Power
from bench.trust.rot import Rot
from bench.trust.schedules import Schedules
from bench.trust.subjects import OnRepositories
from bench.trust.table import Row
from bench.trust.torn import Torn
from tests.compat.nasty import base, planted
from tests.docs.pages import Block
from tests.merging.test_hostile_tokenizers import mutated, places
from tests.support import Repo
from tests.support.environment import ROOT
from tests.support.faults import Faults
from theta.errors import ThetaError

ON_REPOSITORIES: dict[str, type[OnRepositories]] = {
    "kills": Kills,
    "power": Power,
    "full": Full,
    "errors": Errors,
    "short": Short,
    "schedules": Schedules,
    "rot": Rot,
    "clocks": Clocks,
    "torn": Torn,
}


class Sample:
    """A campaign with one case of each end."""

    name, title, counts, each = "sample", "Samples", "samples", 5

    def prepare(self, place: Path, /) -> None:
        """Nothing is needed."""

    def case(self, seed: int, number: int, /) -> str:
        """Each number is another end."""
        if number == 1:
            raise FaultError("lost", f"seed {seed}")
        if number == 2:
            raise ValueError("of theta")
        assert number != 3, "of a check"
        return NO_CASE if number == 4 else "fine"


def test_every_fault_is_counted() -> None:
    found = outcome.run(Sample(), 7)
    assert [(kind, number) for kind, number, _ in found.faults] == [("lost", 1), ("other", 2), ("wrong", 3)]
    assert (found.cases, found.words) == (
        4,
        Counter(fine=1, lost=1, other=1, wrong=1) + Counter({NO_CASE: 1}),
    )
    assert outcome.run(Sample(), 7, 1).faults == [("lost", 1, "seed 7")]
    assert Outcome.of_json(json.loads(json.dumps(found.as_json()))) == found


def test_rows_add_up(tmp_path: Path) -> None:
    rows: list[Row] = []
    for seed in (1, 2, 3, 7):
        table.row_of(rows, "kills").add(outcome.run(Sample(), seed))
    (row,) = rows
    assert (row.seeds, row.cases, row.faults["lost"]) == ([[1, 3], [7, 7]], 16, 4)
    assert table.next_seed(rows, "kills", 1) == 8
    assert table.next_seed(rows, "files", 5) == 5
    other = Row("kills", row.commit, row.sources, [[4, 4]], 4)
    assert table.joined(rows, [other])[0].seeds == [[1, 4], [7, 7]]
    with pytest.raises(ValueError, match="same seeds"):
        table.joined(rows, [other])
    table.write(rows, tmp_path / "table.json")
    assert table.read(tmp_path / "table.json") == rows
    assert table.is_whole(tmp_path / "table.json")


def test_who_is_behind_most_of_its_goal_is_next() -> None:
    rows = [Row("kills", "abc", table.sources(), cases=campaigns.GOALS["kills"] // 2)]
    rows += [Row("kills", "abc", "other sources", cases=campaigns.GOALS["kills"])]
    names = ("kills", "rot")
    reached = {name: table.share(rows, name) for name in names}
    assert reached == {"kills": 0.5, "rot": 0.0}
    found = runner.Runner(dict.fromkeys(names, 1), reached, lambda _name, _found: 0.0)
    assert found._next() == "rot"
    reached["rot"] = 1.0
    assert found._next() == "kills"


def test_a_changed_row_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    table.write([Row("kills", "abc", "def", [[1, 1]], 5)], file)
    file.write_text(file.read_text().replace('"cases": 5', '"cases": 50'))
    assert not table.is_whole(file)


def test_a_signed_table_is_verified_by_whose_key_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file, key, known = tmp_path / "table.json", tmp_path / "key", tmp_path / "known"
    table.write([Row("kills", "abc", "def", [[1, 1]], 5)], file)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    settings = {"gpg.format": "ssh", "user.signingKey": str(key)}
    settings |= {"gpg.ssh.allowedSignersFile": str(known)}
    monkeypatch.setenv("GIT_CONFIG_COUNT", str(len(settings)))
    for number, (name, value) in enumerate(settings.items()):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", name)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
    known.write_text(f"ada@example.com {key.with_suffix('.pub').read_text()}")
    assert (
        program.main(["--table", str(file), "--sign"])
        == program.main(["--table", str(file), "--verify"])
        == 0
    )
    assert "ada@example.com" in capfd.readouterr().out
    table.write([Row("kills", "abc", "def", [[1, 1]], 6)], file)
    assert program.main(["--table", str(file), "--verify"]) == 1
    assert (
        program.main(["--table", str(file), "--sign"])
        == program.main(["--table", str(file), "--verify"])
        == 0
    )
    known.write_text("")
    assert program.main(["--table", str(file), "--verify"]) == 1


@pytest.mark.parametrize(
    "words", ["--only=kills,nix", "--again=nix:1", "--again=kills", "--again=kills:x", "--mended=nix:a"]
)
def test_what_is_no_campaign_is_told(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main([words])
    assert ended.value.code == 2
    assert "error: argument" in capsys.readouterr().err


def test_the_page_has_the_rows_of_the_table() -> None:
    text = page.PAGE.read_text()
    assert page.filled(text, table.read()) == text, "python -m bench.trust --page"
    assert not table.FILE.exists() or table.is_whole()


def test_faults_show_on_the_page() -> None:
    row = Row("kills", "abc", "def", [[1, 2]], 10)
    assert "| 10 | 0 | 0 | 0 | 0 | 0.3 |" in page.rows([row])
    row.faults["lost"] = 1
    assert "| 10 | 1 | 0 | 0 | 0 | - |" in page.rows([row])
    row.mended = "a fix"
    assert "| kills | `abc` | 10 | 1 | a fix |" in page.rows([row])


def test_a_campaign_in_its_own_process() -> None:
    command = [sys.executable, "-m", "bench.trust.worker", "codecs", "1", "1"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = (Outcome.of_json(json.loads(line)) for line in done.stdout.splitlines())
    assert (found.seed, found.cases, found.faults) == (1, 500, [])


def test_inputs(tmp_path: Path) -> None:
    """The guard is tested with the formats; here the process goes on."""
    files, texts = mutated_inputs.Files(), mutated_inputs.Texts()
    texts.load(tmp_path)
    for campaign in (files, texts):
        words = Counter(
            campaign.case(seed, number) for seed in range(len(campaign.kinds)) for number in range(9)
        )
        assert len(words) == 2


@pytest.mark.parametrize("value", [1e999, "1e999", -1, 2**70, None, True, "", [], {}, [[]], {"": [None]}])
def test_any_value_of_a_text_may_be_another(value: Any) -> None:
    """Infinity is a number of JSON that is no integer."""
    tried = 0
    for read, samples, tokens in TEXTS.values():
        if b"null" not in tokens:
            continue
        for sample in samples:
            body = json.loads(sample)
            for place in places(body):
                with contextlib.suppress(ThetaError):
                    read(json.dumps(mutated(body, place, value, "other")).encode())
                tried += 1
    assert tried > 100


@pytest.mark.parametrize("name", ON_REPOSITORIES)
def test_a_case_of_a_campaign(completed: Repo, tmp_path: Path, name: str) -> None:
    campaign, faults = ON_REPOSITORIES[name](), Faults(tmp_path, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        for key, value in faults.environment.items():
            patch.setenv(key, value)
        campaign.use(completed, tmp_path, faults)
        assert campaign.case(2, 0)


@pytest.mark.parametrize("name", ["hostile", "histories"])
def test_a_campaign_of_the_tests_of_git(name: str) -> None:
    """Each case of these brings repositories of its own, in a process whose home is another one."""
    command = [sys.executable, "-m", "bench.trust.worker", name, "3", "1", "0"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = (Outcome.of_json(json.loads(line)) for line in done.stdout.splitlines())
    assert (found.cases, found.faults) == (1, [])


def test_what_a_hostile_tree_runs_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = Hostile()
    monkeypatch.setenv("HOME", os.environ["HOME"])
    monkeypatch.setenv("PATH", os.environ["PATH"])
    campaign.prepare(tmp_path)
    campaign.lines = ["-c core.fsmonitor=pwn status"]
    with pytest.raises(FaultError, match="executed") as raised:
        campaign.case(1, 0)
    assert raised.value.kind == "executed"


def test_every_attack_makes_a_tree_that_git_reads(tmp_path: Path) -> None:
    box = base(tmp_path / "box", tmp_path / "bin/pwn")
    for number, attack in enumerate(ATTACKS):
        files = attack(random.Random(number))
        there = planted(box, files, tmp_path / str(number))
        listed = there.repo.git("ls-tree", "-r", "-z", "--name-only", "hostile").split("\0")
        assert {*files} <= {*listed}


def test_every_campaign_is_tried() -> None:
    tried = {"files", "texts", "codecs", "hostile", "histories", *ON_REPOSITORIES}
    assert set(campaigns.NAMES) == tried == set(campaigns.GOALS)


@pytest.mark.page("trust", "")
def test_the_page_has_commands_of_the_program(page_blocks: list[Block]) -> None:
    words = [line.split() for block in page_blocks for line in block.commands]
    assert all(line[:3] == ["python", "-m", "bench.trust"] for line in words)
    whole, again = (program.parser().parse_args(line[3:]) for line in words)
    assert (whole.hours, whole.seed) == (8.0, 1)
    name, numbers = again.again
    assert name in campaigns.NAMES
    assert len(numbers) in (1, 2)
