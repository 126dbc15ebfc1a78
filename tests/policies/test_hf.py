"""CausalLM against its slow twin: draws, probabilities, prefix tree, on four families."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM, AutoTokenizer

from srlm.errors import UserError
from srlm.policies.base import uniforms
from srlm.policies.hf import CausalLM
from srlm.policies.load import fitting, load
from srlm.policies.tabular import rows
from tests import tiny
from tests.naive import decoding

H = 6
PROMPTS = tiny.texts(7)
CLOSE = 1e-5


@pytest.fixture(params=tiny.FAMILIES)
def policy(request: pytest.FixtureRequest) -> CausalLM:
    return tiny.policy(request.param)


def test_the_models_are_worth_testing_on(policy: CausalLM) -> None:
    logp = decoding.next_log_probs(policy, policy.encode(PROMPTS[0])).detach()
    assert logp.exp().max() > 0.15
    assert len({len(policy.encode(x)) for x in PROMPTS}) > 3


def test_draws_and_log_probabilities_are_those_of_the_slow_twin(policy: CausalLM) -> None:
    samples = policy.sample(PROMPTS, 5, seed=3, max_tokens=H)
    assert samples.prompt_R.tolist() == np.repeat(range(7), 5).tolist()
    assert samples.weight_R.tolist() == [1 / 5] * 35
    assert samples.finished_R.any()
    assert not samples.finished_R.all()
    for r, p in enumerate(samples.prompt_R):
        u_T = uniforms(3, PROMPTS[p].id, 5, H)[r % 5]
        assert samples.tokens_R[r] == decoding.sample(policy, PROMPTS[p], u_T)
        ended = samples.tokens_R[r][-1] in policy.ends
        assert samples.finished_R[r] == ended
        assert ended or len(samples.tokens_R[r]) == H
        slow_T = decoding.token_log_probs(policy, PROMPTS[p], samples.tokens_R[r]).detach()
        assert samples.token_logp_R[r] == pytest.approx(slow_T.tolist(), abs=CLOSE)
        assert samples.logp_R[r] == pytest.approx(float(slow_T.sum()), abs=1e-4)
        assert samples.text_R[r] == policy.text(samples.tokens_R[r])
    again = policy.log_prob(PROMPTS, samples.prompt_R, samples.tokens_R)
    np.testing.assert_allclose(again, samples.logp_R, atol=1e-4)


def test_draws_do_not_depend_on_batch_order_or_number(policy: CausalLM) -> None:
    samples = policy.sample(PROMPTS, 6, seed=1, max_tokens=H)
    for size in (1, 13):
        policy.budget.positions = size
        other = policy.sample(PROMPTS, 6, seed=1, max_tokens=H)
        assert other.tokens_R == samples.tokens_R
        np.testing.assert_allclose(other.logp_R, samples.logp_R, atol=1e-4)
    turned = policy.sample(PROMPTS[::-1], 6, seed=1, max_tokens=H)
    order = np.arange(42).reshape(7, 6)[::-1].ravel()
    assert turned.take(order).tokens_R == samples.tokens_R
    fewer = policy.sample(PROMPTS[2:3], 2, seed=1, max_tokens=H)
    assert fewer.tokens_R == samples.tokens_R[12:14]
    shorter = policy.sample(PROMPTS, 6, seed=1, max_tokens=H - 2)
    assert all(len(y) <= H - 2 for y in shorter.tokens_R)
    assert policy.sample(PROMPTS, 6, seed=2, max_tokens=H).tokens_R != samples.tokens_R


def test_draws_follow_the_distribution() -> None:
    policy = tiny.policy("llama")
    (prompt,) = tiny.prompts(["abc"])
    exact = decoding.outcomes(policy, prompt, 2)
    assert sum(exact.values()) == pytest.approx(1, abs=1e-6)
    N = 4000
    drawn = policy.sample([prompt], N, seed=0, max_tokens=2)
    names = sorted(exact, key=lambda y: -exact[y])
    seen = np.array([drawn.tokens_R.count(y) for y in names])
    expected = N * np.array([exact[y] for y in names])
    assert seen.sum() == N
    common = expected >= 5
    seen = np.append(seen[common], seen[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    assert len(seen) > 20
    assert chisquare(seen, expected * N / expected.sum()).pvalue > 1e-3


def test_greedy(policy: CausalLM) -> None:
    greedy = policy.greedy(PROMPTS, max_tokens=H)
    assert greedy.tokens_R == tuple(decoding.greedy(policy, x, H) for x in PROMPTS)
    for x, y in zip(PROMPTS, greedy.tokens_R, strict=True):
        tokens = torch.tensor([policy.encode(x)])
        out = policy.model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            max_new_tokens=H,
            pad_token_id=tiny.PAD,
        )
        assert tuple(out[0, tokens.shape[1] :].tolist()) == y
    np.testing.assert_allclose(
        policy.log_prob(PROMPTS, np.arange(7), greedy.tokens_R), greedy.logp_R, atol=1e-4
    )


def test_the_gradient_is_the_slow_twins(policy: CausalLM) -> None:
    samples = policy.sample(PROMPTS, 2, seed=5, max_tokens=H)
    weight_R = torch.from_numpy(np.random.default_rng(0).standard_normal(len(samples)))
    fast = policy.log_prob_grad(PROMPTS, samples.prompt_R, samples.tokens_R)
    fast_grads = torch.autograd.grad(weight_R @ fast, policy.parameters(), allow_unused=True)
    slow = torch.stack(
        [
            decoding.token_log_probs(policy, PROMPTS[p], y).sum()
            for p, y in zip(samples.prompt_R, samples.tokens_R, strict=True)
        ]
    )
    np.testing.assert_allclose(fast.detach(), slow.detach(), atol=1e-4)
    slow_grads = torch.autograd.grad(weight_R @ slow, policy.parameters(), allow_unused=True)
    assert len(fast_grads) > 5
    for a, b in zip(fast_grads, slow_grads, strict=True):
        assert a is not None
        assert b is not None
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("positions", [None, 5, 40, 120])
def test_tree(policy: CausalLM, positions: int | None) -> None:
    """Prefixes of unequal prompts and depths, grown in mixed batches and many times over, and with
    less room for keys and values than they take."""
    policy.budget.positions = positions
    tree = policy.tree(PROMPTS, max_tokens=H)
    assert tree.ends == policy.ends
    assert tree.max_tokens == H
    node_P, logp_PV = tree.roots()
    known = {int(n): (p, ()) for p, n in enumerate(node_P)}
    found = {int(n): logp for n, logp in zip(node_P, logp_PV, strict=True)}
    rng = np.random.default_rng(0)
    for _ in range(6):
        deep = [n for n, (_, y) in known.items() if len(y) < H - 1]
        node_B = rng.choice(deep, 7)
        token_B = rng.integers(tiny.END, len(tiny.WORDS), 7)
        child_B, logp_BV = tree.extend(node_B, token_B)
        for n, token, child, logp in zip(node_B, token_B, child_B, logp_BV, strict=True):
            p, y = known[int(n)]
            known[int(child)] = (p, (*y, int(token)))
            found[int(child)] = logp
    assert len(known) == 7 + 42
    assert max(len(y) for _, y in known.values()) >= 3
    for n, (p, y) in known.items():
        with torch.no_grad():
            slow = decoding.next_log_probs(policy, [*policy.encode(PROMPTS[p]), *y])
        torch.testing.assert_close(found[n].double(), slow, atol=CLOSE, rtol=0)


def test_a_window_of_attention_is_kept_to() -> None:
    """Mistral's window of 4 is shorter than prompt and response: far tokens must not count."""
    policy = tiny.policy("mistral")
    near, far = tiny.prompts(["abcdefgh", "hbcdefgh"])
    with torch.no_grad():
        narrow = [decoding.next_log_probs(policy, policy.encode(x)) for x in (near, far)]
        wide_policy = tiny.policy("mistral", sliding_window=None)
        wide = decoding.next_log_probs(wide_policy, policy.encode(near))
    assert (narrow[0] - narrow[1]).abs().max() < 1e-6  # two layers see 7 tokens
    assert (narrow[0] - wide).abs().max() > 1e-3


# ---- end tokens


def test_every_end_token_ends() -> None:
    policy = tiny.policy("llama", eos=[tiny.EOS, tiny.END])
    assert policy.ends == {tiny.EOS, tiny.END}
    samples = policy.sample(PROMPTS, 8, seed=0, max_tokens=H)
    last = {y[-1] for y, done in zip(samples.tokens_R, samples.finished_R, strict=True) if done}
    assert last == policy.ends
    for y in samples.tokens_R:
        assert not set(y[:-1]) & policy.ends
    for r, p in enumerate(samples.prompt_R[:16]):
        u_T = uniforms(0, PROMPTS[p].id, 8, H)[r % 8]
        assert samples.tokens_R[r] == decoding.sample(policy, PROMPTS[p], u_T)


def test_end_tokens_of_generation_config_and_tokenizer_both_count() -> None:
    network = tiny.network("qwen3", eos=None)
    network.generation_config.eos_token_id = [tiny.END]
    assert CausalLM(network, tiny.tokenizer()).ends == {tiny.END, tiny.EOS}
    assert CausalLM(network, tiny.tokenizer(eos=False)).ends == {tiny.END}


def test_end_tokens_outside_the_vocabulary_do_not_count() -> None:
    """A configuration's default may be a large model's, as GPT-2's 50256 is."""
    assert CausalLM(tiny.network("gpt2", eos=50256), tiny.tokenizer()).ends == {tiny.EOS}
    with pytest.raises(UserError, match="no end-of-sequence token"):
        CausalLM(tiny.network("gpt2", eos=50256), tiny.tokenizer(eos=False))


def test_no_end_token_is_refused() -> None:
    with pytest.raises(UserError, match=r"no end-of-sequence token.*eos_token"):
        CausalLM(tiny.network(eos=None), tiny.tokenizer(eos=False))


def test_truncation_is_told() -> None:
    policy = tiny.policy("llama")
    samples = policy.sample(PROMPTS, 16, seed=0, max_tokens=1)
    assert set(samples.length_R) == {1}
    assert samples.finished_R.tolist() == [y == (tiny.EOS,) for y in samples.tokens_R]
    assert samples.finished_R.any()
    assert not samples.finished_R.all()


def test_end_tokens_that_a_tokenizer_appends_are_taken_off_the_prompt() -> None:
    plain, appending = tiny.tokenizer(), tiny.tokenizer(appends=True)
    assert appending("ab")["input_ids"][-1] == tiny.EOS
    network = tiny.network()
    policies = [CausalLM(network, t) for t in (plain, appending)]
    (x,) = tiny.prompts(["ab"])
    assert policies[1].encode(x) == policies[0].encode(x) == plain("ab")["input_ids"]
    one, other = (p.sample([x], 4, seed=0, max_tokens=H) for p in policies)
    assert one.tokens_R == other.tokens_R


def test_no_pad_token_is_needed() -> None:
    with_pad, without = (CausalLM(tiny.network(), tiny.tokenizer(pad=p)) for p in (True, False))
    assert without.tokenizer.pad_token_id is None
    one, other = (p.sample(PROMPTS, 3, seed=0, max_tokens=H) for p in (with_pad, without))
    assert one.tokens_R == other.tokens_R
    assert (one.logp_R == other.logp_R).all()


# ---- prompts


def test_chat_template() -> None:
    network, words = tiny.network(), tiny.tokenizer(template=tiny.TEMPLATE)
    chatting = CausalLM(network, words)
    plain = CausalLM(network, words, chat=False)
    text, messages, long = tiny.prompts(
        [
            "ab",
            [{"role": "user", "content": "ab"}],
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        ]
    )
    a, b = words("ab")["input_ids"]
    U = tiny.UNKNOWN
    assert plain.encode(text) == [a, b]
    assert chatting.encode(text) == chatting.encode(messages) == [U, a, b, U]
    assert chatting.encode(long) == [U, a, U, b, U]
    with pytest.raises(UserError, match=r"line 2: chat messages.*--chat never"):
        plain.encode(messages)
    assert plain.copy().chat is False
    assert chatting.copy().chat is True


def test_messages_need_a_template() -> None:
    (messages,) = tiny.prompts([[{"role": "user", "content": "ab"}]])
    with pytest.raises(UserError, match=r"line 1: chat messages, but the tokenizer has no chat"):
        tiny.policy().encode(messages)


def test_what_a_template_refuses_is_named() -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    policy = CausalLM(tiny.network(), tiny.tokenizer(template=template))
    with pytest.raises(UserError, match=r"line 1: .*roles must alternate"):
        policy.encode(tiny.prompts([[{"role": "user", "content": "ab"}]])[0])


def test_vectors_are_refused() -> None:
    with pytest.raises(UserError, match="line 1: a vector"):
        tiny.policy().encode(tiny.vectors(1)[0])


def test_the_length_limit_is_lowered_to_what_fits() -> None:
    policy = tiny.policy()
    x = tiny.prompts(["a" * n for n in (3, 28, 29, 31, 32, 40)])
    assert fitting(policy, x[:2], 4) == (4, "")
    room, said = fitting(policy, x[:3], 4)
    assert room == 3
    assert "--max-tokens 4 is lowered to 3" in said
    assert fitting(policy, x[:4], 256)[0] == 1
    with pytest.raises(UserError, match="2 of 6 prompts") as caught:
        fitting(policy, x, 4)
    assert "\n" not in caught.value.problem
    assert fitting(tiny.tabular(), rows(3), 4) == (4, "")


def test_a_response_fills_the_context_to_the_last_token() -> None:
    policy, (x,) = tiny.policy("gpt2"), tiny.prompts(["a" * 28])
    assert policy.sample([x], 40, seed=0, max_tokens=4).length_R.max() == 4


# ---- numbers that are none


def test_probabilities_that_are_not_numbers_name_the_prompt() -> None:
    policy = tiny.policy()
    with torch.no_grad():
        policy.parameters()[0].fill_(torch.nan)
    with pytest.raises(UserError, match=r"not numbers for the prompt on line \d"):
        policy.sample(PROMPTS, 2, seed=0, max_tokens=H)
    with pytest.raises(UserError, match="not numbers"):
        policy.greedy(PROMPTS, max_tokens=H)


# ---- files


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any look-up of a host fails the test."""

    def asked(*arguments: object, **_: object) -> None:
        pytest.fail(f"the network was asked for {arguments[:2]}")

    monkeypatch.setattr(socket, "getaddrinfo", asked)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_saved_and_loaded_is_the_same_bit_for_bit(family: str, tmp_path: Path) -> None:
    tiny.saved(tmp_path / "base", family)
    policy = load(tmp_path / "base")
    assert isinstance(policy, CausalLM)
    samples = policy.sample(PROMPTS, 4, seed=0, max_tokens=H)
    rows = (PROMPTS, samples.prompt_R, samples.tokens_R)
    policy.save(tmp_path / "kept")
    back = load(tmp_path / "kept")
    again = back.sample(PROMPTS, 4, seed=0, max_tokens=H)
    assert again.tokens_R == samples.tokens_R
    assert again.logp_R.tolist() == samples.logp_R.tolist()
    assert back.log_prob(*rows).tolist() == policy.log_prob(*rows).tolist()
    assert load(tmp_path / "base").log_prob(*rows).tolist() == policy.log_prob(*rows).tolist()
    names = {p.name for p in (tmp_path / "kept").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= names
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "kept")
    words = AutoTokenizer.from_pretrained(tmp_path / "kept")
    assert words("abc")["input_ids"] == policy.encode(tiny.prompts(["abc"])[0])
    for one, other in zip(model.parameters(), policy.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_copy_is_independent() -> None:
    policy = tiny.policy()
    copy = policy.copy()
    before = policy.greedy(PROMPTS, max_tokens=H).logp_R
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.mul_(1.5)
    assert (policy.greedy(PROMPTS, max_tokens=H).logp_R == before).all()
    assert (copy.greedy(PROMPTS, max_tokens=H).logp_R != before).any()


def test_dropout_is_off_even_while_it_trains() -> None:
    policy = tiny.policy("gpt2")
    rows = (PROMPTS[:1], np.zeros(2, dtype=np.int64), [(5, 1), (6, 1)])
    one, other = (policy.log_prob_grad(*rows).detach() for _ in range(2))
    assert torch.equal(one, other)


Change = Callable[[Path], None]


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-400])


def _garbage(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 4000)


def _pickle(folder: Path) -> None:
    weights = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def _no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _part_missing(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors[sorted(tensors)[-1]]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _other_shape(folder: Path) -> None:
    config = (folder / "config.json").read_text().replace('"hidden_size": 16', '"hidden_size": 32')
    (folder / "config.json").write_text(config)


def _no_causal_model(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "nonsense"}')


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_cut, "broken safetensors"),
        (_garbage, "broken safetensors"),
        (_pickle, "pickle"),
        (_no_tokenizer, "no tokenizer"),
        (_no_json, "config.json"),
        (_part_missing, "1 weights are not in its safetensors.*"),
        (_other_shape, "weights are not in its safetensors, or in another shape"),
        (_no_causal_model, "nonsense"),
    ],
)
def test_broken_folders_are_named(tmp_path: Path, change: Change, named: str) -> None:
    folder = tiny.saved(tmp_path / "base")
    change(folder)
    with pytest.raises(UserError, match=named) as caught:
        load(folder)
    assert str(folder) in caught.value.problem
    assert caught.value.remedy


@pytest.mark.usefixtures("no_network")
def test_a_hub_id_is_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0" * 40
    repo = tmp_path / "models--someone--tiny"
    tiny.saved(repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    policy = load("someone/tiny")
    assert policy.greedy(PROMPTS, max_tokens=H).tokens_R == (
        tiny.policy().greedy(PROMPTS, max_tokens=H).tokens_R
    )


@pytest.mark.usefixtures("no_network")
def test_places_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        load(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        load(tmp_path / "none")
    with pytest.raises(UserError, match=r"taken as a hub id.*--download"):
        load("nobody/none-such")
    with pytest.raises(UserError, match=r"--device nonsense.*--device cpu"):
        load(tiny.saved(tmp_path / "base"), device="nonsense")


def test_every_outcome_is_counted_once() -> None:
    """The tree's leaves sum to one: what search takes for granted."""
    policy = tiny.policy("gpt2")
    (x,) = tiny.prompts(["ab"])
    exact = decoding.outcomes(policy, x, 3)
    node, logp = policy.tree([x], max_tokens=3).roots()
    assert len(node) == 1
    assert float(logp.double().exp().sum()) == pytest.approx(1, abs=1e-6)
    assert sum(exact.values()) == pytest.approx(1, abs=1e-6)
    rest = [t for t in range(len(tiny.WORDS)) if t not in policy.ends]
    assert len(exact) == sum(len(rest) ** n for n in (0, 1)) + len(rest) ** 2 * len(tiny.WORDS)
    rows = list(itertools.islice(exact, 0, None, 40))
    logp_R = policy.log_prob([x], np.zeros(len(rows), dtype=np.int64), rows)
    np.testing.assert_allclose(logp_R, np.log([exact[y] for y in rows]), atol=1e-4)


def test_a_rendered_conversation_is_not_wrapped_again() -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    words = tiny.tokenizer(template=template)
    policy = CausalLM(tiny.network(), words)
    messages = [{"role": "user", "content": "abc"}]
    text = words.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    wrapped, rendered, plain = (policy.encode(x) for x in tiny.prompts([messages, text, "abc"]))
    assert rendered == wrapped == plain


def test_a_turn_end_that_the_tokenizer_does_not_know_ends_nothing() -> None:
    words = tiny.tokenizer()
    words.chat_template = (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<|im_end|>{% endif %}"
        "{% endfor %}"
    )
    assert words("<|im_end|>", add_special_tokens=False)["input_ids"][0] == words.unk_token_id
    policy = CausalLM(tiny.network("llama"), words)
    assert words.unk_token_id not in policy.ends
    assert policy.ends == CausalLM(tiny.network("llama"), words, chat=False).ends
