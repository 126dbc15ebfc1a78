"""Drawing and scoring with Hugging Face's own means, as the sides beside ours use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .side import Setting


@dataclass(frozen=True, slots=True)
class Drawn:
    """Responses, ``draws`` of each prompt in a row."""

    prompt_R: list[int]
    tokens_R: list[list[int]]
    """Up to the end token, it included."""
    logp_R: list[float]
    """Empty where they are not known yet."""

    @property
    def tokens(self) -> int:
        return sum(map(len, self.tokens_R))


@torch.inference_mode()
def generated(
    model: Any, tokenizer: Any, texts: Sequence[str], setting: Setting, seed: int, *, logp: bool
) -> Drawn:
    """``generate`` at temperature 1 from the whole distribution, in batches.

    Args:
        logp: take the log-probabilities from the scores that ``generate`` hands out; else they
            are left to a pass of their own.
    """
    torch.manual_seed(seed)
    model.eval()
    prompt_R: list[int] = []
    tokens_R: list[list[int]] = []
    logp_R: list[float] = []
    step = max(1, setting.batch_rows // setting.draws)
    for first in range(0, len(texts), step):
        part = list(texts[first : first + step])
        batch = tokenizer(part, return_tensors="pt", padding=True, padding_side="left")
        out = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=setting.draws,
            max_new_tokens=setting.max_tokens,
            return_dict_in_generate=True,
            output_logits=logp,
        )
        new_RT = out.sequences[:, batch["input_ids"].shape[1] :]
        length_R = _lengths(new_RT, tokenizer.eos_token_id)
        if logp:
            logits_RTV = torch.stack(out.logits, dim=1).float()
            logp_RT = logits_RTV.log_softmax(-1).gather(-1, new_RT[..., None])[..., 0]
            inside_RT = torch.arange(new_RT.shape[1]) < length_R[:, None]
            logp_R += (logp_RT.double() * inside_RT).sum(1).tolist()
        for tokens, n in zip(new_RT.tolist(), length_R.tolist(), strict=True):
            tokens_R.append(tokens[:n])
        prompt_R += [first + i for i in range(len(part)) for _ in range(setting.draws)]
    return Drawn(prompt_R, tokens_R, logp_R)


def _lengths(new_RT: torch.Tensor, end: int) -> torch.Tensor:
    """Tokens to the first end token, it included; all of them where there is none."""
    ended_RT = (new_RT == end).int()
    first_R = ended_RT.argmax(1) + 1
    return torch.where(ended_RT.any(1), first_R, new_RT.shape[1])


def padded(
    prompts_R: Sequence[Sequence[int]], tokens_R: Sequence[Sequence[int]], pad: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Prompt and response of each row, padded on the right: tokens, attention mask, and which
    positions are response, [R, L] each."""
    longest = max(len(x) + len(y) for x, y in zip(prompts_R, tokens_R, strict=True))
    token_RL = torch.full((len(tokens_R), longest), pad)
    mask_RL = torch.zeros_like(token_RL)
    response_RL = torch.zeros_like(token_RL)
    for r, (x, y) in enumerate(zip(prompts_R, tokens_R, strict=True)):
        token_RL[r, : len(x) + len(y)] = torch.tensor([*x, *y])
        mask_RL[r, : len(x) + len(y)] = 1
        response_RL[r, len(x) : len(x) + len(y)] = 1
    return token_RL, mask_RL, response_RL


def log_prob(
    model: Any, token_RL: torch.Tensor, mask_RL: torch.Tensor, response_RL: torch.Tensor
) -> torch.Tensor:
    """log pi(y|x) of rows as ``padded`` gives them, [R], by one forward pass."""
    logits_RLV = model(input_ids=token_RL, attention_mask=mask_RL).logits[:, :-1]
    logp_RL = logits_RLV.float().log_softmax(-1).gather(-1, token_RL[:, 1:, None])[..., 0]
    return (logp_RL * response_RL[:, 1:]).sum(1)


@torch.no_grad()
def scored(
    model: Any, tokenizer: Any, texts: Sequence[str], drawn: Drawn, batch_rows: int
) -> list[float]:
    """log pi(y|x) of every draw, by passes over batches."""
    model.eval()
    ids = tokenizer(list(texts))["input_ids"]
    out: list[float] = []
    for first in range(0, len(drawn.tokens_R), batch_rows):
        tokens = drawn.tokens_R[first : first + batch_rows]
        x = [ids[p] for p in drawn.prompt_R[first : first + batch_rows]]
        out += log_prob(model, *padded(x, tokens, tokenizer.pad_token_id)).tolist()
    return out
