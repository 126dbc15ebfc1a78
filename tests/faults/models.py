"""Folders of models, broken or odd in one place each."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForMaskedLM

from tests import tiny
from tests.faults.cases import Case

Change = Callable[[Path], None]
"""Makes the folder of a model into another."""


def command(model: str | Path, folder: Path, *more: str, word: str = "measure") -> list[str]:
    """A short measurement of a model."""
    file = tiny.write_prompts(folder / "prompts.jsonl", tiny.texts(6), ["a"] * 6)
    sizes = ["--samples", "4", "--max-tokens", "4", "--nodes", "40", "--device", "cpu", "--quiet"]
    return [word, "--model", str(model), "--prompts", str(file), *sizes, *more]


def run_command(model: str | Path, folder: Path, *more: str) -> list[str]:
    """A short run."""
    file = tiny.write_prompts(folder / "prompts.jsonl", tiny.texts(12), ["a"] * 12)
    sizes = ["--rounds", "1", "--samples", "4", "--max-tokens", "4", "--held-out", "0.3"]
    sizes += ["--measure-samples", "4", "--lr", "3e-3", "--device", "cpu", "--quiet"]
    out = str(folder / "out")
    return ["run", "--model", str(model), "--prompts", str(file), "--out", out, *sizes, *more]


def case(
    name: str,
    *changes: Change,
    refused: str = "",
    flagged: str = "",
    words: Any = None,
    run: bool = False,
    **network: Any,
) -> Case:
    """A tiny model's folder, changed; the case is run where it must be trained to matter."""

    def build(folder: Path) -> Sequence[str]:
        model = tiny.saved(folder / "model", words=words and words(), **network)
        for change in changes:
            change(model)
        return (run_command if run else command)(model, folder)

    return Case(name, build, refused, flagged)


# ---- changes


def config(**values: Any) -> Change:
    """Set values of config.json."""
    return in_json("config.json", **values)


def in_json(name: str, **values: Any) -> Change:
    """Set values of a JSON file, which may be missing."""

    def change(model: Path) -> None:
        file = model / name
        before = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(before | values))

    return change


def without(name: str, *keys: str) -> Change:
    """Leave a file out, or keys of it."""

    def change(model: Path) -> None:
        if not keys:
            (model / name).unlink()
            return
        values = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps({k: v for k, v in values.items() if k not in keys}))

    return change


def holding(name: str, data: bytes) -> Change:
    """A file with other bytes."""

    def change(model: Path) -> None:
        (model / name).write_bytes(data)

    return change


def cut(name: str, share: float) -> Change:
    """The first part of a file."""

    def change(model: Path) -> None:
        data = (model / name).read_bytes()
        (model / name).write_bytes(data[: int(len(data) * share)])

    return change


def linked(name: str, target: str) -> Change:
    """A link in the place of a file."""

    def change(model: Path) -> None:
        (model / name).unlink()
        (model / name).symlink_to(target)

    return change


def folder_named(name: str) -> Change:
    """A folder in the place of a file."""

    def change(model: Path) -> None:
        (model / name).unlink()
        (model / name).mkdir()

    return change


def weights(act: Callable[[dict[str, torch.Tensor]], None]) -> Change:
    """Other tensors."""

    def change(model: Path) -> None:
        tensors = load_file(model / "model.safetensors")
        act(tensors)
        save_file(tensors, model / "model.safetensors", {"format": "pt"})

    return change


def fill(value: float) -> Change:
    """One weight of the output layer is this."""

    def act(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"][5, 3] = value

    return weights(act)


def header(text: bytes, length: int | None = None) -> Change:
    """A safetensors file with this header."""
    size = len(text) if length is None else length
    return holding("model.safetensors", struct.pack("<Q", size) + text)


def index(**shards: str) -> Change:
    """An index of shards, each tensor's as ``shards`` says, or model.safetensors."""

    def change(model: Path) -> None:
        names = load_file(model / "model.safetensors")
        places = dict.fromkeys(names, "part.safetensors") | shards
        (model / "part.safetensors").write_bytes((model / "model.safetensors").read_bytes())
        (model.parent / "outside.safetensors").write_bytes(
            (model / "part.safetensors").read_bytes()
        )
        (model / "model.safetensors").unlink()
        text = json.dumps({"metadata": {}, "weight_map": places})
        (model / "model.safetensors.index.json").write_text(text)

    return change


def pickled(model: Path) -> None:
    """The weights as a pickle, which runs code when it is read."""
    (model / "model.safetensors").unlink()
    code = b"\x80\x04cposix\nsystem\n(X\x0b\x00\x00\x00touch owned\x85R."
    (model / "pytorch_model.bin").write_bytes(code)


def custom(model: Path) -> None:
    """The folder brings code."""
    config(auto_map={"AutoModelForCausalLM": "own.Model", "AutoConfig": "own.Config"})(model)
    (model / "own.py").write_text("open('owned', 'w')\n")


def template(text: str) -> Callable[[], Any]:
    """A tokenizer with this chat template."""
    return lambda: tiny.tokenizer(template=text)


def adapters(base: str) -> Callable[[Path], Sequence[str]]:
    """A folder of adapters."""

    def build(folder: Path) -> Sequence[str]:
        model = folder / "adapters"
        model.mkdir()
        name = base.replace("SELF", str(model))
        text = json.dumps({"base_model_name_or_path": name, "peft_type": "LORA"})
        (model / "adapter_config.json").write_text(text)
        return command(model, folder)

    return build


def place(make: Callable[[Path], Path | str]) -> Callable[[Path], Sequence[str]]:
    """A path that is no folder of a model."""
    return lambda folder: command(make(folder), folder)


def _loop(folder: Path) -> Path:
    (folder / "model").symlink_to(folder / "model")
    return folder / "model"


def _dangling(folder: Path) -> Path:
    (folder / "model").symlink_to(folder / "nowhere")
    return folder / "model"


def _file(folder: Path) -> Path:
    (folder / "model").write_text("text")
    return folder / "model"


def _empty(folder: Path) -> Path:
    (folder / "model").mkdir()
    return folder / "model"


def _other_kind(kind: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        model = tiny.saved(folder / "model")
        (model / "config.json").write_text(json.dumps({"model_type": kind}))
        return model

    return make


def _encoder(folder: Path) -> Path:
    model = tiny.saved(folder / "model")
    (model / "model.safetensors").unlink()
    sizes = {"vocab_size": len(tiny.WORDS), "hidden_size": 16, "intermediate_size": 24}
    sizes |= {
        "initializer_range": 0.4,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
    }
    made = AutoModelForMaskedLM.from_config(AutoConfig.for_model("bert", **sizes))
    made.save_pretrained(model)
    return model


def _set(name: str, value: torch.Tensor) -> Change:
    return weights(lambda tensors: tensors.__setitem__(name, value))


Q = "quantization_config"
USER = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
ENDLESS = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x"
ENDLESS += "{% endfor %}{% endfor %}{% endfor %}"

MODELS = (
    case("a folder as it should be"),
    # sizes
    case("hidden size of 2^40", config(hidden_size=1 << 40), refused="hidden_size"),
    case("hidden size of 2^14", config(hidden_size=1 << 14), refused="hidden_size"),
    case("hidden size of 32, weights for 16", config(hidden_size=32), refused="another shape"),
    case("vocabulary of 2^50", config(vocab_size=1 << 50), refused="vocab_size"),
    case("a million layers", config(num_hidden_layers=10**6), refused="num_hidden_layers"),
    case("ten layers, weights for two", config(num_hidden_layers=10), refused="not in its safe"),
    case("one layer, weights for two", config(num_hidden_layers=1), flagged="does not use"),
    case("-1 layers", config(num_hidden_layers=-1), refused="num_hidden_layers"),
    case("no layers", config(num_hidden_layers=0), refused="num_hidden_layers"),
    case("hidden size 0", config(hidden_size=0), refused="hidden_size"),
    case("inner size 0", config(intermediate_size=0), refused="intermediate_size"),
    case("vocabulary of 0", config(vocab_size=0), refused="vocab_size"),
    case("context of 0", config(max_position_embeddings=0), refused="max_position_embeddings"),
    case("context is text", config(max_position_embeddings="32k"),
         refused="max_position_embeddings"),
    case("hidden size is text", config(hidden_size="sixteen"), refused="hidden_size"),
    case("vocabulary is a list", config(vocab_size=[12]), refused="vocab_size"),
    case("1.5 layers", config(num_hidden_layers=1.5), refused="num_hidden_layers"),
    case("layers: true", config(num_hidden_layers=True), refused="num_hidden_layers"),
    case("heads that do not divide", config(num_attention_heads=3, head_dim=None),
         refused="num_attention_heads"),
    case("no heads", config(num_attention_heads=0), refused="num_attention_heads"),
    case("heads of keys that do not divide", config(num_key_value_heads=3),
         refused="num_key_value_heads"),
    # config.json
    case("model_type is a list", config(model_type=["llama"]), refused="model_type"),
    case("model_type is an object", config(model_type={"a": 1}), refused="model_type"),
    case("no model_type", without("config.json", "model_type"), refused="model_type"),
    case("model_type unheard of", config(model_type="unheard-of"), refused="unheard-of"),
    case("model_type is a path", config(model_type="../../etc"), refused="../../etc"),
    case("dtype that does not exist", config(dtype="float99"), refused="float99"),
    case("dtype is a number", config(dtype=3), refused="dtype"),
    case("activation unheard of", config(hidden_act="unheard-of"), refused="unheard-of"),
    case("rotation unheard of", config(rope_parameters={"rope_type": "no-such"}),
         refused="no-such"),
    case("config.json is empty", holding("config.json", b""), refused="config.json"),
    case("config.json is cut", cut("config.json", 0.5), refused="config.json"),
    case("config.json is a list", holding("config.json", b"[]"), refused="config.json"),
    case("config.json is not UTF-8", holding("config.json", b'{"a": "\xff"}'),
         refused="config.json"),
    case("config.json nests 100,000 deep", holding("config.json", b"[" * 100_000),
         refused="config.json"),
    case("config.json is missing", without("config.json"), refused="config.json"),
    case("config.json is a folder", folder_named("config.json"), refused="config.json"),
    case("config.json is a link that leads nowhere", linked("config.json", "nowhere"),
         refused="config.json"),
    case("generation_config.json is broken", holding("generation_config.json", b"{"),
         refused="generation_config.json"),
    # quantised, other kinds
    case("quantised by bitsandbytes", config(**{Q: {"quant_method": "bitsandbytes",
         "load_in_4bit": True}}), refused="quantised"),
    case("quantised by GPTQ", config(**{Q: {"quant_method": "gptq", "bits": 4}}),
         refused="quantised"),
    case("quantised in a way unheard of", config(**{Q: {"quant_method": "unheard-of"}})),
    case("the same, to be trained", config(**{Q: {"quant_method": "unheard-of"}}), run=True,
         refused="quantised"),
    case("quantization_config is text", config(**{Q: "4bit"}), refused=Q),
    Case("an encoder", place(_encoder), "causal"),
    Case("a model of images", place(_other_kind("vit")), "causal"),
    # code and pickles
    case("brings code", custom, config(model_type="own"), refused="never runs a model's code"),
    case("brings code for a known kind", custom),
    case("tokenizer that brings code",
         in_json("tokenizer_config.json", auto_map={"AutoTokenizer": ["own.T", None]},
                 tokenizer_class="OwnTokenizer"), refused="never runs a model's code"),
    case("pickle alone", pickled, refused="convert"),
    case("GGUF alone", without("model.safetensors"), holding("model.gguf", b"GGUF"),
         refused="gguf"),
    # safetensors
    case("no weights", without("model.safetensors"), refused="no safetensors"),
    case("weights are empty", holding("model.safetensors", b""), refused="broken"),
    case("weights are cut", cut("model.safetensors", 0.7), refused="broken"),
    case("header of 2^60 bytes", header(b"{}", 1 << 60), refused="broken"),
    case("header is no JSON", header(b"{nonsense"), refused="broken"),
    case("header with offsets outside", header(json.dumps({"lm_head.weight": {
         "dtype": "F32", "shape": [12, 16], "data_offsets": [0, 1 << 40]}}).encode()),
         refused="broken"),
    case("a weight is missing", weights(lambda x: x.__delitem__("lm_head.weight")),
         refused="lm_head.weight"),
    case("a weight too many", _set("stranger", torch.zeros(3)), flagged="does not use"),
    case("a weight of another shape", _set("lm_head.weight", torch.zeros(12, 15)),
         refused="another shape"),
    case("a weight is not a number", fill(float("nan")), refused="not a number"),
    case("a weight is infinite", fill(float("inf")), refused="infinite"),
    case("a link that leads nowhere in place of the weights",
         linked("model.safetensors", "nowhere"), refused="model.safetensors"),
    case("index that leaves the folder", index(**{"lm_head.weight": "../outside.safetensors"}),
         refused="leaves the folder"),
    case("index with an absolute path", index(**{"lm_head.weight": "/etc/passwd"}),
         refused="leaves the folder"),
    case("index whose part is missing", index(**{"lm_head.weight": "none.safetensors"}),
         refused="none.safetensors"),
    case("index as it should be", index()),
    case("index is no JSON", index(), holding("model.safetensors.index.json", b"{"),
         refused="model.safetensors.index.json"),
    case("index without a map", index(), holding("model.safetensors.index.json", b"{}"),
         refused="model.safetensors.index.json"),
    # tokenizer
    case("no tokenizer", without("tokenizer.json"), refused="tokenizer"),
    case("tokenizer is empty", holding("tokenizer.json", b""), refused="tokenizer"),
    case("tokenizer is cut", cut("tokenizer.json", 0.5), refused="tokenizer"),
    case("no end token", words=lambda: tiny.tokenizer(eos=False), eos=None,
         refused="end-of-sequence"),
    case("end token outside the vocabulary", without("generation_config.json"),
         config(eos_token_id=10**6)),
    # chat templates
    case("template with endless loops", words=template(ENDLESS), refused="chat template"),
    case("template that fills the memory", words=template("{{ 'a' * 10**12 }}"),
         refused="chat template"),
    case("template that is no template", words=template("{% if %}"), refused="chat template"),
    case("template that divides by zero", words=template("{{ 1 // 0 }}"),
         refused="chat template"),
    case("template that adds text and number", words=template("{{ 'a' + 1 }}"),
         refused="chat template"),
    case("template that recurses",
         words=template("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
         refused="chat template"),
    case("template that refuses", words=template("{{ raise_exception('No.') }}"),
         refused="chat template"),
    case("template that reaches for Python",
         words=template("{{ ''.__class__.__mro__[1].__subclasses__() }}"),
         refused="chat template"),
    case("template that ignores the prompt", words=template("<unk>ab"), flagged="template"),
    case("template that shows the prompt", words=template(USER)),
    # places
    Case("no such folder", place(lambda f: f / "none"), "no such folder"),
    Case("an empty folder", place(_empty), "config.json"),
    Case("a file", place(_file), "no such folder"),
    Case("links in a circle", place(_loop), "circle"),
    Case("a link that leads nowhere", place(_dangling), "leads nowhere"),
    Case("a name too long", place(lambda f: "./" + "m" * 300), "too long"),
    Case("a hub id that was not downloaded", place(lambda f: "nobody/nothing"), "--download"),
    Case("adapters of a base that is not there", adapters("/nowhere/at/all"), "/nowhere/at/all"),
    Case("adapters of themselves", adapters("SELF"), "adapters"),
    case("fewer tokens than the tokenizer has", vocab_size=1, eos=0, refused="knows 1"),
)  # fmt: skip
