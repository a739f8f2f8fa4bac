"""Units of one model in the order of another's: found exactly where they were only reordered."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.compat.inprocess import theta
from tests.support import Repo, make_model, read_model
from theta import parallel
from theta.errors import NotFoundError, UsageError
from theta.merging.alignment import assignment, families, matching, reordering, specs
from theta.merging.alignment.axes import UNITS, AxisPart, Heads, UnitLayout, reordered
from theta.merging.alignment.matching import Matching
from theta.merging.strategies import numbers
from theta.porcelain.merge.trailers import read_round
from theta.store.read.stored_tensor import StoredTensor

Array = NDArray[Any]
Model = dict[str, Array]
MODEL = "m.safetensors"
RNG = np.random.default_rng


def filled(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Model:
    rng = RNG(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


# -- models in small ---------------------------------------------------------------------------


def mlp() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for number, (after, before) in enumerate([(16, 5), (12, 16), (3, 12)]):
        shapes |= {f"layers.{number}.weight": (after, before), f"layers.{number}.bias": (after,)}
    return shapes


def llama() -> dict[str, tuple[int, ...]]:
    """Four heads of queries share two of keys; a head of six units is not a part of the residual."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (30, 16), "model.norm.weight": (16,)}
    for layer in (f"model.layers.{n}" for n in range(2)):
        shapes |= {
            f"{layer}.self_attn.q_proj.weight": (24, 16),
            f"{layer}.self_attn.q_proj.bias": (24,),
            f"{layer}.self_attn.k_proj.weight": (12, 16),
            f"{layer}.self_attn.v_proj.weight": (12, 16),
            f"{layer}.self_attn.o_proj.weight": (16, 24),
            f"{layer}.self_attn.q_norm.weight": (6,),
            f"{layer}.mlp.gate_proj.weight": (20, 16),
            f"{layer}.mlp.up_proj.weight": (20, 16),
            f"{layer}.mlp.down_proj.weight": (16, 20),
            f"{layer}.input_layernorm.weight": (16,),
            f"{layer}.post_attention_layernorm.weight": (16,),
        }
    return shapes | {"lm_head.weight": (30, 16)}


def bert() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (30, 12),
        "embeddings.position_embeddings.weight": (8, 12),
        "embeddings.position_ids": (1, 8),
        "embeddings.LayerNorm.weight": (12,),
        "embeddings.LayerNorm.bias": (12,),
        "pooler.dense.weight": (12, 12),
        "pooler.dense.bias": (12,),
        "classifier.weight": (2, 12),
    }
    for layer in (f"encoder.layer.{n}" for n in range(2)):
        for role in ("query", "key", "value"):
            shapes |= {f"{layer}.attention.self.{role}.{part}": size for part, size in WIDE.items()}
        shapes |= {
            f"{layer}.attention.output.dense.weight": (12, 12),
            f"{layer}.attention.output.LayerNorm.weight": (12,),
            f"{layer}.intermediate.dense.weight": (24, 12),
            f"{layer}.intermediate.dense.bias": (24,),
            f"{layer}.output.dense.weight": (12, 24),
            f"{layer}.output.LayerNorm.bias": (12,),
        }
    return shapes


WIDE: dict[str, tuple[int, ...]] = {"weight": (12, 12), "bias": (12,)}


def gpt2() -> dict[str, tuple[int, ...]]:
    """Conv1D: weights are [in, out], and queries, keys and values are one tensor."""
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (30, 12), "wpe.weight": (8, 12), "ln_f.bias": (12,)}
    for layer in ("h.0", "h.1"):
        shapes |= {
            f"{layer}.ln_1.weight": (12,),
            f"{layer}.attn.bias": (1, 1, 8, 8),
            f"{layer}.attn.c_attn.weight": (12, 36),
            f"{layer}.attn.c_attn.bias": (36,),
            f"{layer}.attn.c_proj.weight": (12, 12),
            f"{layer}.mlp.c_fc.weight": (12, 48),
            f"{layer}.mlp.c_proj.weight": (48, 12),
        }
    return shapes


KINDS: dict[str, tuple[Callable[[], dict[str, tuple[int, ...]]], dict[str, int]]] = {
    "mlp": (mlp, {}),
    "llama": (llama, {"num_attention_heads": 4, "num_key_value_heads": 2}),
    "bert": (bert, {"num_attention_heads": 3}),
    "gpt2": (gpt2, {"n_head": 3}),
}


def shuffled(layout: UnitLayout, seed: int) -> dict[tuple[str, str], Array]:
    """Any order that leaves the function of the model as it is, made without the code that finds it."""
    rng = RNG(seed)
    found: dict[tuple[str, str], Array] = {}
    sizes = layout.sizes()
    for group in dict.fromkeys(group for group, _ in sizes):
        if group not in layout.heads:
            found[group, UNITS] = rng.permutation(sizes[group, UNITS])
            continue
        heads = layout.heads[group]
        width = {
            role: sizes[group, role] // (heads.keys if role in "kv" else heads.queries) for role in "qkvo"
        }
        order: dict[str, list[int]] = {role: [] for role in "qkvo"}
        for key in rng.permutation(heads.keys):
            turned = range(width["q"]) if heads.rotary else rng.permutation(width["q"])
            values = rng.permutation(width["v"])
            order["k"] += [key * width["k"] + unit for unit in turned]
            order["v"] += [key * width["v"] + unit for unit in values]
            for query in rng.permutation(heads.each) + key * heads.each:
                order["q"] += [query * width["q"] + unit for unit in turned]
                order["o"] += [query * width["o"] + unit for unit in values]
        found |= {(group, role): np.array(one) for role, one in order.items()}
    return found


def in_order(model: Model, layout: UnitLayout, orders: dict[tuple[str, str], Array]) -> Model:
    return {name: reordered(value, layout.axes.get(name, ()), orders) for name, value in model.items()}


def layout_of(model: Model, heads: Heads | None) -> UnitLayout:
    return families.layout({name: value.shape for name, value in model.items()}, heads)


def aligned(ours: Model, theirs: Model, layout: UnitLayout, *, transport: bool = False) -> Model:
    return in_order(theirs, layout, Matching(layout, wide(ours, theirs), transport=transport).solve())


def wide(ours: Model, theirs: Model) -> Callable[[str], tuple[Array, Array]]:
    return lambda name: (ours[name].astype(float), theirs[name].astype(float))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transport", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_rebasin_2209_04836_a_reordered_model_is_put_back(kind: str, seed: int, transport: bool) -> None:
    """Bit for bit, whatever the order was: units, heads, what is in heads, and the residual stream."""
    shapes, config = KINDS[kind]
    model = filled(shapes(), seed)
    layout = layout_of(model, specs.of_config(config))
    other = in_order(model, layout, shuffled(layout, seed))
    assert sum(not np.array_equal(other[name], model[name]) for name in model) > len(model) // 2
    for name, value in aligned(model, other, layout, transport=transport).items():
        np.testing.assert_array_equal(value, model[name], err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fine_tune_keeps_its_order(kind: str) -> None:
    """Units that were not reordered stay, dead and equal ones too."""
    shapes, config = KINDS[kind]
    model = filled(shapes(), 1)
    for value in model.values():
        value[: len(value) // 2] *= 0
    layout = layout_of(model, specs.of_config(config))
    noise = filled(shapes(), 2)
    tuned = {name: value + 0.01 * noise[name] for name, value in model.items()}
    for name, value in aligned(model, tuned, layout).items():
        np.testing.assert_array_equal(value, tuned[name], err_msg=name)


def score(layout: UnitLayout, ours: Model, theirs: Model) -> float:
    return sum(float(np.vdot(ours[name].astype(float), theirs[name])) for name in layout.axes)


def test_weight_matching_finds_the_best_of_all_orders_of_a_tiny_model() -> None:
    """Against all 4! * 3! orders of two hidden layers: none that differs in one group is better."""
    shapes: dict[str, tuple[int, ...]] = {
        "fc0.weight": (4, 6),
        "fc1.weight": (3, 4),
        "fc2.weight": (5, 3),
    }
    best = 0
    for seed in range(6):
        ours, theirs = filled(shapes, seed), filled(shapes, seed + 100)
        layout = layout_of(ours, None)
        keys = [*layout.sizes()]
        orders = itertools.product(*(itertools.permutations(range(n)) for n in layout.sizes().values()))
        every = {
            order: score(
                layout, ours, in_order(theirs, layout, dict(zip(keys, map(np.array, order), strict=True)))
            )
            for order in orders
        }
        found = Matching(layout, wide(ours, theirs)).solve()
        own = tuple(tuple(int(n) for n in found[key]) for key in keys)
        best += every[own] == max(every.values())
        for at in range(len(keys)):
            alone = [
                value
                for order, value in every.items()
                if all(order[i] == own[i] for i in range(len(keys)) if i != at)
            ]
            assert every[own] == max(alone)
    assert best >= 3


def test_fusion_2310_05719_moves_each_layer_at_the_least_distance() -> None:
    """Against all orders: of the first hidden layer, and of the second after that."""
    shapes: dict[str, tuple[int, ...]] = {"fc0.weight": (4, 6), "fc1.weight": (5, 4), "fc2.weight": (2, 5)}
    ours, theirs = filled(shapes, 1), filled(shapes, 2)
    layout = layout_of(ours, None)
    found = Matching(layout, wide(ours, theirs), transport=True).solve()
    before: Array = np.arange(6)
    for number, size in enumerate((4, 5)):
        left, right = ours[f"fc{number}.weight"], theirs[f"fc{number}.weight"][:, before]
        every = [np.array(order) for order in itertools.permutations(range(size))]
        lengths = [np.linalg.norm(left - right[order], axis=1).sum() for order in every]
        before = every[int(np.argmin(lengths))]
        np.testing.assert_array_equal(found[f"layer{number}", UNITS], before)


def attended(x: Array, q: Array, k: Array, v: Array, heads: Heads) -> Array:
    """Attention of a sequence over itself, without rotation by position."""
    each = len(q.T) // heads.queries
    out = []
    for head in range(heads.queries):
        own, shared = slice(head * each, (head + 1) * each), head // heads.each * each
        scores = (x @ q)[:, own] @ (x @ k)[:, shared : shared + each].T
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out.append(weights / weights.sum(-1, keepdims=True) @ (x @ v)[:, shared : shared + each])
    return np.concatenate(out, -1)


def of_gpt2(model: Model, heads: Heads) -> Array:
    """The logits of a block or two, by numpy alone."""
    wide = {name: value.astype(float) for name, value in model.items()}
    x = wide["wte.weight"][:8] + wide["wpe.weight"]
    for layer in ("h.0", "h.1"):
        joined = wide[f"{layer}.attn.c_attn.weight"]
        q, k, v = np.split(joined, 3, axis=1)
        y = attended(x * wide[f"{layer}.ln_1.weight"] / 9, q, k, v, heads)
        x = x + y @ wide[f"{layer}.attn.c_proj.weight"]
        x = x + np.tanh(x @ wide[f"{layer}.mlp.c_fc.weight"]) @ wide[f"{layer}.mlp.c_proj.weight"]
    return np.asarray((x + wide["ln_f.bias"]) @ wide["wte.weight"].T)


def of_llama(model: Model, heads: Heads) -> Array:
    """The logits of layers in small, rotated by position in no other way than by a fixed sign."""
    wide = {name.removeprefix("model."): value.astype(float).T for name, value in model.items()}
    x = wide["embed_tokens.weight"].T[:8]
    turned = np.tile([1.0, -1.0, 2.0, 0.5, -3.0, 0.1], heads.queries)
    for layer in ("layers.0", "layers.1"):
        normed = x / np.sqrt((x**2).mean(-1, keepdims=True)) * wide[f"{layer}.input_layernorm.weight"]
        q, k, v = (wide[f"{layer}.self_attn.{role}_proj.weight"] for role in "qkv")
        y = attended(normed, q * turned * np.tile(wide[f"{layer}.self_attn.q_norm.weight"], 4), k, v, heads)
        x = x + y @ wide[f"{layer}.self_attn.o_proj.weight"]
        gate, up, down = (wide[f"{layer}.mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
        x = x + (np.tanh(x @ gate) * (x @ up)) @ down
    return np.asarray(x @ wide["lm_head.weight"])


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_orders_of_a_layout_leave_the_function_of_a_model(kind: str) -> None:
    shapes, config = KINDS[kind]
    heads = specs.of_config(config)
    assert heads is not None
    compute = {"gpt2": of_gpt2, "llama": of_llama}[kind]
    model = {name: value / np.float32(3) for name, value in filled(shapes()).items()}
    layout = layout_of(model, heads)
    other = in_order(model, layout, shuffled(layout, 1))
    np.testing.assert_allclose(compute(other, heads), compute(model, heads), rtol=1e-8, atol=1e-9)


# -- what is known of models ---------------------------------------------------------------------


def test_a_specification_says_what_names_do_not() -> None:
    text = """
        heads = 4
        kv_heads = 2
        rotary = true
        [axes]
        "*.attn.[qx].w" = ["", ""]
        "b.*.q.w" = ["attn*/q", "stream"]
        "b.*.kv.w" = ["attn*/k+attn*/v", "stream"]
        "b.*.up.w" = ["mlp*", "stream"]
    """
    spec = specs.parsed(specs.canonical(text))
    found = specs.layout(
        {"b.3.q.w": (24, 10), "b.3.kv.w": (24, 10), "b.3.up.w": (7, 10), "x": (3,)}, spec, None
    )
    assert found.axes["b.3.kv.w"][0] == (AxisPart("attn3", "k", 12), AxisPart("attn3", "v", 12))
    assert found.axes["b.3.up.w"] == ((AxisPart("mlp3", UNITS, 7),), (AxisPart("stream", UNITS, 10),))
    assert found.heads == {"attn3": Heads(4, 2, rotary=True)}
    assert "x" not in found.axes
    assert specs.canonical(specs.canonical(text)) == specs.canonical(text)


@pytest.mark.parametrize(
    "text",
    [
        *("{", "{}x", '{"head": 4}', '{"heads": "4"}', '{"heads": 4, "kv_heads": 3}'),
        *(
            '{"heads": 4, "kv_heads": 0}',
            '{"axes": {"a": "b"}}',
            '{"axes": [1]}',
            "heads = -1",
            "heads = true",
        ),
    ],
)
def test_what_is_no_specification_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        specs.canonical(text)


@pytest.mark.parametrize(
    ("shapes", "config", "error"),
    [
        (llama() | {"model.layers.0.mamba.A": (3, 3)}, KINDS["llama"][1], "does not know the units of"),
        (llama(), {}, "needs the number of attention heads"),
        (llama(), {"num_attention_heads": 5}, "is not one of"),
        (llama() | {"model.norm.weight": (17,)}, KINDS["llama"][1], "another tensor has"),
        ({"a.0.weight": (3, 4), "b.1.weight": (2, 3)}, {}, "does not know the units of"),
        ({"a.0.weight": (3, 4), "a.1.weight": (2, 5)}, {}, "another tensor has"),
    ],
)
def test_a_model_that_is_not_understood_is_refused(
    shapes: dict[str, tuple[int, ...]], config: dict[str, int], error: str
) -> None:
    """A tensor that is left alone by mistake would no longer fit the others."""
    with pytest.raises(UsageError, match=error):
        families.layout(shapes, specs.of_config(config))


def test_heads_are_left_where_they_are_if_the_specification_says_so() -> None:
    found = families.layout(llama(), Heads(0, 0, rotary=False))
    assert {group for group, _ in found.sizes()} == {"residual", "model.layers.0.mlp", "model.layers.1.mlp"}


def test_without_scipy_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(NotFoundError, match="needs the package scipy"):
        assignment.best(np.eye(2))


STARRY = st.text("ab*", max_size=9)


@given(STARRY, st.text("ab", max_size=12))
@example("a***b", "aabab")
@example("*a*b*", "aabbab")
def test_a_star_stands_for_what_a_regular_expression_makes_of_it(pattern: str, name: str) -> None:
    """Three stars beside each other are one; of several apart the first takes the most."""
    found = re.fullmatch("(.*)".join(map(re.escape, pattern.split("*"))), name)
    wanted = None if found is None else found[1] if found.groups() else "*"
    assert specs.starred(pattern, name) == wanted


def test_many_stars_are_matched_as_fast_as_one() -> None:
    """A specification of a stranger: a matcher that goes back would not end."""
    assert specs.starred("*" + "a*" * 5000 + "b", "a" * 50_000) is None
    text = '{"axes": {"*.layers.*.up.*": ["mlp*", ""]}}'
    found = specs.layout({"m.layers.3.up.weight": (4, 2)}, specs.parsed(specs.canonical(text)), None)
    assert found.sizes() == {("mlpm", UNITS): 4}


# -- merges ------------------------------------------------------------------------------------


@pytest.fixture
def pair(repo: Repo) -> tuple[Repo, Model, UnitLayout]:
    """A Llama in small that is committed on main; branch other has no model yet."""
    model, config = filled(llama()), KINDS["llama"][1]
    repo.theta("track", "*.safetensors")
    repo.git("add", ".gitattributes")
    repo.git("commit", "-qm", "nothing yet")
    repo.git("branch", "other")
    (repo.path / "config.json").write_text(json.dumps(config))
    make_model(repo.path / MODEL, model)
    repo.theta("add", ".")
    repo.theta("commit", "-qm", "ours")
    return repo, model, layout_of(model, specs.of_config(config))


def joined(repo: Repo, theirs: Model, *options: str, inside: bool = False) -> Model:
    """Commit ``theirs`` on the other branch, and merge it, ``inside`` this process if asked for."""
    repo.theta("switch", "-q", "other")
    make_model(repo.path / MODEL, theirs)
    repo.theta("add", MODEL)
    repo.theta("commit", "-qm", "theirs")
    repo.theta("switch", "-q", "main")
    if inside:
        theta(repo, "merge", "other", *options)
    else:
        repo.theta("merge", "other", *options)
    return read_model(repo.path / MODEL)


def test_an_aligned_merge_is_the_mean_in_our_order_and_replays(pair: tuple[Repo, Model, UnitLayout]) -> None:
    """The trailer says so; nothing of what was only computed with stays in the repository."""
    repo, model, layout = pair
    orders = shuffled(layout, 5)
    noise = {name: value / np.float32(50) for name, value in filled(llama(), 9).items()}
    theirs = in_order({name: model[name] + noise[name] for name in model}, layout, orders)
    buffer = {"model.rotary_emb.inv_freq": np.ones(3, np.float32)}  # the file is laid out anew for it
    merged = joined(repo, theirs | buffer, "--align", "weights", "-X", "average")
    np.testing.assert_array_equal(merged.pop(*buffer), np.ones(3))
    for name, value in merged.items():
        np.testing.assert_allclose(value, model[name] + noise[name] / 2, atol=1e-6, err_msg=name)
    assert "Theta-Merge: -X average --align weights" in repo.git("log", "-1", "--format=%B")
    assert "the same tree" in repo.theta("merge", "--replay", "HEAD").stdout
    repo.theta("fsck")
    assert "dangling blob" not in repo.git("fsck")


def test_an_aligned_merge_is_the_same_where_an_engine_is_asked_for(
    pair: tuple[Repo, Model, UnitLayout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Theirs in our order is in no repository that workers see, so that threads merge it."""
    repo, model, layout = pair
    monkeypatch.setattr(parallel, "WORTH_SPREADING", 1)
    noise = {name: value / np.float32(50) for name, value in filled(llama(), 9).items()}
    theirs = in_order({name: model[name] + noise[name] for name in model}, layout, shuffled(layout, 5))
    twin = repo.copy(tmp_path / "twin")
    by_threads = joined(repo, theirs, "--align", "weights", "-X", "average", inside=True)
    twin.git("config", "theta.engine", "tests.engine.factories:threads")
    by_workers = joined(twin, theirs, "--align", "weights", "-X", "average", inside=True)
    assert by_workers.keys() == by_threads.keys()
    assert twin.git("rev-parse", "HEAD^{tree}") == repo.git("rev-parse", "HEAD^{tree}")


def test_blocks_of_rows_give_what_whole_tensors_give(
    pair: tuple[Repo, Model, UnitLayout], monkeypatch: pytest.MonkeyPatch
) -> None:
    """c3: no more than a block is float64 at a time, nor in memory where rows keep their places."""
    repo, model, layout = pair
    noise = {name: value / np.float32(50) for name, value in filled(llama(), 9).items()}
    theirs = in_order({name: model[name] + noise[name] for name in model}, layout, shuffled(layout, 5))
    widened: list[int] = []

    def counted(words: Array, dtype: str) -> Array:
        widened.append(words.size)
        return numbers.widen(words, dtype)

    block = 40
    monkeypatch.setattr(reordering, "widen", counted)
    monkeypatch.setattr(reordering, "_WHOLE", 0)
    monkeypatch.setattr(reordering, "_KEPT", 0)
    monkeypatch.setattr(matching, "BLOCK", block)
    merged = joined(repo, theirs, "--align", "weights", "-X", "average", inside=True)
    assert max(widened) <= block
    assert len(widened) > 100
    for name, value in merged.items():
        np.testing.assert_allclose(value, model[name] + noise[name] / 2, atol=1e-6, err_msg=name)


def test_blocks_of_rows_are_decoded_once_a_comparison(
    pair: tuple[Repo, Model, UnitLayout], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block of ours meets all rows of theirs, which were read again for it."""
    repo, model, layout = pair
    theirs = in_order(model, layout, shuffled(layout, 5))
    asked: list[int] = []
    plain = StoredTensor.read

    def counted(stored: StoredTensor, start: int, stop: int) -> Array:
        asked.append(stop - start)
        return plain(stored, start, stop)

    monkeypatch.setattr(reordering, "_WHOLE", 0)
    monkeypatch.setattr(reordering, "_KEPT", 0)
    monkeypatch.setattr(StoredTensor, "read", counted)

    def readings(block: int) -> int:
        asked.clear()
        monkeypatch.setattr(matching, "BLOCK", block)
        theta(repo, "merge", "other", "--align", "weights", "-X", "average")
        repo.git("reset", "-q", "--hard", "HEAD^")
        return len(asked)

    joined(repo, theirs, "-X", "average")
    repo.git("reset", "-q", "--hard", "HEAD^")
    few, many = readings(160), readings(40)
    assert 2 * few < many < 5 * few  # four times as many blocks; their pairs are sixteen times as many


@pytest.mark.parametrize("line", ["-X fisher --align weights --statistics abc --statistics def"])
def test_a_trailer_with_an_alignment_and_statistics_is_refused(line: str) -> None:
    """Written by hand: theta writes none."""
    with pytest.raises(UsageError, match="statistics do not have"):
        read_round(line)


def test_statistics_do_not_go_with_another_order(pair: tuple[Repo, Model, UnitLayout]) -> None:
    repo = pair[0]
    words = ("--align", "weights", "-X", "fisher", "--statistics", "HEAD:a", "--statistics", "HEAD:b")
    assert "statistics" in repo.theta("merge", "other", *words, code=2).stderr


def test_an_aligned_outer_step_keeps_its_momentum(pair: tuple[Repo, Model, UnitLayout]) -> None:
    """Its objects stayed where the aligned model was computed, and the merge failed."""
    repo, model, layout = pair
    noise = {name: value / np.float32(50) for name, value in filled(llama(), 9).items()}
    theirs = in_order({name: model[name] + noise[name] for name in model}, layout, shuffled(layout, 5))
    ours = {name: model[name] - noise[name] / 2 for name in model}
    for branch, values in (("round", theirs), ("main", ours)):
        repo.theta("switch", "-q", *(["-c"] if branch == "round" else []), branch)
        make_model(repo.path / MODEL, values)
        repo.theta("commit", "-q", "-am", branch)
    repo.theta("merge", "round", "--align", "weights", "-X", "outer")
    assert read_model(repo.path / "m.momentum.safetensors").keys() == model.keys()
    assert "the same tree" in repo.theta("merge", "--replay", "HEAD").stdout
    repo.theta("fsck")


def test_the_shards_of_a_model_are_ordered_together(repo: Repo) -> None:
    """The axes over one group of units lie in several files."""
    model = filled(mlp(), 4)
    layout = layout_of(model, None)
    other = in_order(model, layout, shuffled(layout, 4))
    repo.theta("track", "*.safetensors")
    repo.git("add", ".gitattributes")
    repo.git("commit", "-qm", "nothing yet")
    for branch, tensors in (("main", model), ("other", other)):
        if branch == "other":
            repo.theta("switch", "-q", "-c", "other", "HEAD^")
        for number in range(3):
            part = {name: value for name, value in tensors.items() if f".{number}." in name}
            make_model(repo.path / f"m-0000{number + 1}-of-00003.safetensors", part)
        repo.theta("add", ".")
        repo.theta("commit", "-qm", branch)
    repo.theta("switch", "-q", "main")
    repo.theta("merge", "other", "--align", "weights")
    for number in range(3):
        for name, value in read_model(repo.path / f"m-0000{number + 1}-of-00003.safetensors").items():
            np.testing.assert_array_equal(value, model[name], err_msg=name)


def test_conflicts_of_an_aligned_merge_are_settled_in_our_order(pair: tuple[Repo, Model, UnitLayout]) -> None:
    """The tensors that theta resolve takes from theirs are in the order in which the merge began."""
    repo, model, layout = pair
    tuned = {name: value + np.float32(0.01) for name, value in model.items()}
    repo.theta("switch", "-q", "other")
    make_model(repo.path / MODEL, in_order(tuned, layout, shuffled(layout, 5)))
    repo.theta("add", MODEL)
    repo.theta("commit", "-qm", "theirs")
    repo.theta("switch", "-q", "main")
    repo.theta("merge", "other", "--align", "weights", "--no-prompt", code=1)
    repo.theta("resolve", "-X", "theirs")
    for name, value in read_model(repo.path / MODEL).items():
        np.testing.assert_array_equal(value, tuned[name], err_msg=name)


@pytest.mark.parametrize(
    "text",
    [
        "heads = 2\nx = 2001-01-01",
        "heads = 2\naxes = {a = 2001-01-01}",
        '{"heads": 1' + "0" * 5000 + "}",
        "a=" + "[" * 5000 + "]" * 5000,
    ],
    ids=["a date", "a date for axes", "digits", "depth"],
)
def test_a_hostile_specification_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        specs.canonical(text)


@pytest.mark.parametrize(
    "shapes",
    [
        {"layers.0.weight": (4,), "layers.1.weight": (4,)},
        {
            "l.attention.self.query.weight": (8, 8),
            "l.attention.self.key.weight": (4, 8),
            "l.attention.self.value.weight": (4, 8),
            "l.attention.output.dense.weight": (8, 8),
        },
    ],
    ids=["vectors", "heads of unequal widths"],
)
def test_a_model_that_cannot_be_laid_out_is_refused(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(UsageError):
        families.layout(shapes, Heads(2, 2, rotary=False))
