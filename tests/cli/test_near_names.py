"""Names of tensors that are not there: hints have the most similar one, in all commands and in Python."""

from __future__ import annotations

import json
import time
import traceback

import pytest

import theta
from tests.cli.checks import refused
from tests.support import Repo, make_model, mutate, random_tensors
from theta.errors import NoSuchTensorError, NotFoundError, did_you_mean

NAMES = [f"layers.{number}.mlp.weight" for number in range(12)]
TYPO, NEAR = "layers.3.mpl.weight", "layers.3.mlp.weight"


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A checkpoint, a model in two shards, and a file that no version has."""
    repo = Repo.create(tmp_path_factory.mktemp("near") / "repo")
    repo.theta("track", "*.safetensors")
    tensors = random_tensors(dict.fromkeys(NAMES, (2, 3)), seed=1)
    make_model(repo.path / "m.safetensors", tensors)
    for shard in (1, 2):
        some = dict(list(tensors.items())[shard - 1 :: 2])
        make_model(repo.path / f"s-0000{shard}-of-00002.safetensors", some)
    repo.theta("add", ".")
    repo.theta("commit", "-m", "one")
    make_model(repo.path / "new.safetensors", tensors)
    return repo


@pytest.mark.parametrize(
    "line",
    [
        ("cat", f"m.safetensors#{TYPO}"),
        ("cat", f"HEAD:m.safetensors#{TYPO}"),
        ("cat", f"HEAD:s.safetensors#{TYPO}"),
        ("show", f"HEAD:m.safetensors#{TYPO}"),
        ("show", f"HEAD:s.safetensors#{TYPO}"),
        ("show", "--codecs", f"HEAD:m.safetensors#{TYPO}"),
        ("export", f"HEAD:m.safetensors#{TYPO}", "-o", "x.npz"),
        ("blame", f"m.safetensors#{TYPO}"),
    ],
    ids=" ".join,
)
def test_a_typo(repo: Repo, line: tuple[str, ...]) -> None:
    done = repo.theta(*line, code=None)
    refused(done, 13, TYPO)
    assert f"hint: did you mean {NEAR}?" in done.stderr


def test_the_hint_leads_to_the_names(repo: Repo) -> None:
    """The hint for a name like no other is a command that lists the names, or one of them."""
    done = repo.theta("cat", "HEAD:m.safetensors#QQQQ", code=None)
    refused(done, 13, "QQQQ")
    command = done.stderr.splitlines()[1].removeprefix("hint: theta ").split()
    assert NEAR in repo.theta(*command).stdout
    for file in ("m.safetensors", "new.safetensors"):
        done = repo.theta("cat", f"{file}#QQQQ", code=None)
        assert done.stderr.splitlines()[1] == f"hint: it has 12, such as {NAMES[0]}"


def test_in_python(repo: Repo) -> None:
    with theta.open(repo.path) as opened, opened["HEAD:m.safetensors"] as weights:
        with pytest.raises(NoSuchTensorError) as raised:
            weights[TYPO]
        assert raised.value.hint == f"did you mean {NEAR}?"
        assert NEAR in "".join(traceback.format_exception(raised.value))
        assert TYPO not in weights and NEAR in weights
        assert weights.get(TYPO) is None and weights.get(NEAR).shape == (2, 3)
        with pytest.raises(NotFoundError) as missed:
            opened["main"]
    assert "REV:PATH" in missed.value.hint


def test_twenty_thousand_names_are_quick_to_search() -> None:
    numbers = (divmod(number, 7) for number in range(20_000))
    names = [f"model.layers.{layer}.block.{part}.self_attn.q_proj.weight" for layer, part in numbers]
    began = time.process_time()
    found = did_you_mean(names[12_345].replace("proj", "porj"), names)
    assert found == f"did you mean {names[12_345]}?"
    assert time.process_time() - began < 2


GLOBBED = [(), ("--stats",), ("--json",), ("--md",)]


@pytest.fixture(scope="module")
def changed(repo: Repo) -> Repo:
    """The first layer of the checkpoint is changed in a second commit."""
    mutate(repo.path / "m.safetensors", NAMES[0], lambda value: value * 2)
    repo.theta("add", "m.safetensors")
    repo.theta("commit", "-m", "two")
    return repo


@pytest.mark.parametrize("form", GLOBBED, ids=str)
def test_a_glob_of_no_tensor(changed: Repo, form: tuple[str, ...]) -> None:
    done = changed.theta("diff", "HEAD~", "HEAD", *form, "--tensor", "layers.3.mpl*", code=None)
    refused(done, 13, "layers.3.mpl*")
    assert f"hint: did you mean {NEAR}?" in done.stderr


@pytest.mark.parametrize("form", GLOBBED[:2], ids=str)
def test_a_glob_of_tensors_that_did_not_change(changed: Repo, form: tuple[str, ...]) -> None:
    done = changed.theta("diff", "HEAD~", "HEAD", *form, "--exit-code", "--tensor", "layers.3*")
    assert done.stdout + done.stderr == "no changed tensor is called layers.3*\n"
    assert (
        json.loads(changed.theta("diff", "--json", "HEAD~", "--tensor", "layers.3*").stdout)["theta.diff/v1"]
        == []
    )


def test_a_glob_of_a_changed_tensor(changed: Repo) -> None:
    done = changed.theta("diff", "HEAD~", "HEAD", "--exit-code", "--tensor", "layers.0*", code=1)
    assert NAMES[0] in done.stdout and "no changed" not in done.stdout + done.stderr


def test_a_page_of_no_tensor(repo: Repo) -> None:
    refused(repo.theta("show", "HEAD:m.safetensors", "--md", "--tensor", "x*", code=None), 13, "x*")


def test_a_glob_in_python(repo: Repo) -> None:
    """A glob of :meth:`matching` may match nothing; one that is loaded may not."""
    with theta.open(repo.path) as opened:
        with pytest.raises(NoSuchTensorError, match=r"layers\.3\.mpl\*") as raised:
            opened.load("HEAD", "m.safetensors", "layers.3.mpl*")
        assert raised.value.hint == f"did you mean {NEAR}?"
        assert opened["HEAD:m.safetensors"].matching("x*") == {}
