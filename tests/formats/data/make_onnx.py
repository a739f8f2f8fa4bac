"""Writes the ONNX files beside it with the ``onnx`` package (1.23): twice, with other values.

Run by hand (``python make_onnx.py``); the tests need no ``onnx``.
"""

from pathlib import Path

import numpy as np
import onnx  # type: ignore[import-not-found, import-untyped, unused-ignore]
from onnx import helper, numpy_helper  # type: ignore[import-not-found, import-untyped, unused-ignore]

HERE = Path(__file__).parent


def main() -> None:
    """Write both files."""
    kinds = ["f4", "f8", "f2", "u1", "i1", "u2", "i2", "i4", "i8", "u4", "u8", "?", "c8"]
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        tensors = [
            numpy_helper.from_array(rng.integers(0, 2, (2, 3)).astype(kind), f"raw.{kind}") for kind in kinds
        ]
        tensors.append(helper.make_tensor("floats", onnx.TensorProto.FLOAT, [4], rng.standard_normal(4)))
        tensors.append(helper.make_tensor("doubles", onnx.TensorProto.DOUBLE, [4], rng.standard_normal(4)))
        tensors.append(helper.make_tensor("varints", onnx.TensorProto.INT32, [2], [5, 6]))
        tensors.append(
            helper.make_tensor("bf16", onnx.TensorProto.BFLOAT16, [2], bytes([seed] * 4), raw=True)
        )
        tensors.append(numpy_helper.from_array(np.float32(seed), "scalar"))
        tensors.append(numpy_helper.from_array(rng.standard_normal(3), ""))
        constant = numpy_helper.from_array(rng.standard_normal(3))
        nodes = [
            helper.make_node("Constant", [], ["c"], value=constant),
            helper.make_node("MatMul", ["x", "raw.f4"], ["y"]),
        ]
        ends = [helper.make_tensor_value_info(name, 1, [1, 2]) for name in ("x", "y")]
        model = helper.make_model(helper.make_graph(nodes, "graph", ends[:1], ends[1:], tensors))
        (HERE / f"model.{seed}.onnx").write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
