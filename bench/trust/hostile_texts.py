"""The texts that theta parses, a sample of each, and what reads them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from tests.independent.manifest_text import parse as parse_independently
from tests.independent.odb import Objects
from tests.merging.test_hostile_tokenizers import BESIDE, GOOD, OTHER
from tests.support.environment import ROOT
from theta.formats import sharded
from theta.git import lfs
from theta.merging import recipe_files, recipes
from theta.merging.adapters import scales
from theta.merging.documents import vocabularies
from theta.merging.documents.model_files import ModelFiles
from theta.merging.documents.tokenizer_keys import TokenizerKey
from theta.merging.strategies import strategy
from theta.porcelain.merge import trailers
from theta.porcelain.migration import git_theta_origin
from theta.porcelain.setup import attribute_lines
from theta.porcelain.signing import statements
from theta.porcelain.stage import adapters
from theta.store.format import manifest, skeleton, tensor_tree
from theta.store.format.manifest import Line, Manifest

Read = Callable[[bytes], object]
Text = tuple[Read, list[bytes], list[bytes]]

_JSON: Final = rb'" { } [ ] , : 0 -1 1e999 18446744073709551616 null true NaN \ud800 \u0000'.split(b" ")
_YAML: Final = [
    b": ",
    b"\n- ",
    b"\n  ",
    b"&a ",
    b"*a",
    b"!!python/object/apply:os.system ",
    b"[",
    b"{",
    b"~",
    b"|\n",
]
_LINES: Final = [
    b"\n",
    b"\r\n",
    b"    ",
    b"end ",
    b"group [",
    b"sha256:",
    b"\\u0000",
    b"<<<<<<< ",
    b"[",
    b", ",
    b"-1",
]
_WORDS: Final = [b"-X ", b"--rule ", b"=", b":", b",", b"1e999", b"-1", b"[", b"'", b'"', b"\\", b"\n"]
_ID: Final = "ab" * 20
_DIGEST: Final = "cd" * 32


def _bytes(body: Any) -> bytes:
    return json.dumps(body).encode()


def _statement() -> bytes:
    resources = [{"name": "m.safetensors", "algorithm": "sha256", "digest": _DIGEST}]
    predicate = {
        "serialization": {"method": "files", "hash_type": "sha256"},
        "resources": resources,
        "theta": {"commit": _ID, "tensors": {"m.safetensors": {"w": f"f32 [2] sha256:{_DIGEST}"}}},
    }
    subject = {"name": "model", "digest": {"sha256": hashlib.sha256(bytes.fromhex(_DIGEST)).hexdigest()}}
    kind = {"_type": statements._TYPE, "predicateType": statements._PREDICATE}
    return _bytes({**kind, "subject": [subject], "predicate": predicate})


def _tokenizer(data: bytes) -> object:
    """Read a tokenizer and two files beside it, as a recipe with ``tokenizer: union`` does."""
    line = Line("model.embed_tokens.weight", "f32", (6, 2), "0" * 64, "0" * 40)
    files = {name: _bytes(body) for name, body in BESIDE.items()}
    held = {"m.safetensors": Manifest("safetensors", "s", "", (line,))}
    models = {
        "one": ModelFiles("one", "", held, {**files, "tokenizer.json": data}),
        "two": ModelFiles("two", "", held, {**files, "tokenizer.json": _bytes(OTHER)}),
    }
    return vocabularies.build(TokenizerKey("union"), models, "one")


def _manifest(data: bytes) -> None:
    """Read a manifest, and what it is written as again."""
    found = manifest.parse(data, lambda groups: [b"" for _ in groups])
    if not found.groups:
        assert manifest.parse(found.data) == found, "it is not read as it is written"


def _record(data: bytes) -> None:
    """Read the record of a tensor, and what it is written as again."""
    found = tensor_tree.parse(data)
    assert tensor_tree.parse(found.data()) == found, "it is not read as it is written"


_LORA: Final = {
    "peft_type": "LORA",
    "r": 8,
    "lora_alpha": 16,
    "rank_pattern": {"q.*": 4},
    "alpha_pattern": {"layers.1": 2},
    "use_rslora": False,
    "fan_in_fan_out": True,
    "target_parameters": ["a.b"],
    "modules_to_save": ["head"],
    "bias": "none",
    "trainable_token_indices": {"embed": [1, 2]},
}
_RECIPES: Final = [
    b"""merge_method: ties
base_model: main
models:
  - model: a+lora
    parameters: {weight: [0.5, 1], density: .3}
  - model: {model: b, lora: c}
parameters: {normalize: true}
dtype: bfloat16
""",
    b"""slices:
  - sources:
      - {model: a, layer_range: [0, 2]}
  - sources:
      - model: b
        layer_range: [1, 3]
        parameters: {scale: [{filter: q_proj, value: 0}, {value: 1}]}
merge_method: passthrough
tokenizer: {source: union, pad_to_multiple_of: 8}
""",
]
_INDEX: Final = {
    "metadata": {"total_size": 12},
    "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "x.bin"},
}
_LFS: Final = f"version https://git-lfs.github.com/spec/v1\noid sha256:{_DIGEST}\nsize 12345\n"
_THETA: Final = {
    "w": {
        "theta_metadata": {"update_type": "dense"},
        "lfs_metadata": {"oid": _DIGEST, "size": "12"},
        "tensor_metadata": {},
    }
}


def _strings(read: Callable[[str], object]) -> Read:
    return lambda data: read(data.decode("utf-8", "replace"))


TEXTS: Final[dict[str, Text]] = {
    "recipe": (lambda data: recipe_files.load(data, "recipe.yml"), _RECIPES, _YAML),
    "recipe line": (
        _strings(recipes.from_text),
        [b"-X ties:density=0.5,weight=[0.6,0.4] --rule 'norm*=ours' --scope all --seed 7 --allow-nan"],
        _WORDS,
    ),
    "strategy": (
        _strings(strategy.parse),
        [b"ties:density=0.5,weight=[0.6,0.4]", b"slerp:t=0.3", b"linear:normalize=false,weight=2"],
        _WORDS,
    ),
    "trailer": (_strings(trailers.read_round), [b"-X average --seed 3 -- m.safetensors 'a b.pt'"], _WORDS),
    "adapter": (lambda data: adapters.parsed("adapter_config.json", data), [_bytes(_LORA)], _JSON),
    "scales": (scales.parsed, [_bytes(_LORA)], _JSON),
    "index of shards": (sharded.read_index, [_bytes(_INDEX)], _JSON),
    "signed statement": (statements.parsed, [_statement()], _JSON),
    "tokenizer": (_tokenizer, [_bytes(GOOD), _bytes(OTHER)], _JSON),
    "attributes": (
        attribute_lines.of_file,
        [b'*.safetensors filter=theta diff=theta merge=text -text\n"a b" text\n# no\n[attr]x y\n'],
        [b'"', b"\\", b"\n", b" ", b"-", b"!", b"[attr]", b"\xff"],
    ),
    "pointer of LFS": (lfs.parse, [_LFS.encode()], _LINES),
    "pointer of git-theta": (git_theta_origin.parse, [_bytes(_THETA)], _JSON),
}
"""Name -> what reads the text, samples, and words that changes put in."""


def golden_texts(place: Path, run: Callable[..., object]) -> dict[str, Text]:
    """Return the texts of the golden repository: manifests, records of tensors, tables of files."""
    bundle = ROOT / "tests" / "golden" / "repository-1.bundle"
    run("git", "clone", "--quiet", "--bare", str(bundle), str(place / "golden.git"))
    commits = json.loads(bundle.with_suffix(".json").read_text())
    with Objects(place / "golden.git") as objects:
        names = [f"{commit}:{path}" for commit, paths in commits.items() for path in paths][:12]
        manifests = [objects.blob(name, 2**23) for name in names]
        found = [parse_independently(objects, objects.at_path(*name.split(":", 1))) for name in names]
        tables = [objects.blob(objects.files(one.skeleton)["table.0000"], 2**23) for one in found]
        trees = sorted({entry.tree for one in found for entry in one.entries.values()})[:40]
        records = [objects.blob(objects.files(tree)["@tensor"], 2**20) for tree in trees]
    return {
        "manifest": (_manifest, _short(manifests), _LINES),
        "record": (_record, _short(records), _JSON),
        "table": (
            lambda data: list(skeleton.segments_of(data)),
            _short(tables),
            [
                b"literal ",
                b"extent ",
                b"derived ",
                b"crc32 ",
                b"\n",
                b"-1",
                b"99999999999999999999",
                b"0+4",
                b",",
            ],
        ),
    }


def _short(texts: Sequence[bytes]) -> list[bytes]:
    """Return different texts, the shortest first, and not the very long ones."""
    return sorted(set(texts), key=len)[:20]
