"""Writes ``story/``: for each format a checkpoint, and the same after its library changed one tensor of it.

Run by hand with whatever libraries are there (``python make_story.py``); others' files are left as they
are, the tests need none of them.  ``big`` has 16 kB and stays as it is, ``small`` changes.
"""

import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent / "story"
BIG = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)
SMALL = np.arange(16, dtype=np.float32)


def torch_zip(old: Path | None, new: Path) -> str:
    """``torch.save`` of a model and its optimizer."""
    import torch  # type: ignore[import-not-found, unused-ignore]

    state = {"model": {"big": torch.tensor(BIG), "small": torch.tensor(SMALL)}, "step": 7}
    if old:
        state = torch.load(old, weights_only=True)
        state["model"]["small"] *= 3
    torch.save(state, new)
    return f"torch {torch.__version__.partition('+')[0]}"


def torch_same(old: Path | None, new: Path) -> str:
    """The same weights saved twice: under another name, and with another protocol."""
    import torch  # type: ignore[import-not-found, unused-ignore]

    state = {"model": {"big": torch.tensor(BIG), "small": torch.tensor(SMALL)}, "step": 7}
    torch.save(torch.load(old, weights_only=True) if old else state, new, pickle_protocol=4 if old else 2)
    return f"torch {torch.__version__.partition('+')[0]}"


def torch_legacy(old: Path | None, new: Path) -> str:
    """``torch.save`` as it was before 1.6."""
    import torch  # type: ignore[import-not-found, unused-ignore]

    state = {"big": torch.tensor(BIG), "small": torch.tensor(SMALL)}
    if old:
        state = torch.load(old, weights_only=True)
        state["small"] *= 3
    torch.save(state, new, _use_new_zipfile_serialization=False)
    return f"torch {torch.__version__.partition('+')[0]}"


def torch_distributed(old: Path | None, new: Path) -> str:
    """A file of ``torch.distributed.checkpoint.save``."""
    import torch  # type: ignore[import-not-found, unused-ignore]
    import torch.distributed.checkpoint as dcp  # type: ignore[import-not-found, unused-ignore]

    state = {"big": torch.tensor(BIG), "small": torch.tensor(SMALL) * (3 if old else 1)}
    with tempfile.TemporaryDirectory() as folder:
        dcp.save(state, checkpoint_id=folder, no_dist=True)
        new.write_bytes((Path(folder) / "__0_0.distcp").read_bytes())
        new.with_suffix(".metadata").write_bytes((Path(folder) / ".metadata").read_bytes())
    return f"torch {torch.__version__.partition('+')[0]}"


def gguf(old: Path | None, new: Path) -> str:
    """The writer of the ``gguf`` package, with a quantised tensor."""
    from importlib.metadata import version

    import gguf  # type: ignore[import-not-found, unused-ignore]

    small = SMALL * (3 if old else 1)
    writer = gguf.GGUFWriter(new, "llama")
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("big", BIG)
    writer.add_tensor("blocks", gguf.quants.quantize(BIG, kind), raw_dtype=kind)
    writer.add_tensor("small", small)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return f"gguf {version('gguf')}"


def hdf5(old: Path | None, new: Path) -> str:
    """h5py, contiguous datasets."""
    import h5py  # type: ignore[import-not-found, import-untyped, unused-ignore]

    if old:
        new.write_bytes(old.read_bytes())
    with h5py.File(new, "r+" if old else "w") as file:
        if old:
            file["small"][:] = SMALL * 3
        else:
            file["big"], file["small"] = BIG, SMALL
    return f"h5py {h5py.__version__}"


def joblib(old: Path | None, new: Path) -> str:
    """``joblib.dump`` of a fitted model of scikit-learn."""
    import joblib  # type: ignore[import-not-found, import-untyped, unused-ignore]

    joblib.dump(_fitted(joblib.load(old) if old else None), new)
    return f"joblib {joblib.__version__}"


def pickle(old: Path | None, new: Path) -> str:
    """``pickle.dump`` of a fitted model of scikit-learn."""
    import pickle

    import sklearn  # type: ignore[import-not-found, import-untyped, unused-ignore]

    new.write_bytes(pickle.dumps(_fitted(pickle.loads(old.read_bytes()) if old else None)))
    return f"scikit-learn {sklearn.__version__}"


def _fitted(model: Any) -> Any:
    from sklearn.neighbors import KNeighborsRegressor  # type: ignore[import-not-found, import-untyped, unused-ignore]

    if model is None:
        return KNeighborsRegressor(algorithm="brute").fit(BIG, np.arange(64.0))
    model._y *= 3
    return model


def onnx_file(old: Path | None, new: Path) -> str:
    """``onnx.save`` with initializers as raw data."""
    import onnx  # type: ignore[import-not-found, unused-ignore]
    from onnx import TensorProto, helper, numpy_helper

    if old:
        model = onnx.load(old)
        tensor = model.graph.initializer[1]
        tensor.raw_data = (numpy_helper.to_array(tensor) * 3).astype(np.float32).tobytes()
    else:
        weights = [numpy_helper.from_array(BIG, "big"), numpy_helper.from_array(SMALL, "small")]
        shown = helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 64])
        node = helper.make_node("Identity", ["big"], ["y"])
        model = helper.make_model(helper.make_graph([node], "g", [], [shown], weights))
    onnx.save(model, new)
    return f"onnx {onnx.__version__}"


def onnx_external(old: Path | None, new: Path) -> str:
    """``onnx.save`` with the values in a file beside the model."""
    import onnx  # type: ignore[import-not-found, unused-ignore]

    with tempfile.TemporaryDirectory() as folder:
        onnx_file(old and old.with_suffix(".embedded"), new.with_suffix(".embedded"))
        model = onnx.load(new.with_suffix(".embedded"))
        place = Path(folder) / "external.onnx"
        options = {"save_as_external_data": True, "location": "external.onnx.data", "size_threshold": 0}
        onnx.save(model, place, **options)
        new.write_bytes((Path(folder) / "external.onnx.data").read_bytes())
        new.with_suffix("").write_bytes(place.read_bytes())
    return f"onnx {onnx.__version__}"


def keras(old: Path | None, new: Path) -> str:
    """``model.save`` of Keras 3 (``.keras``)."""
    import keras  # type: ignore[import-not-found, unused-ignore]

    _trained(keras, old).save(new)
    return f"keras {keras.__version__}"


def keras_weights(old: Path | None, new: Path) -> str:
    """``model.save_weights`` of Keras 3."""
    import keras  # type: ignore[import-not-found, unused-ignore]

    model = _trained(keras, None)
    if old:
        model.load_weights(old)
        _train(model)
    model.save_weights(new)
    return f"keras {keras.__version__}"


def keras_h5(old: Path | None, new: Path) -> str:
    """``model.save`` in the old format."""
    import keras  # type: ignore[import-not-found, unused-ignore]

    _trained(keras, old).save(new)
    return f"keras {keras.__version__}"


def _trained(keras: Any, old: Path | None) -> Any:
    if old:
        model = keras.models.load_model(old)
        _train(model)
        return model
    inputs = keras.Input((64,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(64, name="dense")(inputs), name="net")
    model.layers[1].set_weights([BIG, np.arange(64, dtype=np.float32)])
    return model


def _train(model: Any) -> None:
    kernel, bias = model.layers[1].get_weights()
    model.layers[1].set_weights([kernel, bias * 3])


def flax(old: Path | None, new: Path) -> str:
    """``flax.serialization.to_bytes``."""
    import flax  # type: ignore[import-not-found, unused-ignore]
    from flax import serialization  # type: ignore[import-not-found, unused-ignore]

    state: dict[str, Any] = {"params": {"big": BIG, "small": SMALL}, "step": 7}
    if old:
        state = serialization.msgpack_restore(old.read_bytes())
        state["params"]["small"] = state["params"]["small"] * 3
    new.write_bytes(serialization.to_bytes(state))
    return f"flax {flax.__version__}"


def tensorflow(old: Path | None, new: Path) -> str:
    """``tf.train.Checkpoint``: two files, ``.index`` and ``.data-00000-of-00001``."""
    import tensorflow as tf  # type: ignore[import-not-found, import-untyped, unused-ignore]

    state = tf.train.Checkpoint(big=tf.Variable(BIG), small=tf.Variable(SMALL), note=tf.Variable("text"))
    if old:
        state.read(str(old)).assert_consumed()
        state.small.assign(state.small * 3)
    state.write(str(new))
    return f"tensorflow {tf.__version__}"


FORMATS: dict[str, Callable[[Path | None, Path], str]] = {
    "torch.pt": torch_zip,
    "same.pt": torch_same,
    "legacy.pt": torch_legacy,
    "dist.distcp": torch_distributed,
    "model.gguf": gguf,
    "plain.h5": hdf5,
    "model.joblib": joblib,
    "model.pkl": pickle,
    "model.onnx": onnx_file,
    "external.onnx.data": onnx_external,
    "model.keras": keras,
    "model.weights.h5": keras_weights,
    "model.h5": keras_h5,
    "model.msgpack": flax,
    "variables": tensorflow,
}


def main() -> None:
    """Write the files of the libraries that are here, and which versions they are."""
    warnings.simplefilter("ignore")
    HERE.mkdir(exist_ok=True)
    known = HERE / "libraries.txt"
    lines = dict(line.split(" ", 1) for line in known.read_text().splitlines()) if known.exists() else {}
    for name, make in FORMATS.items():
        try:
            lines[name] = make(None, HERE / f"1.{name}")
            make(HERE / f"1.{name}", HERE / f"2.{name}")
            for path in HERE.glob("*.embedded"):
                path.unlink()
        except ImportError as error:
            sys.stdout.write(f"{name}: {error}\n")
    known.write_text("".join(f"{name} {line}\n" for name, line in sorted(lines.items())))


if __name__ == "__main__":
    main()
