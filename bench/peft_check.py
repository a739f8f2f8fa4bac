"""theta beside PEFT: adapters that PEFT wrote are added, and what extract-lora writes is loaded by PEFT.

Builds tiny models from configurations (nothing is downloaded), real adapters of each kind with random
values, and fine-tunes.  Of each case it prints the largest change of a logit between base and fine-tune,
how far theta's result is off, and one of

    right     the updated file, loaded by transformers, gives the logits of PEFT; or PEFT, with the
              adapter that theta wrote, gives those of the fine-tune
    refused   theta says by name why not, and changes nothing
    WRONG     anything else; the exit code is 1 then

PEFT has an environment of its own:

    python -m venv P && P/bin/pip install torch==2.13.0 peft==0.21.2 transformers==5.24.0 safetensors
    P/bin/python -P bench/peft_check.py --theta theta  # -P: transformers looks for a package "kernels"
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
VOCABULARY = 96
WIDTH = 32
NEAR = 2e-3
"""Off by this share of the change is right: float32, and a decomposition in between."""

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
"""Llama and those that have its names."""

Model = Any
Tune = Callable[[Model], None]


def llama(**options: Any) -> Model:
    """Llama with two layers; ``q_proj`` and ``o_proj`` are square."""
    config = transformers.LlamaConfig(**SMALL, **options)
    return transformers.LlamaForCausalLM(config)


def tied() -> Model:
    """Llama whose head is its embedding."""
    return llama(tie_word_embeddings=True)


def biased() -> Model:
    """Llama with biases."""
    return llama(tie_word_embeddings=False, attention_bias=True, mlp_bias=True)


def plain() -> Model:
    """Llama with a head of its own."""
    return llama(tie_word_embeddings=False)


def gpt2(**options: Any) -> Model:
    """GPT-2: matrices are transposed, and ``attn.c_proj`` is square."""
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=2, n_head=4, n_positions=64, **options
    )
    return transformers.GPT2LMHeadModel(config)


def gpt2_untied() -> Model:
    """GPT-2 with a head of its own."""
    return gpt2(tie_word_embeddings=False)


def t5() -> Model:
    """T5: encoder, decoder and head share one embedding."""
    config = transformers.T5Config(
        vocab_size=VOCABULARY,
        d_model=WIDTH,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
    )
    return transformers.T5ForConditionalGeneration(config)


def mixtral() -> Model:
    """Mixtral: experts that transformers fuses in memory."""
    config = transformers.MixtralConfig(**SMALL, num_local_experts=4)
    return transformers.MixtralForCausalLM(config)


def qwen3_moe() -> Model:
    """Qwen3-MoE."""
    config = transformers.Qwen3MoeConfig(
        **SMALL, moe_intermediate_size=24, head_dim=8, num_experts=4, num_experts_per_tok=2
    )
    return transformers.Qwen3MoeForCausalLM(config)


def qwen2() -> Model:
    """Qwen2: biases in the attention, tied."""
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SMALL, tie_word_embeddings=True))


def qwen3() -> Model:
    """Qwen3: norms of queries and keys."""
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SMALL, head_dim=8))


def mistral() -> Model:
    """Mistral."""
    return transformers.MistralForCausalLM(transformers.MistralConfig(**SMALL, head_dim=8))


def gemma2() -> Model:
    """Gemma 2: tied, with norms on both sides."""
    return transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**SMALL, head_dim=8))


def bert() -> Model:
    """BERT with the head of a language model, tied, with a bias of its own."""
    small = {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}
    return transformers.BertLMHeadModel(transformers.BertConfig(**small, is_decoder=True))


def gpt_oss() -> Model:
    """gpt-oss: experts that the file has in one tensor, as (experts, in, out)."""
    config = transformers.GptOssConfig(**SMALL, num_local_experts=4, head_dim=8, num_experts_per_tok=2)
    return transformers.GptOssForCausalLM(config)


def logits(model: Model) -> torch.Tensor:
    """Return the logits of ``model`` for a fixed input."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(1, VOCABULARY, (2, 12), generator=generator)
    more = {"decoder_input_ids": ids[:, :6]} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model.eval()(input_ids=ids, **more).logits.double()


def built(make: Callable[[], Model]) -> Model:
    """A model of fixed random weights, in the range where a change counts."""
    torch.manual_seed(1)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
            elif parameter.abs().sum() == 0:
                parameter.normal_(0, 0.1)
    return model


def load(place: Path) -> Model:
    """The model at ``place``, as anybody loads it."""
    config = transformers.AutoConfig.from_pretrained(place)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return kind.from_pretrained(place, dtype=torch.float32)


# -- theta -------------------------------------------------------------------------------------


@dataclass
class Theta:
    """A repository with one model, and the command."""

    command: str
    place: Path

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """``theta ARGS`` in the repository."""
        env = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "NO_COLOR": "1"}
        names = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")
        env |= dict.fromkeys(names, "check@example.org")
        return subprocess.run(
            [self.command, *args], cwd=self.place, env=env, capture_output=True, text=True, check=False
        )

    def commit(self, model: Model) -> None:
        """The next commit has this model and its configuration."""
        if not (self.place / ".git").exists():
            self.place.mkdir(parents=True)
            self.done("init")
            self.done("track", "*.safetensors")
        model.save_pretrained(self.place)
        self.done("add", ".")
        self.done("commit", "-q", "-m", "model")

    def done(self, *args: str) -> str:
        """Run a command that must succeed; return its output."""
        found = self.run(*args)
        if found.returncode:
            raise RuntimeError(f"theta {' '.join(args)}: {found.stderr}")
        return found.stdout + found.stderr


@dataclass(frozen=True)
class Told:
    """The outcome of a case."""

    change: float
    off: float | None
    said: str

    @property
    def verdict(self) -> str:
        """In one word."""
        if self.off is None:
            return "refused" if self.said.startswith("error: ") else "WRONG"
        return "right" if self.off <= NEAR * self.change + 1e-6 else "WRONG"


def _first_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    return (lines or text.strip().splitlines()[-1:] or [""])[0]


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference; over the tokens that both know."""
    most = min(one.shape[-1], other.shape[-1])
    return float((one[..., :most] - other[..., :most]).abs().max())


# -- adapters that are added --------------------------------------------------------------------


@dataclass(frozen=True)
class Added:
    """An adapter of PEFT, and what ``theta add`` makes of it."""

    make: Callable[[], Model]
    config: Mapping[str, Any]
    ia3: bool = False
    arrange: Tune | None = None
    grows: bool = False

    def check(self, command: str, place: Path) -> Told:
        """Write the adapter, add it, and compare."""
        model = built(self.make)
        theta = Theta(command, place / "repo")
        theta.commit(model)
        before = logits(model)
        if self.grows:
            model.resize_token_embeddings(VOCABULARY + 4, mean_resizing=False)
        kind = IA3Config if self.ia3 else LoraConfig
        peft = get_peft_model(copy.deepcopy(model), kind(**self.config))
        torch.manual_seed(2)
        with torch.no_grad():
            for parameter in peft.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        if self.arrange:
            self.arrange(peft)
        after = logits(peft)
        peft.save_pretrained(place / "adapter")
        change = _apart(before, after)
        said = theta.run("add", "--update-data", str(place / "adapter"), "model.safetensors")
        if said.returncode:
            return Told(change, None, _first_line(said.stderr))
        if self.grows:
            file = theta.place / "config.json"
            config = json.loads(file.read_text()) | {"vocab_size": VOCABULARY + 4}
            file.write_text(json.dumps(config))
        return Told(change, _apart(logits(load(theta.place)), after), "")


LORA: Mapping[str, Any] = {"r": 4, "lora_alpha": 6}
ATTENTION = {"target_modules": ["q_proj", "v_proj", "o_proj"]}
ADDED: Mapping[str, Added] = {
    "A0 lora": Added(plain, LORA | ATTENTION),
    "A0 lora of a tied model": Added(tied, LORA | ATTENTION),
    "A0 rslora, patterns": Added(
        plain,
        LORA
        | ATTENTION
        | {"use_rslora": True, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"q_proj": 3}},
    ),
    "A0 all biases": Added(biased, LORA | ATTENTION | {"bias": "all"}),
    "A0 biases of lora only": Added(biased, LORA | ATTENTION | {"bias": "lora_only"}),
    **{
        f"A0 lora of {make.__name__}": Added(make, LORA | {"target_modules": "all-linear"})
        for make in (qwen2, qwen3, mistral, gemma2, bert)
    },
    "A0 norms saved": Added(plain, LORA | ATTENTION | {"modules_to_save": ["input_layernorm"]}),
    "A0 ia3": Added(
        biased,
        {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
        ia3=True,
    ),
    **{
        f"A1 {start}": Added(plain, LORA | ATTENTION | {"init_lora_weights": start})
        for start in ("pissa", "pissa_niter_2", "olora", "gaussian", "orthogonal", "eva", "mica", False)
    },
    "C6 dora": Added(plain, LORA | ATTENTION | {"use_dora": True}),
    "C6 dora of rslora and patterns": Added(
        plain, LORA | ATTENTION | {"use_dora": True, "use_rslora": True, "rank_pattern": {"v_proj": 2}}
    ),
    "C6 dora of gpt2": Added(
        gpt2, LORA | {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "use_dora": True}
    ),
    "C6 dora of an embedding": Added(
        plain, LORA | {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True}
    ),
    "C6 lora_bias": Added(biased, LORA | ATTENTION | {"lora_bias": True}),
    "C6 lora_bias, all biases": Added(biased, LORA | ATTENTION | {"lora_bias": True, "bias": "all"}),
    "C6 trainable tokens": Added(plain, LORA | ATTENTION | {"trainable_token_indices": [1, 2]}),
    "C6 trainable tokens, tied": Added(tied, LORA | ATTENTION | {"trainable_token_indices": [1, 2]}),
    "C6 trainable tokens by name": Added(
        plain, LORA | ATTENTION | {"trainable_token_indices": {"embed_tokens": [3, 1], "lm_head": [4]}}
    ),
    "C4 more tokens": Added(
        plain, LORA | {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}, grows=True
    ),
    "C4 more tokens, saved": Added(
        plain, LORA | ATTENTION | {"modules_to_save": ["embed_tokens", "lm_head"]}, grows=True
    ),
    "A1 layer replication": Added(plain, LORA | ATTENTION | {"layer_replication": [(0, 2), (1, 2)]}),
    "A2 gpt2": Added(gpt2, LORA | {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "A2 gpt2, square alone": Added(gpt2, LORA | {"target_modules": ["attn.c_proj"], "fan_in_fan_out": False}),
    "A2 gpt2 with its head": Added(
        gpt2_untied, LORA | {"target_modules": ["c_attn", "c_proj", "lm_head"], "fan_in_fan_out": True}
    ),
    "A2 gpt2, square and head": Added(
        gpt2_untied, LORA | {"target_modules": ["attn.c_proj", "lm_head"], "fan_in_fan_out": False}
    ),
    "A2 llama with the flag of gpt2": Added(plain, LORA | ATTENTION | {"fan_in_fan_out": True}),
    "A2 ia3 of gpt2": Added(
        gpt2,
        {"target_modules": ["c_attn", "c_proj"], "feedforward_modules": ["c_proj"], "fan_in_fan_out": True},
        ia3=True,
    ),
    "A5 embedding saved, tied": Added(tied, LORA | ATTENTION | {"modules_to_save": ["embed_tokens"]}),
    "A5 embedding in low rank, tied": Added(tied, LORA | {"target_modules": ["q_proj", "embed_tokens"]}),
    "A5 both kept tied, saved": Added(
        tied, LORA | ATTENTION | {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
    ),
    "A5 both kept tied, low rank": Added(
        tied, LORA | {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True}
    ),
    "A5 head in low rank, tied": Added(tied, LORA | {"target_modules": ["q_proj", "lm_head"]}),
    "A5 embedding saved, gpt2": Added(
        gpt2, LORA | {"target_modules": ["c_attn"], "modules_to_save": ["wte"]}
    ),
    "A5 shared saved, t5": Added(t5, LORA | {"target_modules": ["q", "v"], "modules_to_save": ["shared"]}),
    "A5 t5 without it": Added(t5, LORA | {"target_modules": ["q", "v", "wi", "wo"]}),
    "B1 embedding and head in low rank": Added(
        plain, LORA | {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}
    ),
    "B1 head in low rank": Added(plain, LORA | {"target_modules": ["lm_head"]}),
    "B4 attention of mixtral": Added(mixtral, LORA | {"target_modules": ["q_proj", "v_proj"]}),
    "B4 experts of mixtral": Added(
        mixtral,
        LORA | {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj"]},
    ),
    "B4 router of mixtral": Added(
        mixtral, LORA | {"target_modules": ["q_proj"], "target_parameters": ["mlp.gate.weight"]}
    ),
    "B4 all of mixtral": Added(
        mixtral,
        LORA
        | {"target_modules": ["q_proj"], "use_rslora": True}
        | {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.gate.weight"]},
    ),
    "B4 experts of qwen3-moe": Added(
        qwen3_moe,
        LORA
        | {"target_modules": ["o_proj"]}
        | {"target_parameters": ["mlp.experts.down_proj", "mlp.experts.gate_up_proj"]},
    ),
    "B4 experts of gpt-oss": Added(
        gpt_oss,
        LORA
        | {"target_modules": ["o_proj"]}
        | {"target_parameters": ["mlp.experts.down_proj", "mlp.experts.gate_up_proj"]},
    ),
    "B4 attention of qwen3-moe": Added(qwen3_moe, LORA | {"target_modules": ["q_proj", "o_proj"]}),
}


# -- adapters that are extracted ------------------------------------------------------------------


def _move(model: Model, wanted: Callable[[str], bool], size: float = 0.2) -> None:
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter) * size
            if wanted(name):
                parameter.add_(noise)


def moving(*parts: str) -> Tune:
    """Changes the parameters whose names hold one of ``parts``; all without any."""
    return lambda model: _move(model, lambda name: not parts or any(part in name for part in parts))


def growing(model: Model) -> None:
    """Four tokens more, and a change."""
    model.resize_token_embeddings(VOCABULARY + 4, mean_resizing=False)
    _move(model, lambda name: "proj" in name)


@dataclass(frozen=True)
class Extracted:
    """A fine-tune, and what PEFT makes of the adapter that ``theta extract-lora`` wrote."""

    make: Callable[[], Model]
    tune: Tune
    dtype: torch.dtype = torch.float32
    resize: bool = False
    args: tuple[str, ...] = field(default=())

    def check(self, command: str, place: Path) -> Told:
        """Extract, load, and compare."""
        base = built(self.make).to(self.dtype)
        theta = Theta(command, place / "repo")
        theta.commit(base)
        before = logits(base.float())
        tuned = load(theta.place)
        self.tune(tuned)
        tuned.to(self.dtype)
        theta.commit(tuned)
        after = logits(tuned.float())
        change = _apart(before, after)
        out = place / "adapter"
        said = theta.run("extract-lora", "HEAD~1..HEAD", "--rank", "64", "-o", str(out), *self.args)
        if said.returncode:
            return Told(change, None, _first_line(said.stderr))
        if self.resize:
            base.resize_token_embeddings(VOCABULARY + 4, mean_resizing=False)
        line = next((line for line in said.stderr.splitlines() if "max |d|" in line), "")
        try:
            peft = PeftModel.from_pretrained(base, str(out))
        except Exception as error:  # whatever PEFT raises, it does not load
            return Told(change, None, f"{type(error).__name__}: {error}"[:90])
        return Told(change, _apart(logits(peft), after), line)


EXTRACTED: Mapping[str, Extracted] = {
    "A0 llama": Extracted(plain, moving()),
    "A0 llama in bf16": Extracted(plain, moving(), torch.bfloat16),
    **{f"C8 {make.__name__}": Extracted(make, moving()) for make in (qwen2, qwen3, mistral, gemma2, bert)},
    "A3 gpt2": Extracted(gpt2_untied, moving()),
    "A3 gpt2, square alone": Extracted(gpt2, moving("attn.c_proj.weight")),
    "A3 gpt2, tied": Extracted(gpt2, moving()),
    "A5 tied llama": Extracted(tied, moving()),
    "A5 tied llama, embedding alone": Extracted(tied, moving("embed_tokens")),
    "A5 t5": Extracted(t5, moving()),
    "A6 llama with biases": Extracted(biased, moving()),
    "A6 biases alone": Extracted(biased, moving("bias")),
    "A6 tied gpt2 with biases": Extracted(gpt2, moving("c_", "wte", "ln_")),
    "B2 norms alone": Extracted(plain, moving("norm")),
    "B2 embedding alone": Extracted(plain, moving("embed_tokens")),
    "B3 attention of mixtral": Extracted(mixtral, moving("self_attn")),
    "B3 mixtral": Extracted(mixtral, moving()),
    "B3 experts of mixtral": Extracted(mixtral, moving("experts.down_proj")),
    "B3 router of mixtral": Extracted(mixtral, moving("mlp.gate")),
    "B3 experts of gpt-oss": Extracted(
        gpt_oss, lambda model: _move(model, lambda name: name.endswith(("gate_up_proj", "down_proj")))
    ),
    "B3 qwen3-moe": Extracted(qwen3_moe, moving()),
    "B3 attention of qwen3-moe": Extracted(qwen3_moe, moving("self_attn")),
    "B5 vocabulary that grew": Extracted(plain, growing, resize=True),
    "B5 tied vocabulary that grew": Extracted(tied, growing, resize=True),
}


def cases(only: str) -> Iterator[tuple[str, Added | Extracted]]:
    """Every case whose name holds ``only``."""
    for verb, found in (("add", ADDED), ("extract", EXTRACTED)):
        for name, case in found.items():
            if only in f"{verb} {name}":
                yield f"{verb} {name}", case


def main() -> int:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--theta", default="theta", help="the command")
    parser.add_argument("--only", default="", help="the cases whose names hold this")
    args = parser.parse_args()
    torch.set_num_threads(1)
    wrong = 0
    for name, case in cases(args.only):
        with tempfile.TemporaryDirectory() as place:
            told = case.check(args.theta, Path(place))
        wrong += told.verdict == "WRONG"
        off = "" if told.off is None else f"{told.off:9.2e}"
        print(f"{name:44} {told.change:9.2e} {off:>9} {told.verdict:8} {told.said[:230]}", flush=True)
    print(f"{wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
