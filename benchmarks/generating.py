"""Models to draw from, and the ways of drawing that benchmarks/generate.py compares.

Every way takes the same prompts, all of one length, so that none needs padding, and draws at
temperature 1 from the whole vocabulary. It returns the number of tokens that belong to responses,
end token included; what a way goes on to compute for a finished row does not count.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedTokenizerFast

from srlm.data import prompt_id
from srlm.demo.base import cached_base
from srlm.demo.corpus import named_start, prompts
from srlm.policies.hf import CausalLM
from srlm.policies.load import load
from srlm.types import Prompt, Samples

Way = Callable[[int], int]
"""seed -> response tokens drawn."""


@dataclass(frozen=True)
class Shape:
    """A Llama-like model of random weights: its size, prompt length and response length.

    Of ``vocabulary`` nearly even tokens one ends the response, so that nearly all responses are
    cut at ``new_tokens`` and all ways draw equally many.
    """

    name: str
    hidden: int
    inner: int
    layers: int
    heads: int
    vocabulary: int
    prompt_tokens: int
    new_tokens: dict[int, int]
    """Of each batch size."""


SHAPES = (
    Shape("3 M", 192, 512, 6, 8, 2048, 8, {64: 16, 256: 16, 1024: 8}),
    Shape("100 M", 768, 2048, 12, 12, 16384, 2, {64: 8, 256: 3, 1024: 3}),
)


@dataclass(frozen=True)
class Task:
    """A policy, the same model as Hugging Face makes it, and what they are asked to draw from."""

    name: str
    policy: CausalLM
    model: Any
    prompts: list[Prompt]
    new_tokens: int
    draws: int = 1
    """Of each prompt."""

    @property
    def rows(self) -> int:
        """Responses drawn."""
        return len(self.prompts) * self.draws

    @property
    def prompt_PL(self) -> torch.Tensor:
        """The prompts' tokens, [P, L]."""
        return torch.tensor([self.policy.encode(x) for x in self.prompts])


def demo_task(rows: int, draws: int) -> Task:
    """The demo's good base: 0.1 M trained parameters, responses of 14 tokens on average."""
    folder = cached_base(named_start("good"), 0)
    policy = load(folder)
    assert isinstance(policy, CausalLM)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    asked = [Prompt(prompt_id(text), text) for text in prompts(rows // draws, 7)]
    return Task("0.1 M", policy, model, asked, 16, draws)


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


def random_task(shape: Shape, policy: CausalLM, model: Any, batch: int) -> Task:
    """Prompts of random words, a draw each: after one token, draws would share nothing."""
    word_BL = np.random.default_rng(0).integers(
        0, shape.vocabulary - 2, (batch, shape.prompt_tokens)
    )
    texts = [" ".join(f"w{i}" for i in row) for row in word_BL]
    asked = [Prompt(prompt_id(text), text) for text in texts]
    return Task(shape.name, policy, model, asked, shape.new_tokens[batch])


# ---- ways of drawing


def srlm(task: Task) -> Way:
    """``CausalLM.sample``: tokens, log-probabilities and texts."""
    return lambda seed: tokens_of(draw(task, seed))


def draw(task: Task, seed: int) -> Samples:
    """The task's draws of each prompt."""
    return task.policy.sample(task.prompts, task.draws, seed=seed, max_tokens=task.new_tokens)


def tokens_of(samples: Samples) -> int:
    """How many tokens were drawn."""
    return sum(map(len, samples.tokens_R))


def hugging_face(task: Task, *, logp: bool, cache: str) -> Way:
    """``generate``; with ``logp`` also the scores and ``compute_transition_scores`` of them."""
    prompt_PL, model = task.prompt_PL, task.model
    mask_PL = torch.ones_like(prompt_PL)
    more: dict[str, Any] = {"cache_implementation": cache} if cache != "dynamic" else {}
    if logp:
        more |= {"output_logits": True, "return_dict_in_generate": True}

    @torch.inference_mode()
    def way(seed: int) -> int:
        torch.manual_seed(seed)
        out = model.generate(
            prompt_PL,
            attention_mask=mask_PL,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=task.new_tokens,
            num_return_sequences=task.draws,
            **more,
        )
        tokens_BL = out.sequences if logp else out
        if logp:
            model.compute_transition_scores(tokens_BL, out.logits, normalize_logits=True)
        return kept(task, tokens_BL[:, prompt_PL.shape[1] :])

    return way


def loop(task: Task) -> Way:
    """The same model called in a loop with a dynamic cache, as one would write it by hand.

    Prompts are run once, their cache repeated for their draws.
    """
    prompt_PL, model = task.prompt_PL, task.model
    ends = torch.tensor(sorted(task.policy.ends))

    @torch.inference_mode()
    def way(seed: int) -> int:
        torch.manual_seed(seed)
        cache = DynamicCache(config=model.config)
        step_BL = prompt_PL
        finished_B = torch.zeros(task.rows, dtype=torch.bool)
        drawn, logps = [], []
        for _ in range(task.new_tokens):
            out = model(input_ids=step_BL, past_key_values=cache, use_cache=True, logits_to_keep=1)
            logp_BV = F.log_softmax(out.logits[:, -1], dim=-1)
            if not drawn and task.draws > 1:
                cache.batch_repeat_interleave(task.draws)
                logp_BV = logp_BV.repeat_interleave(task.draws, dim=0)
            step_BL = torch.multinomial(logp_BV.exp(), 1)
            drawn.append(step_BL)
            logps.append(logp_BV.gather(-1, step_BL))
            finished_B |= torch.isin(step_BL[:, 0], ends)
            if bool(finished_B.all()):
                break
        torch.cat(logps, dim=1)
        return kept(task, torch.cat(drawn, dim=1))

    return way


def kept(task: Task, token_BT: torch.Tensor) -> int:
    """Tokens up to each row's first end token, that one included."""
    end_BT = torch.isin(token_BT, torch.tensor(sorted(task.policy.ends)))
    before_BT = end_BT.long().cumsum(1) - end_BT.long()
    return int((before_BT == 0).sum())


WAYS: dict[str, Callable[[Task], Way]] = {
    "srlm": srlm,
    "generate": lambda task: hugging_face(task, logp=True, cache="dynamic"),
    "generate, static cache": lambda task: hugging_face(task, logp=True, cache="static"),
    "generate, no log-probabilities": lambda task: hugging_face(task, logp=False, cache="dynamic"),
    "loop": loop,
}
"""All give log-probabilities but the one that says so."""


# ---- exactness


@torch.inference_mode()
def gap(task: Task, seed: int, rows: int = 256) -> dict[str, float]:
    """Log-probabilities kept while drawing against one pass over whole sequences, without cache.

    The greatest difference of a token's, in nats, and of a response's sum.
    """
    samples = draw(task, seed).take(np.arange(min(rows, task.rows)))
    worst, worst_sum = 0.0, 0.0
    for r, y in enumerate(samples.tokens_R):
        x = task.policy.encode(task.prompts[samples.prompt_R[r]])
        logits_LV = task.model(torch.tensor([[*x, *y]]), use_cache=False).logits[0]
        logp_TV = F.log_softmax(logits_LV[len(x) - 1 : -1].double(), dim=-1)
        logp_T = logp_TV.gather(-1, torch.tensor(y)[:, None])[:, 0].numpy()
        found_T = np.array(samples.token_logp_R[r])
        worst = max(worst, float(np.abs(logp_T - found_T).max()))
        worst_sum = max(worst_sum, float(abs(logp_T.sum() - found_T.sum())))
    return {"token": worst, "response": worst_sum}
