"""A round as one would write it in an afternoon, after the equations of [SR] (1-4).

``generate``, a scoring pass, a frozen copy as reference, the square loss on the pairs of two
draws, a Dataset and a DataLoader, batches padded to their longest row.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from srlm.types import Prompt

from . import drawing
from .side import Round, Setting

Example = dict[str, Any]


class PairsOfDraws(Dataset[Example]):
    """Draws 0 and 1, 2 and 3, ... of each prompt, with their rewards."""

    def __init__(self, ids: list[list[int]], drawn: drawing.Drawn, reward_R: list[float]) -> None:
        self.ids, self.drawn, self.reward_R = ids, drawn, reward_R

    def __len__(self) -> int:
        return len(self.drawn.tokens_R) // 2

    def __getitem__(self, i: int) -> Example:
        a, b = 2 * i, 2 * i + 1
        return {
            "prompt": self.ids[self.drawn.prompt_R[a]],
            "first": self.drawn.tokens_R[a],
            "second": self.drawn.tokens_R[b],
            "rewards": (self.reward_R[a], self.reward_R[b]),
        }


def collate(examples: list[Example], pad: int) -> dict[str, torch.Tensor]:
    """The first responses of all pairs, then the second ones."""
    prompts = [e["prompt"] for e in examples]
    tokens = [e["first"] for e in examples] + [e["second"] for e in examples]
    token_RL, mask_RL, response_RL = drawing.padded(prompts + prompts, tokens, pad)
    return {
        "tokens": token_RL,
        "mask": mask_RL,
        "response": response_RL,
        "rewards": torch.tensor([e["rewards"] for e in examples]).T,
    }


def square(model: Any, reference: Any, batch: dict[str, torch.Tensor], beta: float) -> torch.Tensor:
    """[beta (log-ratio of y - log-ratio of y') - (r - r')]^2, mean over the pairs."""
    rows = batch["tokens"], batch["mask"], batch["response"]
    logp_R = drawing.log_prob(model, *rows)
    with torch.no_grad():
        reference_R = drawing.log_prob(reference, *rows)
    first_G, second_G = (logp_R - reference_R).chunk(2)
    reward_G, other_G = batch["rewards"]
    return ((beta * (first_G - second_G) - (reward_G - other_G)) ** 2).mean()


def one(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], setting: Setting, seed: int
) -> Round:
    """Draw, score, train against the frozen copy."""
    done = Round()
    texts = [x.content for x in prompts]
    with done.stage("draw"):
        drawn = drawing.generated(model, tokenizer, texts, setting, seed, logp=False)
    with done.stage("score"):
        reward_R = drawing.scored(model, tokenizer, texts, drawn, setting.batch_rows)
        data = PairsOfDraws(tokenizer(texts)["input_ids"], drawn, reward_R)
    done.tokens, done.pairs = drawn.tokens, len(data)
    per_step = setting.pairs_per_step(len(data), len(prompts))
    with done.stage("update"):
        done.steps = train(model, tokenizer, data, setting, per_step)
    return done


def train(model: Any, tokenizer: Any, data: PairsOfDraws, setting: Setting, per_step: int) -> int:
    """AdamW with warm-up and decay; optimiser steps taken."""
    reference = copy.deepcopy(model).eval()
    loader = DataLoader(
        data,
        batch_size=per_step,
        shuffle=True,
        collate_fn=partial(collate, pad=tokenizer.pad_token_id),
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=setting.lr, betas=(0.9, 0.99), weight_decay=0.0
    )
    steps = setting.epochs * len(loader)
    rise = max(1, round(0.1 * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / rise, (steps - s) / max(1, steps - rise + 1))
    )
    model.train()
    for _ in range(setting.epochs):
        for batch in loader:
            loss = square(model, reference, batch, setting.beta)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()
    return steps
