"""Rules that hold for every merge method, whatever its formula, and the traps that others fell into."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.merging.in_memory import Geometry, merge_arrays
from theta.errors import ThetaError, UsageError
from theta.merging.strategies import SIDES, describe, names, numbers, parse
from theta.merging.strategies.breadcrumbs import ends
from theta.merging.strategies.della import keep_chances
from theta.merging.strategies.method import BLOCK, Method
from theta.merging.strategies.ties import Ties

Array = NDArray[Any]

BUILT_IN = [name for name in names() if name not in (*SIDES, "peft")]
"""Strategies that compute elements; ``peft`` takes both factors of a module together (test_products)."""
NEEDED = {"nearswap": ":t=0.1"}
PAIRS = [name for name in BUILT_IN if describe(name).max_inputs == 2]
WEIGHTED = [
    name
    for name in BUILT_IN
    if any(p.name == "weight" for p in describe(name).parameters)
    and not name.startswith("della")
    and name != "outer"
]
"""della has no density of one: it always drops something; outer takes a step with a learning rate."""
SYMMETRIC = [
    "average",
    "linear",
    "task_arithmetic",
    "ties",
    "breadcrumbs",
    "breadcrumbs_ties",
    "multislerp",
    "karcher",
    "model_stock",
    "sce",
    "ram",
    "ramplus_tl",
    "fisher",
    "regmean",
    "smear",
    "iso_c",
    "tsv_m",
    "consensus",
    "wudi",
    "doge_ta",
    "outer",
]
KINDS = {
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "f8_e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
}


def method(name: str) -> str:
    return name + NEEDED.get(name, "")


def tensors(count: int, shape: tuple[int, ...], dtype: str = "f32", seed: int = 0) -> list[Array]:
    """The base and ``count`` fine-tunes, as words."""
    random = np.random.default_rng(seed)
    base = random.normal(size=shape)
    found = [base, *(base + 0.2 * random.normal(size=shape) for _ in range(count))]
    kind = KINDS[dtype]
    return [values.astype(kind).reshape(-1).view(f"<u{kind.itemsize}") for values in found]


def merge(strategy: str, inputs: list[Array], base: Array, dtype: str = "f32", **options: Any) -> Array:
    like = Geometry(dtype, options.pop("shape", (inputs[0].size,)))
    return merge_arrays(parse(strategy), inputs, base, like, **options)


def on_threads(work: Any, blocks: Any) -> Iterator[Any]:
    with ThreadPoolExecutor(4) as pool:
        yield from pool.map(work, blocks)


# -- what holds for all of them ------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name != "outer"])
@given(raw=st.binary(max_size=24).map(lambda raw: raw[: len(raw) // 2 * 2]), number=st.integers(2, 4))
@settings(max_examples=10)
def test_a_value_with_itself_is_itself(name: str, raw: bytes, number: int) -> None:
    """Bit for bit: NaN payloads and negative zeros too, whatever the base is."""
    words = np.frombuffer(raw, "<u2")
    count = 2 if name in PAIRS else number
    assert np.array_equal(merge(method(name), [words] * count, words[::-1].copy(), "bf16"), words)


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("dtype", KINDS)
def test_weights_one_and_zero_take_the_first(name: str, dtype: str) -> None:
    base, one, other = tensors(2, (5, 3), dtype)
    gamma = ",gamma=0" if name.startswith("breadcrumbs") else ""
    assert np.array_equal(merge(f"{name}:weight=[1,0]{gamma}", [one, other], base, dtype), one)
    assert np.array_equal(merge(f"{name}:weight=[0,1]{gamma}", [one, other], base, dtype), other)


@pytest.mark.parametrize("name", SYMMETRIC)
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_the_order_of_the_inputs_does_not_matter(name: str, dtype: str) -> None:
    base, *inputs = tensors(3, (6, 4), dtype, seed=3)
    found = {
        merge(name, [inputs[n] for n in order], base, dtype, shape=(6, 4)).tobytes()
        for order in ((0, 1, 2), (2, 0, 1), (1, 0, 2), (2, 1, 0))
    }
    assert len(found) == 1


def test_symmetric_methods_are_those_that_say_so() -> None:
    from theta.merging.strategies import registry

    assert {name for name in BUILT_IN if registry.method(name).symmetric} == set(SYMMETRIC)


@pytest.mark.parametrize("name", BUILT_IN)
def test_threads_do_not_show(name: str) -> None:
    """Nor does the place where a block ends: elements of the second block are those of a whole tensor."""
    shape = (3, BLOCK // 2 + 5)
    base, *inputs = tensors(2, shape, "bf16", seed=1)
    if name in ("iso_c", "tsv_m", "regmean", "opcm", "wudi", "doge_ta"):
        shape = (8, 40)
        base, *inputs = tensors(2, shape, "bf16", seed=1)
    options = {"della": ":density=0.4", "ties": ":density=0.3", "sce": ":select_topk=0.3"}
    strategy = method(name) + options.get(name, "")
    alone = merge(strategy, inputs, base, "bf16", shape=shape)
    for _ in range(2):
        assert np.array_equal(merge(strategy, inputs, base, "bf16", shape=shape, parallel=on_threads), alone)


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("shape", [(), (0,), (4, 0), (1,), (1, 1)])
def test_empty_and_scalar_tensors(name: str, shape: tuple[int, ...]) -> None:
    base, *inputs = tensors(2, shape)
    found = merge(method(name), inputs, base, shape=shape)
    assert found.size == inputs[0].size
    assert np.isfinite(found.view("<f4")).all()


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("dtype", KINDS)
def test_every_dtype_is_rounded_into(name: str, dtype: str) -> None:
    """The result of a narrow type is that of float32, rounded once."""
    base, *inputs = tensors(2, (4, 6), dtype, seed=7)
    found = merge(method(name), inputs, base, dtype, shape=(4, 6)).view(KINDS[dtype])
    wide = [words.view(KINDS[dtype]).astype(np.float32).view("<u4") for words in (base, *inputs)]
    exact = merge(method(name), wide[1:], wide[0], "f32", shape=(4, 6)).view("<f4")
    if dtype == "f64":
        assert np.allclose(found.astype(float), exact, atol=1e-4)
    else:
        assert found.tobytes() == exact.astype(KINDS[dtype]).tobytes()


@pytest.mark.parametrize("name", BUILT_IN)
def test_nan_in_an_input_is_kept_or_refused_and_never_spread(name: str) -> None:
    base, one, other = tensors(2, (2, 5))
    bad = one.copy()
    bad.view("<f4")[3] = np.nan
    try:
        found = merge(method(name), [bad, other], base, shape=(2, 5)).view("<f4")
    except ThetaError as error:
        assert str(error).startswith("t: ")
    else:
        assert np.isfinite(np.delete(found, 3)).all()


def test_a_new_infinity_is_refused_unless_allowed() -> None:
    big = np.array([60000.0, 1], np.float16).view("<u2")
    zero = np.zeros(2, "<u2")
    other = np.array([59000.0, 2], np.float16).view("<u2")
    with pytest.raises(ThetaError, match="t: task_arithmetic makes NaN or infinity") as caught:
        merge("task_arithmetic", [big, other], zero, "f16")
    assert "element 0" in str(caught.value)
    assert "--allow-nan" in caught.value.hint
    found = merge("task_arithmetic", [big, other], zero, "f16", allow_nan=True)
    assert np.isinf(found.view("<f2")[0])


# -- bfloat16 in all its values ------------------------------------------------------------------


def test_every_bfloat16_pair_of_specials() -> None:
    """Means of infinities, zeros, subnormals and the largest numbers, rounded as float32 says."""
    words = np.array(
        [0x0000, 0x8000, 0x0001, 0x8001, 0x007F, 0x7F7F, 0xFF7F, 0x7F80, 0xFF80, 0x7FC1, 0x7F81, 0x3F80],
        "<u2",
    )
    one, other = np.repeat(words, words.size), np.tile(words, words.size)
    found = merge("average", [one, other], one, "bf16", allow_nan=True)
    with np.errstate(all="ignore"):
        wide = [(w.astype("<u4") << 16).view("<f4") for w in (one, other)]
        exact = (wide[0] * np.float32(0.5) + wide[1] * np.float32(0.5)).astype(ml_dtypes.bfloat16)
    values = found.view(ml_dtypes.bfloat16).astype(np.float32)
    nan = np.isnan(exact.astype(np.float32))
    assert np.array_equal(np.isnan(values), nan)
    same = one == other
    assert np.array_equal(found[~nan & ~same], exact.view("<u2")[~nan & ~same])
    assert np.array_equal(found[same], one[same])


# -- the largest k, exactly ----------------------------------------------------------------------


@given(
    st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-40, 3.0]), min_size=1, max_size=40),
    st.floats(0.01, 1),
    st.sampled_from(["f32", "f64"]),
)
def test_ties_keeps_exactly_the_k_largest(values: list[float], density: float, dtype: str) -> None:
    """Those with the lower index first where magnitudes are equal; one at least, also where k is 0."""
    kind = KINDS[dtype]
    delta = np.array(values, kind)
    words = delta.view(f"<u{kind.itemsize}")
    found = merge(f"ties:density={density}", [words], np.zeros_like(words), dtype).view(kind)
    k = max(int(density * delta.size), 1)
    order = np.argsort(-np.abs(delta), kind="stable")[:k]
    wanted = np.zeros_like(delta)
    wanted[order] = delta[order]
    assert np.array_equal(found, wanted)


def test_large_tensors_take_the_kernel_to_the_same_bits() -> None:
    """Full blocks are counted and elected by kernels, the rest by numpy."""
    size = 2 * BLOCK + 77
    base, *inputs = tensors(3, (size,), "bf16", seed=5)
    strategy = "ties:density=0.3,weight=[1,0.5,0.25]"
    found = merge(strategy, inputs, base, "bf16")
    wide = [words.view(ml_dtypes.bfloat16).astype(np.float32) for words in (base, *inputs)]
    weighted = []
    for values, weight in zip(wide[1:], (1, 0.5, 0.25), strict=True):
        delta = values - wide[0]
        kept = np.zeros_like(delta)
        order = np.argsort(-np.abs(delta), kind="stable")[: int(0.3 * size)]
        kept[order] = delta[order]
        weighted.append(kept * np.float32(weight))
    up = sum(weighted) >= 0
    agree = [np.where(up, values > 0, values < 0) for values in weighted]
    above = sum(np.where(a, v, 0).astype(np.float64) for a, v in zip(agree, weighted, strict=True))
    below = sum(a * w for a, w in zip(agree, (1, 0.5, 0.25), strict=True))
    wanted = wide[0] + above / np.where(below == 0, 1, below)
    assert np.allclose(found.view(ml_dtypes.bfloat16).astype(np.float32), wanted, rtol=2**-7, atol=1e-30)
    assert np.mean(found == wanted.astype(ml_dtypes.bfloat16).view("<u2")) > 0.999


@pytest.mark.parametrize(
    "strategy",
    [
        *("average", "slerp:t=0.3", "nuslerp:weight=[1,2]", "breadcrumbs:density=0.4"),
        *("ties:density=0.4", "ties:density=1,normalize=false"),
        "ties:density=0.4,weight=[0.3,1.7],lambda=0.9",
    ],
)
def test_one_pass_over_the_words_of_two_sides(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes what the passes of numpy make, which small blocks and other dtypes go through."""
    base, *inputs = tensors(2, (2 * BLOCK + 77,), "bf16", seed=3)
    found = merge(strategy, inputs, base, "bf16")
    monkeypatch.setattr(numbers, "_WORTH_A_KERNEL", 1 << 40)
    monkeypatch.setattr(Ties, "at_once", Method.at_once)
    assert np.array_equal(merge(strategy, inputs, base, "bf16"), found)


# -- traps ---------------------------------------------------------------------------------------


def test_breadcrumbs_on_eight_elements_drops_nothing_at_the_top() -> None:
    """With gamma n < 1 a slice to -0 is empty, and everything would be dropped."""
    assert ends(8, 0.5, 0.01) == (0, 4)
    assert ends(6, 0.9, 0.5) == (1, 0)
    base = np.zeros(8, "<f4").view("<u4")
    delta = np.arange(1, 9, dtype="<f4").view("<u4")
    found = merge("breadcrumbs:density=0.5", [delta], base).view("<f4")
    assert found.tolist() == [0, 0, 0, 0, 5, 6, 7, 8]


def test_della_on_one_column() -> None:
    """Ranks within a row of one are 0 / 0 elsewhere."""
    assert keep_chances(np.ones((3, 1)), 0.5, 0.2).tolist() == [[0.5]] * 3
    base, *inputs = tensors(2, (64, 1))
    assert np.isfinite(merge("della:epsilon=0.2", inputs, base, shape=(64, 1)).view("<f4")).all()


@pytest.mark.parametrize("options", ["density=0.1,epsilon=0.15", "density=0.9,epsilon=0.1"])
def test_della_refuses_chances_that_are_none(options: str) -> None:
    base, *inputs = tensors(2, (4,))
    with pytest.raises(UsageError, match="della"):
        merge(f"della:{options}", inputs, base)


def test_model_stock_stays_between_base_and_mean() -> None:
    """Opposite differences make the ratio negative, or infinite at a cosine of -1 / (N - 1)."""
    base = np.zeros(2, "<f8").view("<u8")
    one, other = np.array([1.0, 0.1]).view("<u8"), np.array([-1.0, 0.1]).view("<u8")
    assert merge("model_stock", [one, other], base, "f64").view("<f8").tolist() == [0, 0]
    negative = merge("model_stock:clamp=false", [one, other], base, "f64").view("<f8")
    assert negative[1] < 0
    opposite = [np.array([1.0, 0]).view("<u8"), np.array([-1.0, 0]).view("<u8")]
    assert merge("model_stock", opposite, base, "f64").view("<f8").tolist() == [0, 0]
    with pytest.raises(ThetaError, match="t: model_stock is not defined here"):
        merge("model_stock:clamp=false", opposite, base, "f64")


def test_model_stock_by_rows() -> None:
    base, *inputs = tensors(3, (4, 9), "f64")
    whole = merge("model_stock:filter_wise=true", inputs, base, "f64", shape=(4, 9)).reshape(4, 9)
    for row in range(4):
        cut = [words.reshape(4, 9)[row].copy() for words in (base, *inputs)]
        alone = merge("model_stock", cut[1:], cut[0], "f64").view("<f8")
        np.testing.assert_allclose(whole[row].copy().view("<f8"), alone, rtol=1e-12)


@pytest.mark.parametrize("name", ["slerp:t=0.25", "nuslerp:weight=[3,1]"])
@pytest.mark.parametrize("other", [[0.0, 0, 0], [-1.0, -2, 3], [1.0, 2, -3]])
def test_slerp_of_zero_opposite_and_parallel_vectors_is_linear(name: str, other: list[float]) -> None:
    one = np.array([1.0, 2, -3])
    words = [one.view("<u8"), (np.array(other) * 1.5).view("<u8")]
    found = merge(name, words, words[0], "f64").view("<f8")
    if any(other) or name.startswith("slerp"):
        expected = 0.75 * one + 0.25 * 1.5 * np.array(other)
        if not any(other):
            angle = np.pi / 2  # a zero vector is at a right angle to everything
            expected = np.sin(0.75 * angle) * one
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert np.isfinite(found).all()


def test_multislerp_of_opposites() -> None:
    base = np.zeros(2, "<f8").view("<u8")
    pair = [np.array([1.0, 0]).view("<u8"), np.array([-1.0, 0]).view("<u8")]
    assert merge("multislerp", pair, base, "f64").view("<f8").tolist() == [0, 0]
    three = [np.array([np.cos(a), np.sin(a)]).view("<u8") for a in (0, 2 * np.pi / 3, 4 * np.pi / 3)]
    with pytest.raises(ThetaError, match="multislerp is not defined here"):
        merge("multislerp", three, base, "f64")


def test_karcher_of_zeros_and_opposites() -> None:
    zero = np.zeros(3, "<f8").view("<u8")
    one = np.array([1.0, 0, 0]).view("<u8")
    assert merge("karcher", [zero, zero, one], zero, "f64").view("<f8").tolist() == [1, 0, 0]
    opposite = merge("karcher", [one, np.array([-1.0, 0, 0]).view("<u8")], zero, "f64").view("<f8")
    assert np.isfinite(opposite).all()


def test_weights_that_cancel_have_no_mean() -> None:
    base, *inputs = tensors(2, (4,))
    with pytest.raises(ThetaError, match="add up to nothing"):
        merge("linear:weight=[1,-1]", inputs, base)


# -- randomness ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties", "della", "della_linear"])
def test_random_methods_are_keyed_by_all_that_should_matter(name: str) -> None:
    base, one, other = tensors(2, (50,), seed=2)
    strategy = f"{name}:density=0.5"

    def of(tensor: str, seed: int) -> bytes:
        like = Geometry("f32", (50,), tensor)
        return merge_arrays(parse(strategy), [one, other], base, like, seed=seed).tobytes()

    assert of("a", 0) == of("a", 0)
    assert len({of("a", 0), of("b", 0), of("a", 1)}) == 3


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_dare_keeps_its_share(density: float) -> None:
    size = 40_000
    base = np.zeros(size, "<f4").view("<u4")
    one = np.ones(size, "<f4").view("<u4")
    found = merge(f"dare_linear:density={density},rescale=false", [one], base).view("<f4")
    share, error = found.mean(), 4 * np.sqrt(density * (1 - density) / size)
    assert abs(share - density) < error
    rescaled = merge(f"dare_linear:density={density}", [one], base).view("<f4")
    assert rescaled.sum(dtype=np.float64) == pytest.approx(size, rel=1e-5)


def test_della_keeps_large_elements_more_often() -> None:
    random = np.random.default_rng(0)
    delta = random.normal(size=(200, 200)).astype("<f4")
    kept = merge(
        "della_linear:density=0.5,epsilon=0.3,rescale=false",
        [delta.reshape(-1).view("<u4")],
        np.zeros(delta.size, "<u4"),
        shape=delta.shape,
    ).view("<f4")
    chosen = (kept != 0).reshape(delta.shape)
    ranks = np.argsort(np.argsort(np.abs(delta), axis=1), axis=1) / 199
    small, large = chosen[ranks < 0.25].mean(), chosen[ranks > 0.75].mean()
    assert small == pytest.approx(0.2 + 0.6 * 0.125, abs=0.02)
    assert large == pytest.approx(0.2 + 0.6 * 0.875, abs=0.02)


# -- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "ties:density=0.5,lambda=0.9,weight=[0.6,0.4]",
        "slerp:t=[0,0.5,1]",
        "slerp:t={self_attn:[0,1],mlp:0.5,*:0.25}",
        "linear:weight=[[0,1],{mlp:2,*:1}]",
        "dare_ties:density=0.25,rescale=false,variant=paper",
        "average:alpha=0.3",
        "nearswap:t=1e-05",
        'slerp:t={"a, b":0.1,*:1}',
    ],
)
def test_a_strategy_is_its_text(text: str) -> None:
    assert str(parse(text)) == text
    assert parse(str(parse(text))) == parse(text)


def test_what_says_the_default_is_left_out() -> None:
    assert str(parse("ties:density=1,normalize=true,weight=1")) == "ties"
    assert str(parse("task-arithmetic")) == "task_arithmetic"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tise", "did you mean ties"),
        ("ties:int8_mask=true", "int8_mask is not supported"),
        ("ties:densty=0.5", "no parameter 'densty'"),
        ("ties:density=2", "density is a number from 0 to 1, not 2"),
        ("ties:density=x", "density is a number from 0 to 1, not x"),
        ("ties:normalize=1", "normalize is true or false"),
        ("ties:variant=other", "mergekit or paper"),
        ("ties:density=0.1,density=0.2", "given twice"),
        ("ties:density=[0.1", "expected ']' at the end"),
        ("ties:weight=[]", "expected a value"),
        ("ties:weight=" + "[" * 20, "nested too deeply"),
        ("karcher:max_iter=1.5", "a whole number"),
        ("karcher:max_iter=[1,2]", "not a gradient"),
        ("nearswap", "nearswap needs t"),
        ("ties:density=nan", "not a number that a parameter can have"),
        ("ours:weight=1", "ours has no parameters"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert told in f"{caught.value} {caught.value.hint}"


def test_as_many_weights_as_sides() -> None:
    base, *inputs = tensors(3, (4,))
    with pytest.raises(UsageError, match="weight has 2 values and the merge has 3 inputs"):
        merge("linear:weight=[1,2]", inputs, base)
    with pytest.raises(UsageError, match="alpha is the weight of one of two"):
        merge("average:alpha=0.3", inputs, base)


def test_gradients_and_filters_are_resolved_by_layer() -> None:
    slerp = parse("slerp:t={mlp:[0,0.5,1],*:0.25}")
    found = [slerp.resolve("x.mlp.w", place, 2)["t"] for place in (0, 0.25, 0.5, 1)]
    assert found == [0, 0.25, 0.5, 1]
    assert slerp.resolve("x.attn.w", 1, 2)["t"] == 0.25
    linear = parse("linear:weight=[[0,1],2]")
    assert linear.resolve("x", 0.75, 2)["weight"] == [0.75, 2]
    assert parse("linear:weight=[[0,1]]").resolve("x", 0.5, 3)["weight"] == [0.5] * 3
    assert parse("linear:weight={mlp:[3,4],*:1}").resolve("mlp", 0, 2)["weight"] == [3, 4]
