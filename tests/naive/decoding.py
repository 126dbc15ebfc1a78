"""The slow twin of ``srlm.policies.hf``: one row at a time, no cache, no padding."""

from __future__ import annotations

import numpy as np
import torch

from srlm.policies.hf import CausalLM
from srlm.types import Floats, Prompt, Tokens


def next_log_probs(policy: CausalLM, tokens: list[int]) -> torch.Tensor:
    """log p(.|tokens), [V], by a plain forward pass over all of them."""
    logits = policy.model(input_ids=torch.tensor([tokens]), use_cache=False).logits
    return torch.log_softmax(logits[0, -1].double(), dim=-1)


def token_log_probs(policy: CausalLM, prompt: Prompt, response: Tokens) -> torch.Tensor:
    """log p of each token of a response, [T], a forward pass a token; with gradient."""
    x = policy.encode(prompt)
    steps = [next_log_probs(policy, [*x, *response[:t]])[y] for t, y in enumerate(response)]
    return torch.stack(steps)


def sample(policy: CausalLM, prompt: Prompt, u_T: Floats) -> Tokens:
    """The response that uniform numbers decide, at most one token for each of them."""
    out: list[int] = []
    with torch.no_grad():
        for u in u_T:
            p_V = next_log_probs(policy, [*policy.encode(prompt), *out]).exp().numpy()
            edge_V = np.cumsum(p_V)
            out.append(int((edge_V <= u * edge_V[-1]).sum()))
            if out[-1] in policy.ends:
                break
    return tuple(out)


def greedy(policy: CausalLM, prompt: Prompt, max_tokens: int) -> Tokens:
    """The likeliest token at each step."""
    out: list[int] = []
    with torch.no_grad():
        while len(out) < max_tokens and not (out and out[-1] in policy.ends):
            out.append(int(next_log_probs(policy, [*policy.encode(prompt), *out]).argmax()))
    return tuple(out)


def outcomes(policy: CausalLM, prompt: Prompt, max_tokens: int) -> dict[Tokens, float]:
    """Every outcome within ``max_tokens`` and its probability; V^(max_tokens - 1) passes."""
    x, out = policy.encode(prompt), {}
    open_prefixes: list[tuple[Tokens, float]] = [((), 0.0)]
    with torch.no_grad():
        while open_prefixes:
            prefix, logp = open_prefixes.pop()
            for token, step in enumerate(next_log_probs(policy, [*x, *prefix]).tolist()):
                longer = (*prefix, token)
                if token in policy.ends or len(longer) == max_tokens:
                    out[longer] = float(np.exp(logp + step))
                else:
                    open_prefixes.append((longer, logp + step))
    return out
