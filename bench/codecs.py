"""Ratio and speed of theta's codecs beside other coders, on the same arrays.

    python bench/codecs.py MODEL.safetensors [--pairs DIRECTORY]

First part: one tensor alone (dense), beside zstd, and beside openzl, pcodec, blosc2, zipnn and
hf_xet where they are installed.  Second part: the pairs that bench/finetunes.py made, beside
TensorX (XOR, byte planes, zstd 1) and BitX (the same, zstd 3).  Speeds are MB/s of raw bytes by CPU
time of all threads; on a shared machine they are indications.  (hf_xet: encoding only.)
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import zstandard

from theta.codecs import codec, dense
from theta.codecs.base import Range, Target, TensorWords, word_size
from theta.codecs.chooser import choose
from theta_native.byte_planes import split

NUMPY = {"f32": np.dtype("<f4"), "bf16": np.dtype(ml_dtypes.bfloat16), "f16": np.dtype("<f2")}
CHUNK = 4 << 20
PAIRS = (
    ("base", "full", "bf16"),
    ("full", "full-more", "bf16"),
    ("base", "full", "f16"),
    ("base", "full", "f32"),
    ("base", "last", "bf16"),
    ("base", "lora-bf16", "bf16"),
    ("base", "lora-f32", "f32"),
)

Coder = Callable[[bytes, str], tuple[int, Callable[[], object]]]
"""Takes raw bytes and a dtype; gives the coded size, and how to decode."""


def load(path: Path) -> dict[str, np.ndarray]:
    """The float tensors of a safetensors file."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header: dict[str, Any] = json.loads(raw[8 : 8 + size])
    kinds = {"F32": NUMPY["f32"], "BF16": NUMPY["bf16"], "F16": NUMPY["f16"]}
    found = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] in kinds:
            start, stop = (8 + size + offset for offset in entry["data_offsets"])
            found[name] = np.frombuffer(raw[start:stop], kinds[entry["dtype"]]).reshape(entry["shape"])
    return found


def chunks(tensor: TensorWords) -> list[Range]:
    """The chunks of a tensor, whole rows where a row fits."""
    target, step = Target(tensor.dtype, tensor.shape), CHUNK // word_size(tensor.dtype)
    if 0 < target.row_words <= step:
        step = step // target.row_words * target.row_words
    return [(k, min(k + step, target.words)) for k in range(0, target.words, step)]


def with_theta(raw: bytes, dtype: str) -> tuple[int, Callable[[], object]]:
    """dense/1 in chunks of 4 MiB."""
    parts = [raw[k : k + CHUNK] for k in range(0, len(raw), CHUNK)]
    blobs = [dense.encode(part, dtype) for part in parts]
    sizes = [len(part) for part in parts]
    pairs = list(zip(blobs, sizes, strict=True))
    return sum(map(len, blobs)), lambda: [dense.decode(blob, dtype, size) for blob, size in pairs]


def with_zstd(level: int) -> Coder:
    """Plain zstd over the raw bytes."""

    def code(raw: bytes, _dtype: str) -> tuple[int, Callable[[], object]]:
        blob = zstandard.ZstdCompressor(level=level).compress(raw)
        return len(blob), lambda: zstandard.ZstdDecompressor().decompress(blob)

    return code


def _openzl() -> Coder:
    import openzl.ext as zl

    def code(raw: bytes, dtype: str) -> tuple[int, Callable[[], object]]:
        compressor = zl.Compressor()
        node = {"bf16": zl.nodes.BFloat16Deconstruct, "f32": zl.nodes.Float32Deconstruct}[dtype]()
        parts = {"sign_frac": zl.graphs.Store(), "exponent": zl.graphs.Huffman()}
        compressor.select_starting_graph(node(compressor, **parts))
        context = zl.CCtx()
        context.ref_compressor(compressor)
        context.set_parameter(zl.CParam.FormatVersion, zl.MAX_FORMAT_VERSION)
        words = np.frombuffer(raw, f"<u{word_size(dtype)}")
        blob = context.compress([zl.Input(zl.Type.Numeric, words)])
        return len(blob), lambda: zl.DCtx().decompress(blob)

    return code


def _pcodec() -> Coder:
    from pcodec import ChunkConfig, DeltaSpec, ModeSpec, standalone

    config = ChunkConfig(compression_level=8, mode_spec=ModeSpec.classic(), delta_spec=DeltaSpec.no_op())

    def code(raw: bytes, dtype: str) -> tuple[int, Callable[[], object]]:
        blob = standalone.simple_compress(np.frombuffer(raw, f"<u{word_size(dtype)}"), config)
        return len(blob), lambda: standalone.simple_decompress(blob)

    return code


def _blosc2() -> Coder:
    import blosc2

    def code(raw: bytes, dtype: str) -> tuple[int, Callable[[], object]]:
        options = {"codec": blosc2.Codec.ZSTD, "clevel": 1, "typesize": word_size(dtype), "nthreads": 1}
        filters = [blosc2.Filter.NOFILTER] * 5 + [blosc2.Filter.SHUFFLE]
        blob = blosc2.compress2(raw, filters=filters, filters_meta=[0] * 6, **options)
        return len(blob), lambda: blosc2.decompress2(blob)

    return code


def _zipnn() -> Coder:
    import zipnn

    def code(raw: bytes, dtype: str) -> tuple[int, Callable[[], object]]:
        name = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}[dtype]
        coder = zipnn.ZipNN(input_format="byte", bytearray_dtype=name, threads=1)
        blob = coder.compress(bytearray(raw))  # a copy: zipnn changes its input in place
        return len(blob), lambda: coder.decompress(blob)

    return code


def _hf_xet() -> Coder:
    import tempfile

    import hf_xet

    def code(raw: bytes, _dtype: str) -> tuple[int, Callable[[], object]]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "data"
            path.write_bytes(raw)
            commit = hf_xet.XetSession().new_upload_commit(endpoint=f"local://{folder}/cas")
            commit.start_upload_file(str(path), sha256=hf_xet.SKIP_SHA256)
            return commit.wait_to_finish().dedup_metrics.xorb_bytes_uploaded, lambda: None

    return code


def coders() -> Iterator[tuple[str, Coder]]:
    """Every coder that can be had here."""
    yield "theta dense/1", with_theta
    yield "zstd 1", with_zstd(1)
    yield "zstd 3", with_zstd(3)
    for make in (_openzl, _pcodec, _blosc2, _zipnn, _hf_xet):
        try:
            yield make.__name__[1:], make()
        except ImportError:
            print(f"  {make.__name__[1:]:24} not installed")


@dataclass
class Score:
    """Raw bytes, stored bytes and seconds, added up over tensors."""

    raw: int = 0
    stored: int = 0
    encoding: float = 0.0
    decoding: float = 0.0

    def line(self, name: str) -> str:
        """One row of the report."""
        speeds = [self.raw / 1e6 / max(t, 1e-9) for t in (self.encoding, self.decoding)]
        return f"  {name:24} ratio {self.stored / self.raw:.4f}   {speeds[0]:7.0f} / {speeds[1]:7.0f} MB/s"


def bench_dense(weights: np.ndarray, dtype: str) -> None:
    """Every coder on one array."""
    raw = weights.astype(NUMPY[dtype]).tobytes()
    print(f"dense {dtype}, {len(raw) / 1e6:.0f} MB (encode / decode)")
    for name, code in coders():
        try:
            code(raw[: 1 << 20], dtype)
            begin = time.process_time()
            size, decode = code(raw, dtype)
            middle = time.process_time()
            decode()
            print(Score(len(raw), size, middle - begin, time.process_time() - middle).line(name))
        except (KeyError, RuntimeError, ValueError) as error:
            print(f"  {name:24} {type(error).__name__}: {error}")


def xor_planes(new: TensorWords, base: TensorWords, level: int) -> int:
    """The size of XOR, byte planes and zstd, each plane a frame."""
    compressor = zstandard.ZstdCompressor(level=level)
    return sum(len(compressor.compress(plane.data)) for plane in split(new.words ^ base.words, False))


def tensors(path: Path, dtype: str) -> dict[str, TensorWords]:
    """The tensors of a file, cast to ``dtype``."""
    return {
        name: TensorWords.from_bytes(array.astype(NUMPY[dtype]).tobytes(), dtype, array.shape)
        for name, array in load(path).items()
    }


def bench_pair(folder: Path, before: str, after: str, dtype: str) -> None:
    """The chooser beside XOR coders on every tensor of a pair that changed."""
    bases, news = (tensors(folder / f"{name}.safetensors", dtype) for name in (before, after))
    ours, tensorx, bitx = Score(), Score(), Score()
    used: dict[str, int] = {}
    for name, new in news.items():
        base = bases[name]
        if np.array_equal(new.words, base.words):
            continue
        begin = time.process_time()
        choice = choose(new, [base], chunks(new))
        middle = time.process_time()
        if choice.base is not None:
            layer = codec(choice.encoded.codec).decoder(choice.encoded.shared, Target(dtype, new.shape), base)
            for payload, (start, stop) in zip(choice.encoded.chunks, chunks(new), strict=True):
                assert np.array_equal(layer.decode(payload, start, stop), new.words[start:stop])
        ours.encoding += middle - begin
        ours.decoding += time.process_time() - middle
        used[choice.encoded.codec] = used.get(choice.encoded.codec, 0) + 1
        sizes = choice.encoded.size, xor_planes(new, base, 1), xor_planes(new, base, 3)
        for score, size in zip((ours, tensorx, bitx), sizes, strict=True):
            score.raw += new.words.nbytes
            score.stored += size
    print(f"{before} -> {after}, {dtype}, {ours.raw / 1e6:.0f} MB of changed tensors; {used}")
    print(ours.line("theta"))
    print(f"  {'TensorX':24} ratio {tensorx.stored / tensorx.raw:.4f}")
    print(f"  {'BitX':24} ratio {bitx.stored / bitx.raw:.4f}")


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description="Ratio and speed of codecs.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--pairs", type=Path)
    options = parser.parse_args()
    weights = np.concatenate([array.ravel() for array in load(options.model).values()])
    for dtype in NUMPY:
        bench_dense(weights, dtype)
    if options.pairs:
        for pair in PAIRS:
            bench_pair(options.pairs, *pair)


if __name__ == "__main__":
    main()
