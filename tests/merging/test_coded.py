"""Codes and scales are recognised by their neighbours' names and dtypes."""

from __future__ import annotations

import pytest

from theta.merging.coded import groups

CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "fp8 in blocks (DeepSeek)": ({"l.q.weight": "f8_e4m3"}, {"l.q.weight_scale_inv": "f32"}),
    "fp8 (compressed-tensors)": (
        {"l.q.weight": "f8_e4m3"},
        {"l.q.weight_scale": "bf16", "l.q.input_scale": "bf16"},
    ),
    "fp8 of diffusion models": ({"b.q.weight": "f8_e4m3"}, {"b.q.scale_weight": "f32"}),
    "fp8 experts": ({"l.experts.down_proj": "f8_e4m3"}, {"l.experts.down_proj_scale_inv": "f32"}),
    "nvfp4": (
        {"l.q.weight": "u8"},
        {"l.q.weight_scale": "f8_e4m3", "l.q.weight_scale_2": "f32", "l.q.input_scale": "f32"},
    ),
    "packed (compressed-tensors)": (
        {"l.q.weight_packed": "i32"},
        {"l.q.weight_scale": "bf16", "l.q.weight_shape": "i64", "l.q.weight_zero_point": "i32"},
    ),
    "int8 (compressed-tensors)": ({"l.q.weight": "i8"}, {"l.q.weight_scale": "bf16"}),
    "int8 (bitsandbytes)": ({"l.q.weight": "i8"}, {"l.q.SCB": "f32", "l.q.weight_format": "u8"}),
    "nf4 (bitsandbytes)": (
        {"l.q.weight": "u8"},
        {
            "l.q.weight.absmax": "u8",
            "l.q.weight.nested_absmax": "f32",
            "l.q.weight.nested_quant_map": "f32",
            "l.q.weight.quant_map": "f32",
            "l.q.weight.quant_state.bitsandbytes__nf4": "u8",
        },
    ),
    "gptq": (
        {"l.q.qweight": "i32"},
        {"l.q.qzeros": "i32", "l.q.scales": "f16", "l.q.g_idx": "i32"},
    ),
    "awq": ({"l.q.qweight": "i32"}, {"l.q.qzeros": "i32", "l.q.scales": "f16"}),
    "mlx": ({"l.q.weight": "u32"}, {"l.q.scales": "bf16", "l.q.biases": "bf16"}),
    "mxfp4": (
        {"l.experts.gate_up_proj_blocks": "u8"},
        {"l.experts.gate_up_proj_scales": "u8"},
    ),
    "hqq": ({"l.q.W_q": "u8"}, {"l.q.scale": "f16", "l.q.zero": "f16"}),
    "quanto": ({"l.q.weight._data": "i8"}, {"l.q.weight._scale": "bf16"}),
    "aqlm": ({"l.q.codes": "i8"}, {"l.q.codebooks": "f16", "l.q.scales": "f16"}),
    "an optimizer in 8 bits": ({"state.3.state1": "u8"}, {"state.3.absmax1": "f32", "state.3.qmap1": "f32"}),
}
PLAIN = {
    "l.norm.weight": "f32",
    "l.q.bias": "bf16",
    "l.norm.scale": "f32",
    "l.up.weight": "bf16",
    "position_ids": "i64",
    "l.bn.num_batches_tracked": "i64",
    "lm_head.weight": "bf16",
}


@pytest.mark.parametrize("case", CASES)
def test_a4_codes_are_found_by_their_neighbours(case: str) -> None:
    codes, scales = CASES[case]
    found = groups((codes | scales | PLAIN).items())
    assert sorted(found) == sorted(codes | scales)
    (group,) = set(found.values())
    assert group.codes == tuple(sorted(codes))
    assert group.scales == tuple(sorted(scales))
    for name in codes:
        assert f"scales are in {min(scales)}" in group.reason(name)
    for name in scales:
        assert f"scales the codes in {min(codes)}" in group.reason(name)


def test_a4_plain_values_are_no_codes() -> None:
    assert groups(PLAIN.items()) == {}
    assert groups((PLAIN | {"l.q.weight": "f8_e4m3"}).items()) == {}  # a cast without a scale
    assert groups({"a.weight": "f16", "a.scale": "f32", "a.weight_scale": "f32"}.items()) == {}


def test_a4_a_part_in_another_shard_is_found_by_its_likes() -> None:
    """Shards are cut anywhere: the scale of the last weight may be in the next file."""
    whole = {"l.0.q.weight": "f8_e4m3", "l.0.q.weight_scale_inv": "f32"}
    found = groups((whole | PLAIN | {"l.1.q.weight": "f8_e4m3", "l.9.q.weight_scale_inv": "f32"}).items())
    assert sorted(found) == [
        "l.0.q.weight",
        "l.0.q.weight_scale_inv",
        "l.1.q.weight",
        "l.9.q.weight_scale_inv",
    ]
    assert "another file" in found["l.1.q.weight"].reason("l.1.q.weight")
    assert "another file" in found["l.9.q.weight_scale_inv"].reason("l.9.q.weight_scale_inv")


def test_a4_a_group_is_found_whatever_a_side_says_of_its_dtype() -> None:
    both = [("q.weight", "bf16"), ("q.weight", "f8_e4m3"), ("q.weight_scale", "f32")]
    assert sorted(groups(both)) == ["q.weight", "q.weight_scale"]
