"""Sampling with log-probabilities: tokens a second beside Hugging Face ``generate``.

    python -m benchmarks.generate [--threads 1 2] [--repeats 5] [--quick]

Models of 0.1 M (the demo's good base), 3 M and 100 M parameters (random weights), batches of 64,
256 and 1,024 responses, float32: one sample per prompt, and with the demo's base also four, where
samples share what they have in common. All prompts of a case have one length, so that none needs
padding; every way samples at temperature 1 from the whole vocabulary, and a finished row's later
tokens do not count. Beside ours: ``generate`` with log-probabilities, without them, and a loop that
calls the model with its cache and runs the prompts once. The ways take turns; a figure is the
median of the ratios of tokens a second within a turn, with their range. Exactness: ours against a
full forward pass.

Cost: about ten minutes on an idle core; ``--quick`` is the smallest batch, two repeats, one minute.
Results: benchmarks/results/generate.json.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedTokenizerFast

from benchmarks.side_by_side import REPEATS, interleaved, ratio, spread, write
from srlm.data import prompt_id
from srlm.demo.base import cached_base
from srlm.demo.corpus import STARTS, prompts
from srlm.policies.hf import CausalLM
from srlm.policies.load import load
from srlm.types import Prompt, Samples

Way = Callable[[int], int]
"""seed -> response tokens sampled."""


@dataclass(frozen=True)
class Shape:
    """A Llama-like model of random weights: its size, prompt length and response length.

    Of ``vocabulary`` nearly even tokens one ends the response, so that nearly all responses are
    cut at ``new_tokens`` and all ways sample equally many.
    """

    name: str
    hidden: int
    inner: int
    layers: int
    heads: int
    vocabulary: int
    prompt_tokens: int
    new_tokens: dict[int, int]
    """Of each batch size that is measured."""


SHAPES = (
    Shape("3 M", 192, 512, 6, 8, 2048, 8, {64: 16, 256: 16, 1024: 8}),
    Shape("100 M", 768, 2048, 12, 12, 16384, 2, {64: 8, 256: 3}),
)
BATCHES = (64, 256, 1024)


@dataclass(frozen=True)
class Task:
    """A policy, the same model as Hugging Face makes it, and what they are asked to sample from."""

    name: str
    policy: CausalLM
    model: Any
    prompts: list[Prompt]
    new_tokens: int
    per_prompt: int = 1

    @property
    def rows(self) -> int:
        """Responses sampled."""
        return len(self.prompts) * self.per_prompt

    @property
    def prompt_PL(self) -> torch.Tensor:
        """The prompts' tokens, [P, L]."""
        return torch.tensor([self.policy.encode(x) for x in self.prompts])

    def sample(self, seed: int) -> Samples:
        """Ours."""
        return self.policy.sample(
            self.prompts, self.per_prompt, seed=seed, max_tokens=self.new_tokens
        )

    def kept(self, token_BT: torch.Tensor) -> int:
        """Tokens up to each row's first end token, that one included."""
        end_BT = torch.isin(token_BT, torch.tensor(sorted(self.policy.ends)))
        before_BT = end_BT.long().cumsum(1) - end_BT.long()
        return int((before_BT == 0).sum())


def tasks(quick: bool) -> Iterator[Task]:
    """Every model at every batch size that was asked for."""
    folder = cached_base(STARTS["good"], 0)
    policy = load(folder, device="cpu", dtype="float32")
    assert isinstance(policy, CausalLM)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for per_prompt in (1, 4):
        for rows in BATCHES[:1] if quick else BATCHES:
            asked = [Prompt(prompt_id(x), x) for x in prompts(rows // per_prompt, 7)]
            yield Task("0.1 M", policy, model, asked, 16, per_prompt)
    for shape in SHAPES[:1] if quick else SHAPES:
        policy, model = random_policy(shape)
        for rows, new_tokens in list(shape.new_tokens.items())[: 1 if quick else None]:
            word_BL = np.random.default_rng(0).integers(
                0, shape.vocabulary - 2, (rows, shape.prompt_tokens)
            )
            texts = [" ".join(f"w{i}" for i in row) for row in word_BL]
            asked = [Prompt(prompt_id(text), text) for text in texts]
            yield Task(shape.name, policy, model, asked, new_tokens)


def random_policy(shape: Shape) -> tuple[CausalLM, Any]:
    """A policy of that shape and its model before, weights from seed 0, words w0, w1, ..."""
    words = ["<pad>", "<eos>", *(f"w{i}" for i in range(shape.vocabulary - 2))]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Fuse()
    config = AutoConfig.for_model(
        "llama",
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<pad>"
    )
    return CausalLM(copy.deepcopy(model), fast), model.eval()


# ---- ways of sampling


def srlm(task: Task) -> Way:
    """``CausalLM.sample``: tokens, log-probabilities and texts."""
    return lambda seed: sum(map(len, task.sample(seed).tokens_R))


def hugging_face(task: Task, *, logp: bool) -> Way:
    """``generate``; with ``logp`` also the scores and ``compute_transition_scores`` of them."""
    prompt_PL, model = task.prompt_PL, task.model
    more: dict[str, Any] = {"output_logits": True, "return_dict_in_generate": True} if logp else {}

    @torch.inference_mode()
    def way(seed: int) -> int:
        torch.manual_seed(seed)
        out = model.generate(
            prompt_PL,
            attention_mask=torch.ones_like(prompt_PL),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=task.new_tokens,
            num_return_sequences=task.per_prompt,
            **more,
        )
        tokens_BL = out.sequences if logp else out
        if logp:
            model.compute_transition_scores(tokens_BL, out.logits, normalize_logits=True)
        return task.kept(tokens_BL[:, prompt_PL.shape[1] :])

    return way


def loop(task: Task) -> Way:
    """The same model called in a loop, as one would write it by hand."""
    prompt_PL, model = task.prompt_PL, task.model
    ends = torch.tensor(sorted(task.policy.ends))

    @torch.inference_mode()
    def way(seed: int) -> int:
        torch.manual_seed(seed)
        cache = DynamicCache(config=model.config)
        step_BL = prompt_PL
        finished_B = torch.zeros(task.rows, dtype=torch.bool)
        sampled, logps = [], []
        for _ in range(task.new_tokens):
            out = model(input_ids=step_BL, past_key_values=cache, use_cache=True, logits_to_keep=1)
            logp_BV = F.log_softmax(out.logits[:, -1], dim=-1)
            if not sampled and task.per_prompt > 1:
                cache.batch_repeat_interleave(task.per_prompt)
                logp_BV = logp_BV.repeat_interleave(task.per_prompt, dim=0)
            step_BL = torch.multinomial(logp_BV.exp(), 1)
            sampled.append(step_BL)
            logps.append(logp_BV.gather(-1, step_BL))
            finished_B |= torch.isin(step_BL[:, 0], ends)
            if bool(finished_B.all()):
                break
        torch.cat(logps, dim=1)
        return task.kept(torch.cat(sampled, dim=1))

    return way


WAYS: dict[str, Callable[[Task], Way]] = {
    "srlm": srlm,
    "generate": lambda task: hugging_face(task, logp=True),
    "generate, no log-probabilities": lambda task: hugging_face(task, logp=False),
    "loop": loop,
}


def compared(task: Task, repeats: int) -> dict[str, Any]:
    """Tokens a second of each way, and ours over each other's."""
    counts: dict[str, list[int]] = {name: [] for name in WAYS}

    def case(name: str) -> Callable[[], None]:
        way = WAYS[name](task)
        return lambda: counts[name].append(way(len(counts[name])))

    seconds = interleaved({name: case(name) for name in WAYS}, repeats=repeats)
    rate = {
        name: [n / s for n, s in zip(counts[name][-repeats:], seconds[name], strict=True)]
        for name in WAYS
    }
    return {
        "model": task.name,
        "parameters": sum(p.numel() for p in task.model.parameters()),
        "batch": task.rows,
        "per_prompt": task.per_prompt,
        "threads": torch.get_num_threads(),
        "tokens_a_second": {name: spread(values) for name, values in rate.items()},
        "ours_over": {name: ratio(rate["srlm"], rate[name]) for name in WAYS if name != "srlm"},
    }


@torch.inference_mode()
def gap(task: Task, seed: int, rows: int = 256) -> float:
    """The greatest difference of a token's log-probability, kept while sampling, from one pass over
    the whole sequence without a cache, nats."""
    samples = task.sample(seed).take(np.arange(min(rows, task.rows)))
    worst = 0.0
    for r, y in enumerate(samples.tokens_R):
        x = task.policy.encode(task.prompts[samples.prompt_R[r]])
        logits_LV = task.model(torch.tensor([[*x, *y]]), use_cache=False).logits[0]
        logp_TV = F.log_softmax(logits_LV[len(x) - 1 : -1].double(), dim=-1)
        logp_T = logp_TV.gather(-1, torch.tensor(y)[:, None])[:, 0].numpy()
        worst = max(worst, float(np.abs(logp_T - np.array(samples.token_logp_R[r])).max()))
    return worst


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repeats", type=int, help=f"{REPEATS}; of --quick 2")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    cases, worst = [], 0.0
    for task in tasks(asked.quick):
        for threads in asked.threads:
            torch.set_num_threads(threads)
            cases.append(compared(task, asked.repeats or (2 if asked.quick else REPEATS)))
            over = cases[-1]["ours_over"]
            told = ", ".join(f"{x['value']:.2f} times {name}" for name, x in over.items())
            print(f"{task.name}, {task.rows} rows, {task.per_prompt} a prompt: {told}", flush=True)
        worst = max(worst, gap(task, seed=0))
    name = "generate_quick" if asked.quick else "generate"
    print(f"log-probabilities: {worst:.1e} nats at worst from a full pass")
    print(write(name, {"cases": cases, "worst_gap": worst}).name)


if __name__ == "__main__":
    main()
