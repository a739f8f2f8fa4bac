"""Random models with vocabularies, and an oracle that knows the token of each row."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support import Repo, make_model, read_model

Array = NDArray[Any]
MODEL = "model.safetensors"
EMBEDDING, HEAD, BIAS, STATE = "model.embed_tokens.weight", "lm_head.weight", "lm_head.bias", "emb.exp_avg"
HIDDEN = ("layers.0.mlp", "layers.1.mlp")
WIDTH = 4
SPECIAL = "<"


@dataclass(frozen=True)
class World:
    """One version of a model and of the files beside it.

    ``tokens`` has the token of each row, None for padding; ``trained`` is added to all rows.
    """

    tokens: tuple[str | None, ...]
    trained: float
    kind: str
    eos: str
    suppressed: tuple[str, ...] = ()
    is_tied: bool = False
    hidden: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ids(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.tokens) if token is not None}

    def model(self) -> dict[str, Array]:
        table = np.array([[code(token), self.trained, 1, 0] for token in self.tokens], "<f4")
        found = {EMBEDDING: table, BIAS: table[:, 0].copy(), STATE: table * 2}
        if not self.is_tied:
            found[HEAD] = -table
        return found | {name: np.full((WIDTH, 2), self.hidden, "<f4") for name in HIDDEN}

    def write(self, repo: Repo) -> None:
        make_model(repo.path / MODEL, self.model())
        for name, found in self.texts().items():
            repo.write(name, found if isinstance(found, str) else json.dumps(found, indent=2) + "\n")

    def texts(self) -> dict[str, Any]:
        ids, eos = self.ids, self.ids[self.eos]
        rows = len(self.tokens)
        config = {"vocab_size": rows, "eos_token_id": eos, "text_config": {"pad_token_id": eos}, **self.extra}
        generation = {"eos_token_id": [eos], "suppress_tokens": [ids[token] for token in self.suppressed]}
        texts: dict[str, Any] = {"config.json": config, "generation_config.json": generation}
        if self.kind == "vocab.txt":
            last = max(ids.values())
            names = [self.tokens[number] or f"[unused{number}]" for number in range(last + 1)]
            return {**texts, "vocab.txt": "".join(f"{name}\n" for name in names)}
        decoder = {str(n): {"content": token} for token, n in ids.items() if token[0] == SPECIAL}
        config_of_tokens = {"added_tokens_decoder": decoder, "eos_token": self.eos}
        return {**texts, "tokenizer.json": self._tokenizer(), "tokenizer_config.json": config_of_tokens}

    def _tokenizer(self) -> dict[str, Any]:
        ids = self.ids
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        added = [{"id": n, "content": token, **plain} for token, n in ids.items() if token[0] == SPECIAL]
        words = {token: number for token, number in ids.items() if token[0] != SPECIAL}
        model: dict[str, Any] = {"type": self.kind, "vocab": words}
        if self.kind == "BPE":
            model["merges"] = []
        elif self.kind == "Unigram":  # its ids are the places in the list
            listed = [self.tokens[number] or f"<unused{number}>" for number in range(max(ids.values()) + 1)]
            model |= {"vocab": [[token, -1.0] for token in listed], "unk_id": ids[self.eos]}
        single = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": self.eos, "type_id": 0}}]
        told = {"id": self.eos, "ids": [ids[self.eos]], "tokens": [self.eos]}
        template = {"type": "TemplateProcessing", "single": single, "special_tokens": {self.eos: told}}
        padding = {"pad_id": ids[self.eos], "pad_token": self.eos}
        return {"added_tokens": added, "padding": padding, "post_processor": template, "model": model}


def code(token: str | None) -> float:
    """A number that is the token's alone; 0 for padding."""
    return 0.0 if token is None else float(int.from_bytes(token.encode()[:3].ljust(3), "big") % 4093 + 7)


def worlds(seed: int) -> tuple[World, World, World]:
    """Base, ours and theirs."""
    dice = random.Random(seed)
    kind = dice.choice(["BPE", "WordPiece", "WordLevel", "Unigram", "vocab.txt"])
    names = ["<s>", *(f"t{number}" for number in range(dice.randint(2, 7)))]
    dice.shuffle(names)
    padding = (None,) * dice.choice([0, 0, 3, 5])
    base = World((*names, *padding), 0.0, kind, "<s>", tuple(dice.sample(names, 1)), dice.random() < 0.3)
    return base, changed(base, dice, 2.0, "o"), changed(base, dice, 6.0, "p")


def changed(world: World, dice: random.Random, by: float, letter: str) -> World:
    """A side that did some of all that sides do."""
    for change in dice.sample(CHANGES, dice.choice([1, 2, 2, 3, 4])):
        world = change(world, dice, by, letter)
    return world


def appended(world: World, dice: random.Random, by: float, letter: str) -> World:
    """New tokens, of which one may be known to the other side too, behind the last or in the padding."""
    new = dice.sample([f"<{letter}1>", f"<{letter}2>", "<z>", f"w{letter}"], dice.randint(1, 3))
    if world.kind == "Unigram":
        new = [token for token in new if token[0] == SPECIAL] or ["<z>"]
    tokens = [*world.tokens]
    for token in new:
        if token not in tokens:
            place = tokens.index(None) if None in tokens else len(tokens)
            tokens[place : place + 1] = [token]
    return replace(world, tokens=tuple(tokens))


def renamed(world: World, dice: random.Random, by: float, letter: str) -> World:
    """A reserved token gets a meaning, as ``<|reserved_0|>`` does."""
    free = [t for t in world.ids if t != world.eos and t not in world.suppressed and t[0] == "t"]
    if not free:
        return world
    old, new = dice.choice(free), f"<{letter}n>"
    return replace(world, tokens=tuple(new if token == old else token for token in world.tokens))


def turned(world: World, dice: random.Random, by: float, letter: str) -> World:
    """All ids are others."""
    known = [token for token in world.tokens if token is not None]
    dice.shuffle(known)
    return replace(world, tokens=(*known, *(token for token in world.tokens if token is None)))


def trained(world: World, dice: random.Random, by: float, letter: str) -> World:
    return replace(world, trained=by, hidden=by)


def padded(world: World, dice: random.Random, by: float, letter: str) -> World:
    return replace(world, tokens=(*world.tokens, None, None))


def ending(world: World, dice: random.Random, by: float, letter: str) -> World:
    """Another token ends a text."""
    return replace(world, eos=dice.choice([*world.ids]))


def suppressing(world: World, dice: random.Random, by: float, letter: str) -> World:
    return replace(world, suppressed=(*world.suppressed, dice.choice([*world.ids])))


def told(world: World, dice: random.Random, by: float, letter: str) -> World:
    return replace(world, extra={**world.extra, dice.choice(["one", "two"]): letter})


CHANGES = [appended, appended, renamed, turned, trained, trained, padded, ending, suppressing, told]


# -- the oracle ------------------------------------------------------------------------------


def result_ids(repo: Repo, kind: str) -> dict[str, int]:
    """Token -> id of the tokenizer in the worktree, read without theta."""
    if kind == "vocab.txt":
        lines = (repo.path / "vocab.txt").read_text().splitlines()
        return {line: number for number, line in enumerate(lines) if "unused" not in line}
    found = json.loads((repo.path / "tokenizer.json").read_text())
    inner = found["model"]["vocab"]
    words = inner if isinstance(inner, dict) else {one[0]: number for number, one in enumerate(inner)}
    whole = {**words, **{one["content"]: one["id"] for one in found["added_tokens"]}}
    return {token: number for token, number in whole.items() if "unused" not in token}


def faults(repo: Repo, sides: tuple[World, World, World]) -> Iterator[str]:
    """Everything that is wrong with a merge that ended without a conflict."""
    base, ours, theirs = sides
    ids = result_ids(repo, base.kind)
    if len({*ids.values()}) < len(ids):
        yield f"two tokens have one id: {ids}"
    model = read_model(repo.path / MODEL)
    for token in {*ours.ids} & {*theirs.ids}:
        if token not in ids:
            yield f"{token!r} of both sides is gone"
    for name in {EMBEDDING, HEAD, BIAS, STATE} & {*model}:
        yield from _row_faults(name, model[name], ids, sides)
    yield from _text_faults(repo, ids, sides, len(model[EMBEDDING]))


def _row_faults(
    name: str, table: Array, ids: Mapping[str, int], sides: tuple[World, World, World]
) -> Iterator[str]:
    sign = {HEAD: -1.0, STATE: 2.0}.get(name, 1.0)
    for token, number in ids.items():
        if number >= len(table):
            yield f"{name} has no row for {token!r}"
            continue
        row = np.atleast_1d(table[number])
        if row[0] != np.float32(sign * code(token)):
            yield f"{name} of {token!r}: {row[0]} in place of {sign * code(token)}"
        if len(row) > 1 and row[1] not in {np.float32(sign * one) for one in values(token, sides)}:
            yield f"{name} of {token!r}: trained by {row[1]}, and not {values(token, sides)}"


def values(token: str, sides: tuple[World, World, World]) -> set[float]:
    """All that training may have made of a token's row when the average settles conflicts."""
    base, ours, theirs = sides
    there = [side for side in (ours, theirs) if token in side.ids]
    own = {side.trained for side in there}
    if len(own) < 2:
        return own
    if token in base.ids:
        return {next(iter(own - {base.trained}))} if base.trained in own else {sum(own) / 2}
    return {*own, sum(own) / 2}


def _text_faults(
    repo: Repo, ids: Mapping[str, int], sides: tuple[World, World, World], rows: int
) -> Iterator[str]:
    base, ours, theirs = sides
    names = {number: token for token, number in ids.items()}
    config = json.loads((repo.path / "config.json").read_text())
    generation = json.loads((repo.path / "generation_config.json").read_text())
    if config["vocab_size"] != rows:
        yield f"vocab_size is {config['vocab_size']} of {rows}"
    eos = _three(base.eos, ours.eos, theirs.eos)
    for found in (config["eos_token_id"], config["text_config"]["pad_token_id"], *generation["eos_token_id"]):
        if names.get(found) != eos:
            yield f"the end is {names.get(found)!r} in place of {eos!r}"
    wanted = _three(base.suppressed, ours.suppressed, theirs.suppressed)
    found = tuple(names.get(number) for number in generation["suppress_tokens"])
    if wanted is not None and found != wanted:
        yield f"suppressed are {found} in place of {wanted}"
    if base.kind == "vocab.txt":
        return
    tokenizer = json.loads((repo.path / "tokenizer.json").read_text())
    decoder = json.loads((repo.path / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    for number, entry in decoder.items():
        if ids.get(entry["content"]) != int(number):
            yield f"the decoder has {entry['content']!r} at {number}"
    for token, one in tokenizer["post_processor"]["special_tokens"].items():
        if one["ids"] != [ids.get(token)]:
            yield f"the template has {one}"
    padding = tokenizer["padding"]
    if padding["pad_id"] != ids.get(padding["pad_token"]):
        yield f"the padding is {padding}"


def _three(base: Any, ours: Any, theirs: Any) -> Any:
    """The three-way merge of a value; None if both sides changed it."""
    if ours == theirs or theirs == base:
        return ours
    return theirs if ours == base else None
