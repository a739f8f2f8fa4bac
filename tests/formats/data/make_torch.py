"""Writes the torch files beside it: each checkpoint twice, the second time with other values.

Run by hand with torch 2.13 (``python make_torch.py``); the tests need no torch.
"""

import io
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch  # type: ignore[import-not-found, unused-ignore]
import torch.distributed.checkpoint  # type: ignore[import-not-found, unused-ignore]

HERE = Path(__file__).parent


def values(seed: int) -> dict[str, Any]:
    """Every dtype, and every way in which a tensor can lie in a storage."""
    torch.manual_seed(seed)
    base = torch.randn(2, 3)
    kinds = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    kinds += ["uint16", "uint32", "uint64", "complex64", "complex128"]
    kinds += [f"float8_{kind}" for kind in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz", "e8m0fnu")]
    tensors = {f"kinds.{kind}": torch.randint(0, 2, (2, 3)).to(getattr(torch, kind)) for kind in kinds}
    return tensors | {
        "base": base,
        "tied": base,
        "transposed": base.t(),
        "alone.transposed": torch.randn(2, 3).t(),
        "slice": (torch.arange(10) * seed)[2:5],
        "expanded": torch.full((1,), float(seed)).expand(5),
        "scalar": torch.tensor(float(seed)),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(4)),
        "sparse": (torch.eye(3) * seed).to_sparse(),
    }


def checkpoint(seed: int) -> dict[str, Any]:
    """A model, its optimizer and some plain Python."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 2)).pow(2).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "args": {"lr": 1e-3, "tags": ["a", None, True]},
    }


def module(seed: int) -> Any:
    """A whole module, as users pickle them."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))


def script(seed: int) -> bytes:
    """A TorchScript archive."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module(seed)), buffer)
    return buffer.getvalue()


def saved(value: object, **options: Any) -> bytes:
    """Return the bytes that ``torch.save`` writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def distributed(seed: int) -> bytes:
    """A file of a distributed checkpoint."""
    torch.manual_seed(seed)
    state = {"model": torch.nn.Linear(4, 3).state_dict(), "step": 5, "t": torch.arange(5) * seed}
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.checkpoint.save(state, checkpoint_id=folder, no_dist=True)
        return (Path(folder) / "__0_0.distcp").read_bytes()


def main() -> None:
    """Write all files."""
    warnings.simplefilter("ignore")
    legacy = {"_use_new_zipfile_serialization": False}
    for seed in (1, 2):
        files = {
            "values": saved(values(seed)),
            "checkpoint": saved(checkpoint(seed)),
            "module": saved(module(seed)),
            "script": script(seed),
            "legacy": saved({k: v for k, v in values(seed).items() if k != "sparse"}, **legacy),
            "tensor": saved(torch.full((2, 2), float(seed))),
            "distributed": distributed(seed),
            "protocol5": saved(checkpoint(seed), pickle_protocol=5),
        }
        torch.serialization.set_crc32_options(False)
        files["nocrc"] = saved(checkpoint(seed))
        torch.serialization.set_crc32_options(True)
        for name, data in files.items():
            (HERE / f"{name}.{seed}.pt").write_bytes(data)
    sys.stdout.write(f"written with torch {torch.__version__}\n")


if __name__ == "__main__":
    main()
