"""Sending the weights of a step to those who have the step before: theta beside the coders of weight sync.

    python bench/weightsync.py [--steps DIRECTORY]        # measures; real steps too, where they were made
    python bench/weightsync.py --train DIRECTORY          # makes them (needs torch): SFT and policy gradient
    python bench/weightsync.py --train DIRECTORY --model MODEL_DIRECTORY
                                                          # those of a sentence encoder (needs transformers)

The others are written from what their makers published, in numpy and zstandard:

TRL       the indices of changed weights (i32) and their values (also PULSE)
slime     XOR with the step before, zstd level 1 (also SkyRL); Adler-32 of the result
arc_v3    Fireworks: gaps of the indices, flat or by rows, in the smallest integers; of the values the
          mantissas, or their XOR or zigzag difference, by a code book of seven where that is small; zstd 1 or
          bz2 9, in a pickle of some names.  All are tried and the smallest is taken, where the original
          stops a race; Adler-32

Each of them sends a safetensors file, of whose header a tensor takes its name, type, shape and place.
theta saves into a repository, and applies to arrays of which it knows the version.  All that it stores counts
(trees, records, the commit), and each chunk is proven by its SHA-256.  A cell tells the stored bytes over the
raw ones, then the speeds of encoding and applying: GB of raw weights, changed or not, a second of processor
time of all threads.  The least of several runs is taken.
"""

from __future__ import annotations

import argparse
import bz2
import json
import pickle
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import zstandard

try:
    import theta
except ImportError:  # the training needs torch alone
    theta = None  # type: ignore[assignment]

Words = Any
BF16: Final = np.dtype(ml_dtypes.bfloat16)
FILE: Final = "model.safetensors"
RATES: Final = (3e-7, 1e-6, 3e-6, 1e-5)
MANTISSA: Final = np.uint16(0x7F)
REPEATS: Final = 3
ENCODER_RATES: Final = (1e-6, 3e-6, 1e-5)
EARLY: Final = 3
"""The first steps of Adam, which move by its whole rate, are not measured."""


@dataclass(frozen=True)
class Coded:
    """A step as a coder sends it: its bytes, and what brings words of the step before to it."""

    size: int
    apply: Callable[[Words], None]


# -- the others --------------------------------------------------------------------------------------


def trl(old: Words, new: Words, _shape: Sequence[int]) -> Coded:
    """Indices and values."""
    places = np.flatnonzero(old != new).astype(np.int32)
    values = new[places]

    def apply(words: Words) -> None:
        words[places] = values

    return Coded(places.nbytes + values.nbytes, apply)


def slime(old: Words, new: Words, _shape: Sequence[int]) -> Coded:
    """XOR and zstd 1."""
    blob = zstandard.ZstdCompressor(level=1).compress((old ^ new).tobytes())
    check = zlib.adler32(new)

    def apply(words: Words) -> None:
        words ^= np.frombuffer(zstandard.ZstdDecompressor().decompress(blob), words.dtype)
        if zlib.adler32(words) != check:
            raise ValueError("the result is another one")

    return Coded(len(blob), apply)


def smallest(values: Words) -> Words:
    """The values in the smallest unsigned integers that hold them all."""
    top = int(values.max()) if values.size else 0
    return values.astype(
        next(kind for kind in (np.uint8, np.uint16, np.uint32, np.uint64) if top < 256 ** kind().nbytes)
    )


def gaps(places: Words) -> Words:
    """The differences of indices that follow each other, the first one as it is."""
    return smallest(np.diff(places, prepend=0))


def by_rows(places: Words, width: int, rows: int) -> bytes:
    """The number of changed weights of each row, then the gaps of each row with their size."""
    counts = np.bincount(places // width, minlength=rows)
    found = smallest(counts)
    parts = [bytes([found.itemsize]), found.tobytes()]
    for columns in np.split(places % width, np.cumsum(counts)[:-1]):
        if columns.size:
            found = gaps(columns)
            parts += [bytes([found.itemsize]), found.tobytes()]
    return b"".join(parts)


def of_rows(data: bytes, width: int, rows: int) -> Words:
    """The indices that :func:`by_rows` wrote."""
    counts = np.frombuffer(data, f"<u{data[0]}", rows, 1)
    at, found = 1 + counts.nbytes, []
    for row in np.flatnonzero(counts).tolist():
        columns = np.frombuffer(data, f"<u{data[at]}", counts[row], at + 1)
        found.append(columns.astype(np.int64).cumsum() + row * width)
        at += 1 + columns.nbytes
    return np.concatenate(found)


def code_book(values: Words) -> bytes:
    """Three bits a value: one of the seven most frequent, or an exception behind them."""
    book = np.argsort(np.bincount(values, minlength=256))[-7:][::-1].astype(np.uint8)
    codes = np.full(256, 7, np.uint8)
    codes[book] = np.arange(7, dtype=np.uint8)
    found = codes[values]
    bits = (found[:, None] >> np.arange(3, dtype=np.uint8)) & 1
    odd = np.flatnonzero(found == 7)
    return (
        book.tobytes()
        + np.packbits(bits.reshape(-1), bitorder="little").tobytes()
        + gaps(odd).tobytes()
        + values[odd].tobytes()
    )


def mantissas(old: Words, new: Words) -> tuple[str, Words]:
    """The mantissas by the transform that zstd 1 takes for the smallest."""
    before, after = old & MANTISSA, new & MANTISSA
    signed = after.astype(np.int32) - before
    tried = {"raw": after, "xor": before ^ after, "zigzag": (signed << 1) ^ (signed >> 31)}
    press = zstandard.ZstdCompressor(level=1).compress
    same = (old & ~MANTISSA) == (new & ~MANTISSA)
    found = {name: np.where(same, values, 0).astype(np.uint8) for name, values in tried.items()}
    return min(found.items(), key=lambda item: len(press(item[1].tobytes())))


def arc_v3(old: Words, new: Words, shape: Sequence[int]) -> Coded:
    """The smallest of flat or row-wise gaps, by zstd 1 or bz2 9."""
    places = np.flatnonzero(old != new)
    before, after = old[places], new[places]
    transform, values = mantissas(before, after)
    odd = np.flatnonzero((before & ~MANTISSA) != (after & ~MANTISSA))
    exceptions = gaps(odd).tobytes() + after[odd].tobytes()
    booked = code_book(values) if values.size else b""
    stream = booked if values.size and len(booked) * 3 < values.nbytes else values.tobytes()
    width, rows = (int(np.prod(shape[1:])), shape[0]) if len(shape) > 1 else (int(np.prod(shape)), 1)
    kinds = {"flat": gaps(places).tobytes(), "row": by_rows(places, width, rows)}
    told = {
        "version": 1,
        "strategy": "mantissa_xor",
        "shape": tuple(shape),
        "dtype": "torch.bfloat16",
        "checksum": str(zlib.adler32(new)),
        "mantissa_bits": 7,
        "total_bits": 16,
        "transform": transform,
        "mantissa_dtype": "uint8",
        "mantissa_stream": {"kind": "raw", "dtype": "uint8", "data": b""},
        "exception_positions": {"count": 0, "dtype": "uint8", "data": b""},
        "exception_dtype": "uint16",
        "exception_values": b"",
        "uint_dtype": "uint16",
        "indices": {"kind": "row", "n_rows": rows},
    }
    head = pickle.dumps(told, protocol=pickle.HIGHEST_PROTOCOL)
    packed = [
        (kind, name, press(indices + stream + exceptions + head))
        for kind, indices in kinds.items()
        for name, press in (("zstd", zstandard.ZstdCompressor(level=1).compress), ("bz2", bz2.compress))
    ]
    kind, name, blob = min(packed, key=lambda one: len(one[2]))
    check, size, item = zlib.adler32(new), len(kinds[kind]), gaps(places).dtype

    def apply(words: Words) -> None:
        raw = zstandard.ZstdDecompressor().decompress(blob) if name == "zstd" else bz2.decompress(blob)
        where = (
            np.frombuffer(raw[:size], item).cumsum(dtype=np.int64)
            if kind == "flat"
            else of_rows(raw[:size], width, rows)
        )
        coded = values if stream is booked else np.frombuffer(raw, np.uint8, values.size, size)
        there = words[where]
        if transform == "raw":
            made = coded.astype(np.uint16)
        elif transform == "xor":
            made = (there & MANTISSA) ^ coded
        else:
            signed = (coded >> 1).astype(np.int32) ^ -(coded & 1).astype(np.int32)
            made = ((there & MANTISSA) + signed).astype(np.uint16)
        there = (there & ~MANTISSA) | made
        there[odd] = after[odd]
        words[where] = there
        if zlib.adler32(words) != check:
            raise ValueError("the result is another one")

    return Coded(len(blob), apply)


OTHERS: Final = {"TRL": trl, "slime": slime, "arc_v3": arc_v3}

# -- measuring ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """Stored bytes over raw bytes, and the speeds of encoding and applying in GB/s of processor time."""

    stored: float
    encode: float
    apply: float


State = dict[str, Any]


def timed(work: Callable[..., Any], *args: Any, **named: Any) -> tuple[float, Any]:
    """Processor seconds that ``work`` takes, of all threads, and its result."""
    began = time.process_time()
    found = work(*args, **named)
    return time.process_time() - began, found


def of_other(name: str, steps: Sequence[State]) -> Figures:
    """A coder on each step after the first, from the one before; checked bit for bit."""
    stored = encode = apply = raw = 0.0
    for old, new in pairwise(steps):
        for key, after in new.items():
            raw += after.nbytes
            words, wanted = old[key].reshape(-1).view(np.uint16), after.reshape(-1).view(np.uint16)
            if not np.array_equal(words, wanted):
                size, slow, quick = _tried(name, words, wanted, after.shape)
                size += header(key, after.shape)
                stored, encode, apply = stored + size, encode + slow, apply + quick
    return Figures(stored / raw, raw / encode / 1e9, raw / apply / 1e9)


def header(name: str, shape: Sequence[int]) -> int:
    """Bytes that tell of a tensor in the header of a safetensors file, in which all of them send."""
    entry = {"dtype": "BF16", "shape": list(shape), "data_offsets": [1_000_000, 2_000_000]}
    return len(json.dumps({name: entry}, separators=(",", ":")))


def _tried(name: str, words: Words, wanted: Words, shape: Sequence[int]) -> tuple[int, float, float]:
    """Bytes, and the least seconds of encoding and of applying."""
    slow, quick, size = [], [], 0
    for _ in range(REPEATS):
        took, coded = timed(OTHERS[name], words, wanted, shape)
        there = words.copy()
        slow.append(took)
        quick.append(timed(coded.apply, there)[0])
        size = coded.size
        assert np.array_equal(there, wanted), name
    return size, min(slow), min(quick)


def of_theta(steps: Sequence[State]) -> Figures:
    """Save and apply of each step, from the one before it."""
    raw = sum(value.nbytes for value in steps[0].values()) * (len(steps) - 1)
    found: list[tuple[int, float, float]] = []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
            subprocess.run(["git", "init", "-q", place], check=True)
            with theta.open(place) as repo:
                found.append(_saved_and_applied(repo, steps))
    encode, apply = (min(column) for column in list(zip(*found, strict=True))[1:])
    return Figures(found[0][0] / raw, raw / encode / 1e9, raw / apply / 1e9)


def _saved_and_applied(repo: theta.Repository, steps: Sequence[State]) -> tuple[int, float, float]:
    """Bytes that the steps after the first take, and the seconds of saving and of applying them."""
    there = {name: value.copy() for name, value in steps[0].items()}
    before = repo.save({FILE: steps[0]}, ref="steps").result().commit
    stored, encode, apply = -packs(repo.path), 0.0, 0.0
    for step in steps[1:]:
        took, saved = timed(_save, repo, step)
        quick, _ = timed(repo.apply, saved, {FILE: there}, since=before)
        encode, apply, before = encode + took, apply + quick, saved
        assert all(np.array_equal(there[k].view(np.uint16), v.view(np.uint16)) for k, v in step.items())
    return stored + packs(repo.path), encode, apply


def _save(repo: theta.Repository, step: State) -> str:
    return repo.save({FILE: step}, ref="steps").result().commit


def packs(place: Path) -> int:
    """Bytes of all objects of a repository."""
    return sum(
        file.stat().st_size for file in (place / ".git" / "objects").rglob("*") if file.suffix != ".idx"
    )


# -- steps ------------------------------------------------------------------------------------------------


def synthetic(rate: float, steps: int, matrices: int = 4, side: int = 2048) -> list[State]:
    """Matrices whose f32 masters move by ``rate`` times normal noise at each step."""
    generator = np.random.default_rng(0)
    masters = [generator.standard_normal((side, side)).astype(np.float32) * 0.02 for _ in range(matrices)]
    found = []
    for _ in range(steps + 1):
        found.append({f"layers.{n}.weight": master.astype(BF16) for n, master in enumerate(masters)})
        for master in masters:
            master += generator.standard_normal(master.shape).astype(np.float32) * np.float32(rate)
    return found


def real(place: Path) -> Iterator[tuple[str, list[State]]]:
    """The runs that :func:`train` made."""
    for run in sorted(place.iterdir()):
        rows = json.loads((run / "shapes.json").read_text())
        steps = []
        for file in sorted(run.glob("*.bin")):
            raw, at, state = np.fromfile(file, np.uint16), 0, {}
            for name, shape in rows.items():
                size = int(np.prod(shape))
                state[name] = raw[at : at + size].view(BF16).reshape(shape)
                at += size
            steps.append(state)
        yield run.name, steps


def changed(steps: Sequence[State]) -> float:
    """The share of weights that a step changes."""
    pairs = [(old[name], new[name]) for old, new in pairwise(steps) for name in old]
    return sum(int((a.view(np.uint16) != b.view(np.uint16)).sum()) for a, b in pairs) / sum(
        a.size for a, _ in pairs
    )


def train(place: Path) -> None:
    """Train a small language model on source text, then fine-tune it; write its bf16 weights step by step."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(2)
    text = b"\n".join(path.read_bytes() for path in sorted(Path(__file__).parents[1].rglob("theta/**/*.py")))
    data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    model = small_model(torch)
    loop(torch, model, data, rate=1e-3, steps=80, kind="sft")
    for kind in ("sft", "policy"):
        for rate in (1e-6, 3e-6, 1e-5):
            copy = small_model(torch)
            copy.load_state_dict(model.state_dict())
            states = loop(torch, copy, data, rate=rate, steps=8, kind=kind)
            written(
                torch, place / f"{kind} {rate:g}", states[1:]
            )  # the first step of Adam moves by its whole rate


def train_encoder(place: Path, model_directory: Path) -> None:
    """Fine-tune a sentence encoder as ``bench/finetunes.py`` does; write its bf16 weights step by step."""
    import torch
    from finetunes import batches
    from finetunes import train as tuned
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_directory)
    for rate in ENCODER_RATES:
        torch.manual_seed(0)
        model = AutoModel.from_pretrained(model_directory, dtype=torch.float32)
        optimizer, text = torch.optim.AdamW(model.parameters(), lr=rate), batches(tokenizer, 0)
        tuned(model, optimizer, text, EARLY)
        states = []
        for _ in range(4):
            tuned(model, optimizer, text, 1)
            states.append(in_bf16(torch, model.named_parameters()))
        written(torch, place / f"encoder sft {rate:g}", states)


def in_bf16(torch: Any, named: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Copy the weights, rounded to bf16."""
    return {name: value.detach().to(torch.bfloat16).clone() for name, value in named}


def written(torch: Any, run: Path, states: Sequence[Mapping[str, Any]]) -> None:
    """Write the steps of a run as :func:`real` reads them."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "shapes.json").write_text(json.dumps({k: list(v.shape) for k, v in states[0].items()}))
    for number, state in enumerate(states):
        words = [value.view(torch.int16).numpy().reshape(-1) for value in state.values()]
        np.concatenate(words).tofile(run / f"{number:02d}.bin")


def small_model(torch: Any) -> Any:
    """A decoder of bytes with 3.3 million weights."""
    layer = torch.nn.TransformerEncoderLayer(256, 4, 1024, 0.0, "gelu", batch_first=True, norm_first=True)
    parts = {
        "embed": torch.nn.Embedding(256, 256),
        "blocks": torch.nn.TransformerEncoder(layer, 4, enable_nested_tensor=False),
        "head": torch.nn.Linear(256, 256, bias=False),
    }
    return torch.nn.ModuleDict(parts)


def loop(torch: Any, model: Any, data: Any, *, rate: float, steps: int, kind: str) -> list[Mapping[str, Any]]:
    """Train in f32 by AdamW; return the weights in bf16 after each of the last seven steps.

    ``sft`` learns the next byte.  ``policy`` samples bytes and is rewarded for letters (REINFORCE with a
    baseline).
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(64)
    states = []
    for _ in range(steps):
        starts = torch.randint(0, len(data) - 65, (16,))
        batch = torch.stack([data[start : start + 65] for start in starts.tolist()])
        hidden = model["blocks"](model["embed"](batch[:, :-1]), mask=mask, is_causal=True)
        logits = torch.log_softmax(model["head"](hidden), -1)
        if kind == "sft":
            loss = -logits.gather(-1, batch[:, 1:, None]).mean()
        else:
            drawn = torch.distributions.Categorical(logits=logits).sample()
            reward = ((drawn >= 97) & (drawn < 123)).float()
            loss = -(logits.gather(-1, drawn[..., None])[..., 0] * (reward - reward.mean())).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        states = [*states[-6:], in_bf16(torch, model.state_dict().items())]
    return states


def measured(place: Path | None) -> Iterator[tuple[str, list[State]]]:
    """Yield the steps of each row of the table: synthetic ones, and those in ``place``."""
    for rate in RATES:
        yield f"synthetic {rate:g}, one step", synthetic(rate, 1)
    for rate in RATES:
        yield f"synthetic {rate:g}, six steps", synthetic(rate, 6, 2)
    for name, steps in real(place) if place else ():
        yield f"{name}, {len(steps) - 1} steps", steps
        yield f"{name}, one step", steps[:2]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, metavar="DIRECTORY")
    parser.add_argument("--model", type=Path, metavar="MODEL_DIRECTORY")
    parser.add_argument("--steps", type=Path, metavar="DIRECTORY")
    given = parser.parse_args()
    if given.train and given.model:
        train_encoder(given.train, given.model)
        return
    if given.train:
        train(given.train)
        return
    of_theta(synthetic(1e-6, 1, 1))  # kernels are compiled
    print("| | changed | " + " | ".join([*OTHERS, "theta"]) + " |")
    print("|---|---|" + "---|" * (len(OTHERS) + 1))
    for label, steps in measured(given.steps):
        found = [*(of_other(name, steps) for name in OTHERS), of_theta(steps)]
        cells = [f"{one.stored:.4f} {one.encode:.2f} {one.apply:.2f}" for one in found]
        print(f"| {label} | {changed(steps):.1%} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
