"""Rules, recipe files, and the line that reproduces a merge."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from theta.errors import NotFoundError, UsageError
from theta.merging import depth, recipe_files, recipe_line, recipes
from theta.merging.recipes import Recipe, Rule, combine, from_text, rule
from theta.merging.states import Conflict
from theta.merging.strategies import make, parse
from theta.porcelain.merge.trailers import Round, read_round
from theta.store.format.manifest import Line

# -- rules and the line ----------------------------------------------------------------------------


def test_the_first_rule_that_matches_counts() -> None:
    recipe = Recipe(
        parse("average"), (rule("lm_head*=ours"), rule("*.weight=ties:density=0.5"), rule("*=theirs"))
    )
    assert str(recipe.strategy_for("lm_head.weight")) == "ours"
    assert str(recipe.strategy_for("x.weight")) == "ties:density=0.5"
    assert str(recipe.strategy_for("x.bias")) == "theirs"
    assert Recipe(rules=(rule("a=ours"),)).strategy_for("b") is None


@pytest.mark.parametrize(
    ("text", "glob", "strategy"),
    [
        ("a*=ours", "a*", "ours"),
        ("a=b=average:alpha=0.3", "a=b", "average:alpha=0.3"),
        ("layers.[01].*=slerp:t=[0,1]", "layers.[01].*", "slerp:t=[0,1]"),
        ("x=linear:weight=[0.6,0.4]", "x", "linear:weight=[0.6,0.4]"),
    ],
)
def test_a_rule_is_a_glob_and_a_strategy(text: str, glob: str, strategy: str) -> None:
    found = rule(text)
    assert (found.glob, str(found.strategy), str(found)) == (glob, strategy, text)


@pytest.mark.parametrize("text", ["", "ours", "=ours", "a=", "a=tise", "a=ties:density=2"])
def test_a_rule_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        rule(text)


STRATEGIES = st.sampled_from(
    ["ours", "average", "ties:density=0.5,weight=[0.6,0.4]", "slerp:t={mlp:[0,1],*:0.5}", "nearswap:t=0.1"]
).map(parse)
GLOBS = st.text(st.characters(codec="utf-8", exclude_characters="=\0"), min_size=1, max_size=12)


@given(
    st.none() | STRATEGIES,
    st.lists(st.builds(Rule, GLOBS, STRATEGIES), max_size=3),
    st.sampled_from(["conflicts", "all"]),
    st.integers(0, 2**63 - 1),
    st.booleans(),
    st.lists(st.integers(0, 5), max_size=2),
)
def test_a_recipe_is_its_line(
    default: object, rules: list[Rule], scope: str, seed: int, allow_nan: bool, without: list[int]
) -> None:
    recipe = Recipe(default, tuple(rules), scope, seed, allow_nan, tuple(without))  # type: ignore[arg-type]
    assert from_text(recipe.text()) == recipe


BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\0\x1b"
WORDS = st.text(st.characters() | st.sampled_from(BREAKS + "\\' -$"), max_size=12)
PATHS = st.text(st.characters(exclude_characters="\0") | st.sampled_from(BREAKS[:-2]), min_size=1, max_size=9)


@given(st.lists(WORDS, max_size=4))
def test_words_are_one_line_and_the_same_words_again(words: list[str]) -> None:
    line = recipe_line.join(words)
    assert len(line.splitlines()) <= 1
    assert line.encode().decode() == line
    assert recipe_line.split(line) == words


@given(st.lists(st.builds(Rule, PATHS.filter(lambda glob: "=" not in glob), STRATEGIES)), st.lists(PATHS))
def test_a_round_is_one_line_of_a_message_and_the_same_round_again(
    rules: list[Rule], paths: list[str]
) -> None:
    found = Round(Recipe(parse("average"), tuple(rules), searched="weight=\x85"), paths=tuple(paths))
    assert len(found.text().splitlines()) == 1
    assert read_round(found.text()) == found


def test_a_line_without_breaks_is_read_as_before() -> None:
    assert recipe_line.split(r"--rule '\u000a\n=ours' -- 'a\'") == ["--rule", r"\u000a\n=ours", "--", "a\\"]
    assert from_text(r"--escaped --rule '\u000a*=ours'") == Recipe(rules=(rule("\n*=ours"),))
    for line in (r"--escaped --rule '\n=ours'", r"--escaped --rule 'a\'", r"--escaped --rule '\u00=ours'"):
        with pytest.raises(UsageError, match="stands for no character"):
            from_text(line)


def test_the_line_is_what_the_command_line_says() -> None:
    recipe = Recipe(parse("ties:density=0.5"), (rule("lm_head*=ours"),), "all", 7)
    assert recipe.text() == "-X ties:density=0.5 --rule 'lm_head*=ours' --scope all --seed 7"
    assert Recipe().text() == ""


@pytest.mark.parametrize(
    "line",
    ["-X", "--what 1", "-X tise", "--scope some", "--seed -1", "--seed 1.5", "'", "-X ours " * 200_000],
)
def test_a_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(UsageError):
        from_text(line)


def test_the_command_line_stands_over_a_file() -> None:
    file = Recipe(parse("ties"), (rule("*=theirs"),), "all", 3)
    rules = (rule("a=ours"),)
    assert combine(None, rules, file) == Recipe(parse("ties"), (*rules, *file.rules), "all", 3)
    over = combine(parse("average"), rules, file, scope="conflicts", seed=0)
    assert over == Recipe(parse("average"), rules, "conflicts", 0)


def conflict(name: str, dtype: str = "f32") -> Conflict:
    lines = [Line(name, dtype, (2,), digest * 64, "1" * 40) for digest in "abc"]
    return Conflict(name, lines[0], lines[1], lines[2])


def test_what_a_rule_does_not_go_for_is_left_or_asked() -> None:
    recipe = Recipe(parse("average"), (rule("steps=ours"),))
    policy = recipe.policy(lambda _: parse("theirs"))
    assert str(policy(conflict("w"))) == "average"
    assert str(policy(conflict("n", "i64"))) == "theirs"
    assert str(policy(conflict("steps", "i64"))) == "ours"
    assert recipe.policy()(conflict("n", "i64")) is None


# -- layers ------------------------------------------------------------------------------------------


def test_layers_run_from_zero_to_one() -> None:
    names = [f"model.layers.{n}.mlp.up.weight" for n in range(5)] + ["lm_head.weight", "norm.1"]
    names += ["h_0/w", "h_1/w", "only.0.w"]
    found = depth.positions(names)
    assert [found[name] for name in names] == [0, 0.25, 0.5, 0.75, 1, 0, 0, 0, 1, 1]


# -- files -----------------------------------------------------------------------------------------------


def load(text: str) -> recipe_files.RecipeFile:
    return recipe_files.load(text.encode(), "r.yaml")


TIES = """
merge_method: ties
base_model: main~3
models:
  - model: main~3  # no parameters necessary for the base
  - model: main
    parameters:
      density: 0.5
      weight: [0, 0.5, 1]  # a gradient over the layers
  - model: side
    parameters:
      density: 0.3
      weight:
        - filter: mlp
          value: [0, 1]
        - value: 0.25
parameters:
  normalize: true
  lambda: 0.9
"""


def test_a_recipe_of_mergekit() -> None:
    file = load(TIES)
    assert (file.method, file.models, file.base, file.scope) == ("ties", ("main", "side"), "main~3", "all")
    recipe = file.recipe()
    assert str(recipe.default) == ("ties:density=[0.5,0.3],lambda=0.9,weight=[[0,0.5,1],{mlp:[0,1],*:0.25}]")
    assert str(file.recipe([1, 0]).default).startswith("ties:density=[0.3,0.5],")
    assert from_text(recipe.text()) == recipe
    with_ours = file.recipe([None, 0, 1])
    assert with_ours.without == (0,)
    assert str(with_ours.default).startswith("ties:density=[1,0.5,0.3],")
    with pytest.raises(UsageError, match="names 2 models and the merge has 3 sides"):
        file.recipe([0, 1, 2])


def test_slerp_puts_its_base_first() -> None:
    text = """
slices:
  - sources:
      - {model: b, layer_range: [0, 32]}
      - {model: a, layer_range: [0, 32]}
merge_method: slerp
base_model: a
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 1]
    - value: 0.5
"""
    file = load(text)
    assert (file.models, file.base) == (("a", "b"), None)
    assert str(file.recipe().default) == "slerp:t={self_attn:[0,0.5,1],*:0.5}"


def test_a_gradient_for_all_models_is_a_gradient() -> None:
    file = load("merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: [0, 1]}")
    strategy = file.recipe().default
    assert strategy is not None
    assert strategy.resolve("w", 0.25, 2)["weight"] == [0.25, 0.25]


def test_a_base_makes_nuslerp_work_on_differences() -> None:
    text = "merge_method: nuslerp\nbase_model: o\nmodels: [{model: a}, {model: b, parameters: {weight: 3}}]"
    assert load(text).recipe().default == make("nuslerp", {"use_base": True, "weight": (1.0, 3.0)})


def test_rules_scope_and_seed_are_additions_of_theta() -> None:
    text = "merge_method: linear\nmodels: [{model: a}]\nrules: {lm_head*: ours}\n"
    text += "scope: conflicts\nseed: 5\nallow_nan: true"
    found = load(text).recipe()
    assert found == Recipe(parse("linear:variant=mergekit"), (rule("lm_head*=ours"),), "conflicts", 5, True)


def test_the_dtype_of_the_result_is_out_dtype_before_dtype() -> None:
    text = "merge_method: linear\nmodels: [{model: a}]\ndtype: float32\n"
    assert load(text).recipe().dtype == "f32"
    assert load(f"{text}out_dtype: bfloat16").recipe().dtype == "bf16"


def test_a_key_without_effect_is_noted() -> None:
    text = "merge_method: ties\nmodels: [{model: a, parameters: {int8_mask: true}}]"
    assert load(text).recipe().default == parse("ties")
    assert load(text).notes == ("r.yaml: int8_mask has no effect: theta never keeps masks",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("merge_method: linear\nmodels: [{model: a}]\ndtype: int8", "no dtype 'int8'"),
        (
            "merge_method: linear\nmodels: [{model: a}]\nmodules: {}\nwat: 1",
            "unknown key 'wat'; modules is not supported: theta merges whole checkpoints",
        ),
        ("merge_method: linear\nmodels: [{model: a}]\ntokenizer_source: union", "composes a model"),
        ("merge_method: linear\nmodels: [{model: a}]\ntokenizer: {source: union}", "composes a model"),
        ("merge_method: linear\nmodels: [{model: a}]\nchat_template: chatml", "knows none by name"),
        ("merge_method: linear\nmodels: [{model: a}]\nwat: 1", "unknown key 'wat'"),
        ("merge_method: mystery\nmodels: [{model: a}]", "unknown merge_method 'mystery'"),
        ("merge_method: ours\nmodels: [{model: a}]", "unknown merge_method"),
        ("models: [{model: a}]", "merge_method is missing"),
        ("merge_method: linear", "give models, or slices"),
        ("merge_method: linear\nmodels: []", "there are no models"),
        ("merge_method: linear\nmodels: [{model: a}, {model: a}]", "named twice"),
        ("merge_method: linear\nmodels: [{model: a, extra: 1}]", "unknown key 'extra'"),
        ("merge_method: linear\nmodels: [{model: a, parameters: {weight: x}}]", "weight is a number"),
        ("merge_method: linear\nmodels: [{model: a, parameters: {normalize: true}}]", "of each model"),
        (
            "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [0, 4]}]},"
            " {sources: [{model: b, layer_range: [2, 6]}]}]",
            "composes a model",
        ),
        (
            "merge_method: linear\nslices: [{sources: [{model: a, layer_range: [2, 4]}]}]",
            "composes a model",
        ),
        ("- 1", "a recipe is a mapping"),
        ("", "a recipe is a mapping"),
        ("merge_method: [", "not a YAML file"),
        ("a: 1\na: 2", "a key stands twice"),
        ("a: &x [1]\nb: *x", "aliases (*x) are not supported"),
        ("a: !!python/object/apply:os.system [true]", "not a YAML file"),
        ("a: " + "[" * 3000, "nested 20 deep at most"),
        ("[" + "1," * 30_000 + "]", "at most 20000 values"),
        ("#" * 1_100_000, "over the limit"),
        ("merge_method: linear\nmodels: [{model: a}]\nseed: -1", "a seed is"),
        ("merge_method: linear\nmodels: [{model: a}]\nallow_nan: 3", "allow_nan is true or false"),
        ("merge_method: linear\nmodels: [{model: a}]\nparameters: {weight: .nan}", "weight"),
        ("merge_method: linear\nmodels: [{model: a}]\nparameters: {weight: [[]]}", "weight: a number"),
    ],
)
def test_what_would_be_ignored_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(text).recipe()
    assert told in str(caught.value)


def test_all_refused_keys_of_all_levels_and_documents_are_told_at_once() -> None:
    text = """
name: one
merge_method: linear
models: [{model: a, parameters: {t: 1}, size: 2}, {model: b}]
wat: 1
---
merge_method: ties
base_model: a
slices:
  - sources:
      - {model: one, layer_range: [0, 2], parameters: {normalize: false}}
      - {model: b, layer_range: [0, 2]}
    parameters: {geodesic: true}
    shape: 3
---
merge_method: cabs
default_n_val: 8
models: [{model: a}]
"""
    with pytest.raises(UsageError) as caught:
        load(text)
    assert str(caught.value) == (
        "r.yaml: unknown key 'wat'; unknown key 'size' of a model; linear has no parameter 't'; "
        "unknown key 'shape' of a slice; ties has no parameter 'geodesic'; "
        "normalize is not a parameter of each model for ties; "
        "unknown key 'default_n_val'; unknown merge_method 'cabs'"
    )


PLAIN = "models: [{model: a}, {model: b}]\n"
TWO = "base_model: o\nmodels: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 2}}]\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"ties\n{TWO}parameters: {{density: 5e-1, normalize: 1}}", "ties:density=[0.5],weight=[1,2]"),
        (f"ties\n{TWO}parameters: {{rescale: yes, lambda: null}}", "ties:rescale=true,weight=[1,2]"),
        (f"della\n{TWO}parameters: {{density: []}}", "della:density=1,weight=[1,2]"),
        (f"dare-linear\n{TWO}parameters: {{normalize: 'on'}}", "dare_linear:normalize=true,weight=[1,2]"),
        (f"task_arithmetic\n{TWO}parameters: {{density: 0.5, rescale: 1}}", "task_arithmetic:weight=[1,2]"),
        (f"karcher\n{PLAIN}parameters: {{max_iter: 5, tol: '1e-3'}}", "karcher:max_iter=5,tol=0.001"),
        (
            "linear\nmodels:\n  - {model: a, parameters: {weight: [{filter: mlp, value: 2}]}}\n"
            "  - {model: b, parameters: {weight: {filter: attn, value: [1, 2]}}}\n"
            "parameters: {weight: [{filter: norm, value: 7}]}",
            "linear:variant=mergekit,weight=[{mlp:2,norm:7},{attn:[1,2],norm:7}]",
        ),
        (
            "linear\nslices: null\nbase_model: null\ndtype: null\ntokenizer: null\nmodels:\n"
            "  - {model: a, parameters: null}\n  - {model: b, parameters: {weight: true}}",
            "linear:variant=mergekit,weight=[1,1]",
        ),
        (
            "linear\nparameters: {weight: 3, normalize: false}\nmodules:\n  default:\n"
            "    parameters: {weight: 2}\n    models: [{model: a}, {model: b}]",
            "linear:normalize=false,variant=mergekit,weight=[2]",
        ),
        (
            "linear\nmodels: [{model: a}, {model: b}]\nparameters: {normalize: [true, false]}",
            "linear:normalize=[true,false],variant=mergekit",
        ),
    ],
)  # fmt: skip
def test_values_are_read_as_mergekit_reads_them(text: str, wanted: str) -> None:
    """Numbers that YAML takes for text, levels over levels, nothing at all, the only module."""
    assert str(load(f"merge_method: {text}").recipe().default) == wanted


def test_a_value_that_no_filter_gives_is_that_of_the_next_level() -> None:
    text = """
merge_method: linear
slices:
  - sources:
      - {model: a, layer_range: [0, 2], parameters: {weight: [{filter: q, value: 1}]}}
      - {model: b, layer_range: [0, 2]}
    parameters: {weight: [{filter: k, value: 2}]}
parameters: {weight: 3}
"""
    strategy = load(text).recipe().default
    assert strategy is not None
    found = [strategy.resolve(name, 0.0, 2)["weight"] for name in ("q", "k", "v")]
    assert found == [[1, 3], [2, 2], [3, 3]]
    switched = parse("linear:normalize=[true,false,true]")
    assert [switched.resolve("w", at, 2)["normalize"] for at in (0, 0.4, 0.5, 0.9, 1)] == [
        True, True, False, False, True,
    ]  # fmt: skip


def test_a_file_that_is_not_text_is_refused() -> None:
    with pytest.raises(UsageError, match="not a YAML file"):
        recipe_files.load(b"\xff\xfe\x00", "r.yaml")


@given(st.text(max_size=200))
def test_any_text_is_a_recipe_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        load(text)


def test_seeds_and_scopes() -> None:
    assert recipes.seed("9223372036854775807") == 2**63 - 1
    with pytest.raises(UsageError):
        recipes.seed("9223372036854775808")


def test_a_file_is_read_and_a_missing_one_is_named(tmp_path: Path) -> None:
    place = tmp_path / "r.yaml"
    with pytest.raises(NotFoundError, match=r"cannot read the recipe .*r\.yaml"):
        recipe_files.read(str(place))
    place.write_text("merge_method: linear\nmodels:\n  - model: main\n")
    assert recipe_files.read(str(place)).models == ("main",)


LINEAR = "merge_method: linear\nmodels:\n- model: a\n- model: b\n"


@pytest.mark.parametrize(
    "more",
    [
        "parameters: {weight: 1" + "0" * 400 + "}",
        "seed: 0x" + "f" * 5000,
        "parameters: {weight: " + "[" * 30 + "1" + "]" * 30 + "}",
        "parameters: {weight: 2001-01-01}",
    ],
    ids=["a huge number", "a huge seed", "depth", "a date"],
)
def test_a_hostile_recipe_is_refused(more: str) -> None:
    with pytest.raises(UsageError):
        recipe_files.load(f"{LINEAR}{more}\n".encode(), "r.yml")


@pytest.mark.parametrize("weight", [10**400, [[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]])
def test_a_hostile_trailer_is_refused(weight: object) -> None:
    body = {
        "merge_method": "linear",
        "models": [{"model": "a"}, {"model": "b"}],
        "parameters": {"weight": weight},
    }
    with pytest.raises(UsageError):
        recipe_files.of_bodies([body], "trailer")
