"""theta beside mergekit: recipes are run by both as they are, and all tensors and texts are compared.

Builds tiny Llama-like models with tokenizers from configurations (nothing is downloaded).  Of each recipe
it prints how many tensors are equal bit for bit, how far the others are off in units of the last place of
their largest element, and what differs in ``config.json``; the exit code is 1 if one is off by more than it
may be.

mergekit has an environment of its own:

    python -m venv M && M/bin/pip install mergekit==0.1.5
    M/bin/python -P bench/mergekit_check.py --theta theta
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from mergekit.io.tasks import LoaderCache
from mergekit.scripts import multimerge, run_yaml
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

EXACT = ("linear", "passthrough")
"""Methods that must agree bit for bit; slerp, whose angle hangs on the order of sums, within one unit."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LAYERS = 4


def tokenizer(words: Sequence[str], added: Sequence[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of letters and of ``words`` made from them, with special tokens ``added``."""
    vocabulary = {letter: number for number, letter in enumerate(LETTERS)}
    merges: list[tuple[str, str]] = []
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocabulary:
                vocabulary[word[:end]] = len(vocabulary)
                merges.append((word[: end - 1], word[end - 1]))
    inner = Tokenizer(BPE(vocabulary, merges))
    found = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")
    found.add_special_tokens({"additional_special_tokens": list(added)})
    return found


def model(seed: int, vocabulary: int, dtype: torch.dtype, *, tied: bool = False) -> LlamaForCausalLM:
    """Return a model of random weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).to(dtype)


@dataclass
class Bench:
    """Folders with the models for mergekit, and a repository with a branch for each."""

    place: Path
    theta: str

    @property
    def repo(self) -> Path:
        """The repository."""
        return self.place / "repo"

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the repository."""
        env = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "NO_COLOR": "1"}
        names = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")
        env |= dict.fromkeys(names, "check@example.org")
        done = subprocess.run(words, cwd=self.repo, env=env, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise SystemExit(f"{' '.join(words)}: {done.stderr}")
        return done

    def begin(self, models: Mapping[str, tuple[LlamaForCausalLM, PreTrainedTokenizerFast]]) -> None:
        """Write the models; each branch starts at the first one."""
        self.repo.mkdir()
        self.run(self.theta, "init")
        self.run(self.theta, "track", "*.safetensors")
        for number, (name, (weights, words)) in enumerate(models.items()):
            if number:
                first = next(iter(models))
                self.run(self.theta, "switch", "-q", first)
                self.run(self.theta, "switch", "-q", "-c", name)
            for place in (self.place / name, self.repo):
                weights.save_pretrained(place)
                words.save_pretrained(place)
            self.run(self.theta, "add", ".")
            self.run(self.theta, "commit", "-q", "-m", name)
            if not number:
                self.run("git", "branch", "-m", name)

    def adapt(self, adapters: Mapping[str, PeftModel]) -> None:
        """Write adapters, each to a folder for mergekit and on a branch off the first model."""
        for name, found in adapters.items():
            self.run(self.theta, "switch", "-q", "-c", name, "a")
            for place in (self.place / name, self.repo / "adapters" / name):
                found.save_pretrained(place)
            self.run(self.theta, "add", ".")
            self.run(self.theta, "commit", "-q", "-m", name)

    def compare(self, title: str, recipe: str, *, multi: bool = False, folded: bool = False) -> bool:
        """Run ``recipe`` by both; print how they differ, and return whether that is right.

        Of models with adapters ``folded`` in, PEFT rounds products before they are added, and theta the sum.
        """
        text = self.place / "recipe.yml"
        text.write_text(recipe)
        out = self.place / "out" / title
        out.mkdir(parents=True)
        try:
            mergekit(text, out, multi=multi)
        except Exception as error:  # any failure is printed
            print(f"{title}: mergekit fails: {error!r}")
            return False
        self.run(self.theta, "switch", "-q", "-C", "result", "a")
        mine = self.run(self.theta, "merge", "--recipe", str(text), check=False)
        if mine.returncode:
            print(f"{title}: theta fails: {mine.stderr.strip()}")
            return False
        again = self.run(self.theta, "merge", "--replay", "HEAD", check=False)
        told = tensors(
            out, self.repo, exact=not folded and any(f"merge_method: {one}" in recipe for one in EXACT)
        )
        told += texts(out, self.repo, based="base_model" in recipe)
        told += [] if again.returncode == 0 else [f"BAD replay: {again.stdout}{again.stderr}"]
        print(f"{title}: " + "; ".join(told))
        return not any(line.startswith("BAD") for line in told)


def mergekit(recipe: Path, out: Path, *, multi: bool) -> None:
    """Run the real mergekit; the names of models are folders."""
    os.chdir(recipe.parent)
    LoaderCache().loaders.clear()  # folders have the same names again
    words = ["--quiet", "--no-write-model-card", "--lora-merge-cache", str(out.parent / "merged")]
    if multi:
        more = ["--out-path", str(out), "-I", str(out / "between")]
        multimerge.main([str(recipe), *more, *words], standalone_mode=False)
    else:
        run_yaml.main([str(recipe), str(out), *words], standalone_mode=False)


def tensors(theirs: Path, mine: Path, *, exact: bool) -> list[str]:
    """Return how the tensors of two models differ."""
    one, other = (
        {k: v for f in p.glob("*.safetensors") for k, v in load_file(f).items()} for p in (theirs, mine)
    )
    if (theirs / "tokenizer.json").exists():
        by_token(one, theirs, mine)
    told = []
    if one.keys() != other.keys():
        told.append(f"BAD names {sorted(one.keys() ^ other.keys())}")
    off = {}
    for name in one.keys() & other.keys():
        a, b = one[name], other[name]
        if a.dtype != b.dtype or a.shape != b.shape:
            told.append(f"BAD {name}: {a.dtype} {list(a.shape)}, theta {b.dtype} {list(b.shape)}")
        elif not torch.equal(a, b):
            unit = torch.finfo(a.dtype).eps * a.float().abs().max()
            off[name] = float((a.float() - b.float()).abs().max() / unit)
    told.append(f"{len(one) - len(off)} of {len(one)} tensors are equal")
    if off:
        name = max(off, key=lambda key: off[key])
        bad = "BAD " if exact or off[name] > 2 else ""
        told.append(f"{bad}{name} is off by {off[name]:.2f} units")
    return told


def by_token(one: dict[str, Any], theirs: Path, mine: Path) -> None:
    """Give the rows of mergekit's tokens the ids that theta gave them: new ids are mergekit's by chance."""
    words = [transformers.AutoTokenizer.from_pretrained(place).get_vocab() for place in (theirs, mine)]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        old = one[name].clone()
        for token, number in words[0].items():
            if token in words[1]:
                one[name][words[1][token]] = old[number]


def texts(theirs: Path, mine: Path, *, based: bool) -> list[str]:
    """Return how configuration and tokenizer differ; without a base mergekit takes that of any model."""
    told = []
    one, other = (json.loads((place / "config.json").read_bytes()) for place in (theirs, mine))
    for key in ("num_hidden_layers", "vocab_size", "dtype", "torch_dtype"):
        if one.get(key) != other.get(key):
            told.append(f"BAD {key}: {one.get(key)}, theta {other.get(key)}")
    if (theirs / "tokenizer.json").exists():
        words = [transformers.AutoTokenizer.from_pretrained(place) for place in (theirs, mine)]
        if words[0].get_vocab().keys() != words[1].get_vocab().keys():
            told.append("BAD vocabularies differ")
        text = "hello there <|x|> cab<|y|>"
        if based and words[0].tokenize(text) != words[1].tokenize(text):
            told.append("BAD the text is encoded otherwise")
        if words[0].chat_template != words[1].chat_template:
            told.append("BAD chat templates differ")
    LlamaForCausalLM.from_pretrained(mine)
    return told


def models(dtype: torch.dtype) -> dict[str, Any]:
    """Return models with one vocabulary."""
    words = tokenizer(["hello", "there"], ["<|x|>"])
    return {name: (model(number, len(words), dtype), words) for number, name in enumerate("abc")}


def strangers(dtype: torch.dtype) -> dict[str, Any]:
    """Return models with vocabularies of their own; the last has rows without tokens."""
    words = {
        "a": tokenizer(["hello", "there"], ["<|x|>"]),
        "b": tokenizer(["help", "there", "cab"], ["<|x|>", "<|y|>"]),
        "c": tokenizer(["cab", "hello"], ["<|z|>", "<|y|>"]),
    }
    rows = {name: len(found) + 3 * (name == "c") for name, found in words.items()}
    return {name: (model(number, rows[name], dtype), words[name]) for number, name in enumerate(words)}


def adapters(dtype: torch.dtype) -> dict[str, PeftModel]:
    """Return adapters of random factors for the first and the second model."""
    targets = ["q_proj", "v_proj", "o_proj", "down_proj"]
    found = {}
    for number, name in enumerate(("fa", "fb")):
        torch.manual_seed(10 + number)
        config = LoraConfig(r=4, lora_alpha=6 + number, target_modules=targets, use_rslora=bool(number))
        one = get_peft_model(model(number, 0, dtype), config)
        for key, value in one.named_parameters():
            if "lora_" in key:
                torch.nn.init.normal_(value, std=0.1)
        found[name] = one
    return found


def sources(*of: tuple[str, int, int]) -> str:
    """Return one slice."""
    lines = "".join(f"\n      - {{model: {name}, layer_range: [{first}, {end}]}}" for name, first, end in of)
    return f"\n  - sources:{lines}"


PAIR = "models: [{model: a, parameters: {weight: 0.3}}, {model: b, parameters: {weight: 0.9}}]\n"
TIES = (
    "models: [{model: a}, {model: b}, {model: c}]\n"
    "parameters: {weight: 0.5, density: 0.6, normalize: true, int8_mask: true}\n"
)
SAME = {
    "stack": f"merge_method: passthrough\nslices:{sources(('a', 0, 3))}{sources(('b', 1, 4))}\n",
    "depth": f"merge_method: passthrough\nslices:{sources(('a', 0, 3))}{sources(('a', 2, 4))}\n",
    "cut": f"merge_method: passthrough\nslices:{sources(('a', 0, 2))}\n",
    "scaled": "merge_method: passthrough\nslices:\n  - sources: [{model: a, layer_range: [0, 3]}]\n"
    "  - sources:\n      - model: b\n        layer_range: [2, 4]\n        parameters:\n          scale:\n"
    "            - {filter: o_proj, value: 0.0}\n            - {filter: down_proj, value: 0.5}\n"
    "            - {value: 1.0}\n",
    "linear": f"merge_method: linear\n{PAIR}",
    "linear of slices": "merge_method: linear\nslices:"
    f"{sources(('a', 0, 3), ('b', 1, 4))}\n    parameters: {{weight: [0.2, 0.7]}}"
    f"{sources(('c', 2, 4), ('a', 0, 2))}\nparameters: {{weight: 0.4}}\n",
    "slerp of slices": f"merge_method: slerp\nbase_model: a\nslices:{sources(('a', 0, 4), ('b', 0, 4))}"
    f"{sources(('b', 0, 2), ('a', 1, 3))}\nparameters:\n  t:\n"
    "    - {filter: self_attn, value: [0, 0.5, 1]}\n"
    "    - {filter: mlp, value: [1, 0.3]}\n    - {value: 0.4}\n",
    "ties of slices": "merge_method: ties\nbase_model: a\nslices:"
    f"{sources(('a', 0, 2), ('b', 1, 3), ('c', 2, 4))}"
    "\nparameters: {weight: 0.5, density: 0.6, normalize: true, int8_mask: true}\n",
    "ties computed in f32": f"merge_method: ties\nbase_model: a\n{TIES}dtype: float32\nout_dtype: bfloat16\n",
    "in another dtype": f"merge_method: passthrough\nslices:{sources(('a', 0, 3))}{sources(('b', 1, 4))}\n"
    "dtype: bfloat16\n",
}


ADAPTED = {
    "base+lora": "merge_method: passthrough\nmodels: [{model: a+fa}]\n",
    "linear of base+lora": "merge_method: linear\nmodels:\n"
    "  - {model: a+fa, parameters: {weight: 0.3}}\n  - {model: b+fb, parameters: {weight: 0.9}}\n",
    "linear of one base": "merge_method: linear\nmodels:\n"
    "  - {model: {model: a, lora: fa}, parameters: {weight: 0.3}}\n"
    "  - {model: a+fb, parameters: {weight: 0.9}}\n",
    "task arithmetic of base+lora": "merge_method: task_arithmetic\nbase_model: a\nmodels:\n"
    "  - {model: a+fa, parameters: {weight: 0.3}}\n  - {model: a+fb, parameters: {weight: 0.9}}\n",
    "slices of base+lora": "merge_method: passthrough\nslices:"
    f"{sources(('a+fa', 0, 3))}{sources(('b+fb', 1, 4))}\n",
}


THREE = (
    "models: [{model: a, parameters: {weight: 0.3}}, {model: b, parameters: {weight: 0.9}},"
    " {model: c, parameters: {weight: 0.7}}]\n"
)
APART = {
    "union": f"merge_method: linear\n{THREE}base_model: a\ntokenizer_source: union\n",
    "union without a base": f"merge_method: linear\n{THREE}tokenizer: {{source: union}}\n",
    "base": f"merge_method: linear\n{THREE}base_model: a\ntokenizer_source: base\n",
    "that of another": f"merge_method: linear\n{THREE}base_model: a\ntokenizer: {{source: b}}\n",
    "padded": f"merge_method: linear\n{THREE}base_model: a\n"
    "tokenizer: {source: union, pad_to_multiple_of: 16}\n",
    "tokens": f"merge_method: linear\n{THREE}base_model: a\ntokenizer:\n  source: union\n  tokens:\n"
    '    "<|y|>": {source: c}\n    "<|x|>": {source: b, force: true}\n'
    '    "<|new|>": {source: {kind: model_token, model: b, token: cab}}\n'
    '    "<|no|>": {source: {kind: zero}}\n',
    "slerp": f"merge_method: slerp\nbase_model: b\nslices:{sources(('a', 0, 4), ('b', 0, 4))}\n"
    "parameters: {t: 0.3}\ntokenizer_source: union\n",
    "ties": f"merge_method: ties\n{THREE}base_model: a\ntokenizer_source: union\n",
    "stack": f"merge_method: passthrough\nslices:{sources(('a', 0, 3))}{sources(('b', 1, 4))}\n"
    "base_model: a\ntokenizer_source: union\n",
}


def main() -> int:
    """Compare all recipes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--theta", default="theta")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    right = True
    for dtype in (torch.float32, torch.bfloat16):
        with tempfile.TemporaryDirectory() as place:
            bench = Bench(Path(place), args.theta)
            bench.begin(models(dtype))
            for title, recipe in SAME.items():
                if args.only in title:
                    right &= bench.compare(f"{title} ({dtype})", recipe)
            bench.adapt(adapters(dtype))
            for title, recipe in ADAPTED.items():
                if args.only in title:
                    right &= bench.compare(f"{title} ({dtype})", recipe, folded=True)
        with tempfile.TemporaryDirectory() as place:
            bench = Bench(Path(place), args.theta)
            bench.begin(strangers(dtype))
            for title, recipe in APART.items():
                if args.only in f"tokenizer {title}":
                    right &= bench.compare(f"tokenizer {title} ({dtype})", recipe)
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
