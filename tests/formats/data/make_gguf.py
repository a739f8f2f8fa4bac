"""Writes the GGUF files beside it with the ``gguf`` package (0.19): twice, with other values.

Run by hand (``python make_gguf.py``); the tests need no ``gguf``.
"""

from pathlib import Path

import gguf  # type: ignore[import-not-found, unused-ignore]
import numpy as np

HERE = Path(__file__).parent


def main() -> None:
    """Write both files."""
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        writer = gguf.GGUFWriter(HERE / f"model.{seed}.gguf", "llama")
        writer.add_block_count(2)
        writer.add_custom_alignment(64)
        writer.add_array("tokenizer.ggml.tokens", [f"token{number}" for number in range(20)])
        writer.add_array("tokenizer.ggml.scores", [float(number) for number in range(20)])
        writer.add_bool("a.flag", True)
        writer.add_float64("a.double", 0.5)
        writer.add_tensor("f32", rng.standard_normal((3, 5), np.float32))
        writer.add_tensor("f16", rng.standard_normal((2, 3, 4), np.float32).astype(np.float16))
        writer.add_tensor("f64", rng.standard_normal(7))
        for name in ("int8", "int16", "int32", "int64"):
            writer.add_tensor(name, rng.integers(-9, 9, (2, 2)).astype(name))
        values = rng.standard_normal((4, 256), np.float32)
        for kind in ("BF16", "Q4_0", "Q8_0", "Q5_1", "TQ1_0"):
            quantised = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(kind, gguf.quants.quantize(values, quantised), raw_dtype=quantised)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


if __name__ == "__main__":
    main()
