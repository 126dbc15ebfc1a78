"""The Fisher information of a network times a vector, without the matrix.

A response's score is the sum of its tokens' scores, each of mean zero given the tokens before it,
so their products across positions vanish in expectation and the sequence's Fisher information is
the sum of its tokens':

    F(theta) = E_x E_{y ~ pi(.|x)} sum_t J_t^T (diag(p_t) - p_t p_t^T) J_t,

J_t the Jacobian of the logits at position t, p_t = softmax(logits). The expectation over the next
token is taken exactly, that over prefixes by samples: without bias for y sampled from pi. This is
the generalised Gauss-Newton matrix of the log-likelihood.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch.nn.attention import SDPBackend, sdpa_kernel

from srlm.errors import UserError
from srlm.policies.hf import CausalLM
from srlm.types import Floats, Prompt, Samples

BATCH = 64
"""Responses of a forward pass."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Responses padded to one length; ``share_BT`` is 1/rows at their positions, else 0."""

    inputs: dict[str, Any]
    share_BT: torch.Tensor


class FisherProduct:
    """v -> F v over given responses, at a forward and three backward passes over them.

    Args:
        policy: parameters in float32 or float64.
        prompts, samples: responses sampled from the policy.

    Raises:
        UserError: parameters in half precision, whose products are rounding.
    """

    def __init__(self, policy: CausalLM, prompts: Sequence[Prompt], samples: Samples) -> None:
        self.model = policy.model
        self.parameters = policy.parameters()
        kinds = {p.dtype for p in self.parameters}
        if kinds - {torch.float32, torch.float64}:
            raise UserError(
                "Fisher information: the weights are in half precision", "use --dtype float32"
            )
        self.epsilon = max(float(torch.finfo(kind).eps) for kind in kinds)
        self.size = sum(p.numel() for p in self.parameters)
        order = np.argsort(samples.length_R, kind="stable")
        self.batches = [
            _batch(policy, prompts, samples.take(order[i : i + BATCH]), len(samples))
            for i in range(0, len(order), BATCH)
        ]

    def operator(self) -> LinearOperator:
        """For SciPy's eigensolvers, float64 outside."""
        return LinearOperator((self.size, self.size), matvec=self.times, dtype=np.float64)

    def times(self, v_D: Floats) -> Floats:
        """F v, [D].

        J v is the derivative by u of <J^T u, v>, which is linear in u: two backward passes, and no
        forward-mode derivatives, which not all kernels have. A third gives J^T (H J v).
        """
        vector, total = self._split(v_D), [torch.zeros_like(p) for p in self.parameters]
        for batch in self.batches:
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # differentiable twice
                logits_BTV = self.model(**batch.inputs).logits
                u_BTV = torch.zeros_like(logits_BTV, requires_grad=True)
                pulled = torch.autograd.grad(
                    logits_BTV, self.parameters, u_BTV, create_graph=True, materialize_grads=True
                )
                (moved_BTV,) = torch.autograd.grad(pulled, u_BTV, vector, retain_graph=True)
                p_BTV = torch.softmax(logits_BTV.detach(), -1)
                centred = moved_BTV - (p_BTV * moved_BTV).sum(-1, keepdim=True)
                back_BTV = batch.share_BT[..., None] * p_BTV * centred
                part = torch.autograd.grad(
                    logits_BTV, self.parameters, back_BTV, materialize_grads=True
                )
            for into, value in zip(total, part, strict=True):
                into += value
        return np.asarray(torch.cat([t.double().reshape(-1) for t in total]).cpu().numpy())

    def _split(self, v_D: Floats) -> list[torch.Tensor]:
        flat, at, out = torch.from_numpy(np.ascontiguousarray(v_D).reshape(-1)), 0, []
        for p in self.parameters:
            out.append(flat[at : at + p.numel()].reshape(p.shape).to(p))
            at += p.numel()
        return out

    @torch.inference_mode()
    def hidden_states(self) -> Floats:
        """The last hidden states from which response tokens are sampled, [N, H]."""
        found = []
        for batch in self.batches:
            out = self.model(**batch.inputs, output_hidden_states=True)
            T = batch.share_BT.shape[1]
            found.append(out.hidden_states[-1][:, -T:][batch.share_BT > 0].double().cpu())
        return np.asarray(torch.cat(found).numpy())


def _batch(policy: CausalLM, prompts: Sequence[Prompt], samples: Samples, rows: int) -> Batch:
    """Prompts padded on the left, responses on the right; the last token predicts nothing."""
    asked = [policy.encode(prompts[p]) for p in samples.prompt_R]
    L, T, B = max(map(len, asked)), int(samples.length_R.max()), len(samples)
    token_BL = np.zeros((B, L + T), dtype=np.int64)
    for b, (x, y) in enumerate(zip(asked, samples.tokens_R, strict=True)):
        token_BL[b, L - len(x) : L + len(y)] = [*x, *y]
    left_B = L - np.array([len(x) for x in asked])
    column = np.arange(L + T - 1)
    spoken_BT = np.arange(T) < samples.length_R[:, None]
    first = next(iter(policy.model.parameters()))

    def put(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(first.device)

    inputs = {
        "input_ids": put(token_BL[:, :-1]),
        "attention_mask": put((column >= left_B[:, None]).astype(np.int64)),
        "position_ids": put(np.maximum(column - left_B[:, None], 0)),
        "logits_to_keep": T,
        "use_cache": False,
    }
    return Batch(inputs, put(spoken_BT / rows).to(first.dtype))
