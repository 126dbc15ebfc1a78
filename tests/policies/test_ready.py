"""Folders that people have: each is loaded, or refused by name with the remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from srlm.errors import UserError
from srlm.policies import devices
from srlm.policies.hf import CausalLM
from srlm.policies.load import load
from tests import tiny
from tests.rewards import scripted

X = tiny.texts(4)


def changed(file: Path, **values: Any) -> None:
    """Set values in a JSON file."""
    before = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(before | values))


def adapters(folder: Path, base: Path) -> CausalLM:
    """Adapters in a folder of their own; the base with them in place."""
    from peft import LoraConfig, get_peft_model

    policy = load(base, device="cpu")
    assert isinstance(policy, CausalLM)
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    wrapped = get_peft_model(policy.model, config)
    with torch.no_grad():
        for name, p in wrapped.named_parameters():
            if "lora_B" in name:
                p.fill_(0.1)
    wrapped.peft_config["default"].base_model_name_or_path = str(base)
    wrapped.save_pretrained(folder)
    return policy


def test_settings_of_generation_that_cannot_be_saved_are_mended(tmp_path: Path) -> None:
    """A temperature without sampling, as many folders have it."""
    folder = tiny.saved(tmp_path / "base")
    changed(folder / "generation_config.json", temperature=0.6, top_p=0.9, eos_token_id=tiny.EOS)
    policy = load(folder, device="cpu", trained=True)
    policy.save(tmp_path / "kept")
    load(tmp_path / "kept", device="cpu", trained=True)


def test_adapters_are_merged_onto_their_base(tmp_path: Path) -> None:
    with_them = adapters(tmp_path / "adapters", tiny.saved(tmp_path / "base"))
    policy = load(tmp_path / "adapters", device="cpu", trained=True)
    plain = load(tmp_path / "base", device="cpu")
    one, other, before = (p.greedy(X, max_tokens=4) for p in (policy, with_them, plain))
    np.testing.assert_allclose(one.logp_R, other.logp_R, atol=1e-4)
    assert np.abs(one.logp_R - before.logp_R).max() > 1e-3
    assert isinstance(policy, CausalLM)
    assert len(policy.parameters()) == len(tiny.policy().parameters())
    policy.save(tmp_path / "kept")
    assert not (tmp_path / "kept" / "adapter_config.json").exists()


def test_adapters_without_their_base_name_it(tmp_path: Path) -> None:
    adapters(tmp_path / "adapters", tiny.saved(tmp_path / "base"))
    changed(
        tmp_path / "adapters" / "adapter_config.json", base_model_name_or_path="/nowhere/at/all"
    )
    with pytest.raises(UserError, match=r"adapters.*/nowhere/at/all"):
        load(tmp_path / "adapters", device="cpu")


def test_stray_adapters_beside_a_whole_model_are_refused(tmp_path: Path) -> None:
    folder = tiny.saved(tmp_path / "base")
    adapters(tmp_path / "adapters", folder)
    for file in (tmp_path / "adapters").glob("adapter*"):
        (folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"adapter_config.json beside it.*remove"):
        load(folder, device="cpu")


def test_sizes_are_compared_with_the_headers_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.saved(tmp_path / "base")
    changed(folder / "config.json", hidden_size=1 << 14, num_attention_heads=1 << 11)
    with pytest.raises(UserError, match="hidden_size is 16,384"):
        load(folder, device="cpu")
    changed(folder / "config.json", hidden_size=32, num_attention_heads=2)
    with pytest.raises(UserError, match="in another shape"):
        load(folder, device="cpu")
    monkeypatch.setattr(devices, "memory", lambda _: 1000)
    with pytest.raises(UserError, match=r"weights take .* GB.*bfloat16"):
        load(tiny.saved(tmp_path / "other"), device="cpu")


def test_quantised_weights_are_not_trained(tmp_path: Path) -> None:
    folder = tiny.saved(tmp_path / "base")
    changed(folder / "config.json", quantization_config={"quant_method": "unheard-of"})
    load(folder, device="cpu")
    with pytest.raises(UserError, match="quantised weights cannot be trained"):
        load(folder, device="cpu", trained=True)


def test_float16_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    folder = tiny.saved(tmp_path / "base")
    load(folder, device="cpu", dtype="float16")
    with pytest.raises(UserError, match="float16"):
        load(folder, device="cpu", dtype="float16", trained=True)


def test_tokens_beyond_the_embedding_name_the_prompt() -> None:
    words = tiny.tokenizer()
    words.add_tokens(["zz"])
    policy = CausalLM(tiny.network(), words)
    fine, beyond = tiny.prompts(["ab", "azz"])
    policy.encode(fine)
    with pytest.raises(UserError, match=r"line 2: token 12 .* knows 12"):
        policy.encode(beyond)


# ---- chat


def test_any_of_several_end_tokens_ends_a_response() -> None:
    policy = CausalLM(tiny.network(eos=[tiny.EOS, tiny.END]), tiny.tokenizer())
    assert policy.ends == {tiny.EOS, tiny.END}
    made = policy.sample(tiny.texts(8), 16, seed=0, max_tokens=12)
    lasts = {y[-1] for y, done in zip(made.tokens_R, made.finished_R, strict=True) if done}
    assert lasts == policy.ends
    assert all(policy.ends.isdisjoint(y[:-1]) for y in made.tokens_R)


def test_what_the_template_puts_after_a_turn_ends_it() -> None:
    """Though the configuration names another end token."""
    policy = scripted.bytes_model()
    end = policy.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert policy.ends == {policy.model.config.eos_token_id, end}
    assert end not in scripted.bytes_model(chat=False).ends


def test_system_prompt_and_template_arguments() -> None:
    template = (
        "{% for m in messages %}{{ '<unk>' if m['role'] == 'system' else '<pad>' }}"
        "{{ m['content'] }}{% endfor %}{% if deep %}{{ 'h' * deep }}{% endif %}"
    )
    words = tiny.tokenizer(template=template)
    text, messages = tiny.prompts(["ab", [{"role": "user", "content": "ab"}]])
    policy = CausalLM(tiny.network(), words, system="c", chat_args={"deep": 2})
    a, b, c, h = (words(x)["input_ids"][0] for x in "abch")
    assert policy.encode(text) == [tiny.UNKNOWN, c, tiny.PAD, a, b, h, h]
    assert policy.encode(messages) == [tiny.PAD, a, b, h, h]
    assert policy.copy().encode(text) == policy.encode(text)
    with pytest.raises(UserError, match="--system"):
        CausalLM(tiny.network(), tiny.tokenizer(), system="c")
