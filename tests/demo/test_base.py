from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from srlm.demo import base, corpus, network
from srlm.errors import UserError

GOOD = corpus.STARTS["good"]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "THREADS", 1)  # the tests of other processes have the other cores


def few(steps: int, batch: int = 16) -> network.Recipe:
    return dataclasses.replace(network.RECIPE, steps=steps, batch=batch)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_tokenizer_gives_the_text_back_and_adds_nothing() -> None:
    tokenizer = network.character_tokenizer()
    for text in ("247+158=", "15,10,04=405", "247+158=15,10,04=405?", "yn"):
        ids = tokenizer(text)["input_ids"]
        assert len(ids) == len(text)
        assert not {tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id} & {*ids}
        assert tokenizer.decode(ids) == text
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == "yn"
    assert tokenizer("a")["input_ids"] == [tokenizer.unk_token_id]


def test_labels_are_the_response_and_its_end() -> None:
    tokenizer = network.character_tokenizer()
    texts = [corpus.Document("247+158=", "?"), *GOOD.documents(20, seed=0)]
    ids_RT, labels_RT = network.encode(texts, tokenizer)
    for text, ids, labels in zip(texts, ids_RT.tolist(), labels_RT.tolist(), strict=True):
        want = tokenizer(text.prompt + text.response)["input_ids"] + [tokenizer.eos_token_id]
        assert ids == want + [tokenizer.pad_token_id] * (len(ids) - len(want))
        spoken = [label for label in labels if label >= 0]
        assert spoken == want[len(text.prompt) :]
        assert labels.index(spoken[0]) == len(text.prompt)


@pytest.mark.parametrize("arch", network.ARCHITECTURES)
def test_every_architecture_trains_saves_and_loads(arch: str, tmp_path: Path) -> None:
    base.build_base(GOOD, 0, tmp_path / "base", arch=arch, recipe=few(2))
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert model.config.model_type == arch
    assert 5e4 < sum(weight.numel() for weight in model.parameters()) < 1e6
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    batch = tokenizer(["247+158=", "999+100="], return_tensors="pt")
    assert model(**batch).logits.shape == (2, 8, len(tokenizer))


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    base.build_base(GOOD, 0, tmp_path / "a", recipe=few(5))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    torch.manual_seed(4)
    base.build_base(GOOD, 0, tmp_path / "b", recipe=few(5))
    base.build_base(GOOD, 1, tmp_path / "c", recipe=few(5))
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def test_training_learns_and_reports_every_step(tmp_path: Path) -> None:
    seen: list[tuple[int, int, float]] = []
    loss = base.build_base(
        GOOD, 0, tmp_path / "a", lambda step, of, now: seen.append((step, of, now)), recipe=few(16)
    )
    assert [(step, of) for step, of, _ in seen] == [(step + 1, 16) for step in range(16)]
    assert loss < 0.75 * seen[0][2]


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="exists already"):
        base.build_base(GOOD, 0, tmp_path / "mine", recipe=few(1))


def test_an_unknown_architecture_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'rnn'"):
        base.build_base(GOOD, 0, tmp_path / "a", arch="rnn", recipe=few(1))
    assert not list(tmp_path.iterdir())


def test_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SRLM_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert base.cache_folder() == tmp_path / ".cache" / "srlm"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert base.cache_folder() == tmp_path / "xdg" / "srlm"
    monkeypatch.setenv("SRLM_CACHE", str(tmp_path / "own"))
    assert base.cache_folder() == tmp_path / "own"


def test_a_cached_base_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRLM_CACHE", str(tmp_path))
    first = base.cached_base(GOOD, 0, recipe=few(1))
    made = (first / "model.safetensors").stat().st_mtime_ns
    assert base.cached_base(GOOD, 0, recipe=few(1)) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == made
    assert list(first.parent.iterdir()) == [first]


def test_the_one_who_comes_second_takes_the_base_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRLM_CACHE", str(tmp_path))
    first = base.cached_base(GOOD, 0, recipe=few(1))
    first.rename(tmp_path / "aside")

    def rival(step: int, of: int, loss: float) -> None:
        (tmp_path / "aside").rename(first)

    assert base.cached_base(GOOD, 0, rival, recipe=few(1)) == first
    assert list(first.parent.iterdir()) == [first]


def test_every_setting_has_its_own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {
        base.base_key(GOOD, 0, "llama", few(5)),
        base.base_key(GOOD, 1, "llama", few(5)),
        base.base_key(GOOD, 0, "gpt2", few(5)),
        base.base_key(GOOD, 0, "llama", few(6)),
        base.base_key(dataclasses.replace(GOOD, slip=0.2), 0, "llama", few(5)),
    }
    monkeypatch.setattr(base, "CORPUS_VERSION", corpus.CORPUS_VERSION + 1)
    keys.add(base.base_key(GOOD, 0, "llama", few(5)))
    assert len(keys) == 6
