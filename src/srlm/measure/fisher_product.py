"""The Fisher information of a network times a vector, without the matrix.

A response's score is the sum of its tokens' scores, each of mean zero given the tokens before it,
so their products across positions vanish in expectation and the sequence's Fisher information is
the sum of its tokens':

    F(theta) = E_x E_{y ~ pi(.|x)} sum_t J_t^T (diag(p_t) - p_t p_t^T) J_t,

J_t the Jacobian of the logits at position t, p_t = softmax(logits). The expectation over the next
token is taken exactly, that over prefixes by samples: without bias for y sampled from pi. This is
the generalised Gauss-Newton matrix of the log-likelihood.

The vocabulary's scores exist for some responses at a time, and for some positions of a long one:
its later positions do not move its earlier ones, so that each part runs what stands before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch.nn.attention import SDPBackend, sdpa_kernel

from srlm.errors import UserError
from srlm.policies.hf import CausalLM
from srlm.policies.network import left_padded
from srlm.policies.scoring import right_padded
from srlm.types import Floats, Prompt, Samples

BATCH = 64
"""Responses of a forward pass, at most."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts and responses up to some position, and the last C positions before tokens."""

    token_BL: torch.Tensor
    left_B: torch.Tensor | None
    share_BC: torch.Tensor
    """1/rows where the position is before a token of the response, else 0."""


class FisherProduct:
    """v -> F v over given responses, at a forward and three backward passes over them.

    Never more than ``Network.chunk`` scores of the vocabulary exist at once, or those of a position
    of one response if that is more. A response that has more is run in parts, each with all that
    stands before it: n parts cost (n + 1)/2 times as much.

    Args:
        policy: parameters in float32 or float64.
        prompts, samples: responses sampled from the policy.

    Raises:
        UserError: parameters in half precision, whose products are rounding.
    """

    def __init__(self, policy: CausalLM, prompts: Sequence[Prompt], samples: Samples) -> None:
        self.network = policy.network
        self.parameters = policy.parameters()
        kinds = {p.dtype for p in self.parameters}
        if kinds - {torch.float32, torch.float64}:
            raise UserError(
                "Fisher information: the weights are in half precision", "use --dtype float32"
            )
        self.epsilon = max(float(torch.finfo(kind).eps) for kind in kinds)
        self.size = sum(p.numel() for p in self.parameters)
        self.batches = list(_batches(policy, prompts, samples))

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
                logits_BCV = self.network.scores(
                    batch.token_BL, batch.left_B, keep=batch.share_BC.shape[1]
                )
                u_BCV = torch.zeros_like(logits_BCV, requires_grad=True)
                pulled = torch.autograd.grad(
                    logits_BCV, self.parameters, u_BCV, create_graph=True, materialize_grads=True
                )
                (moved_BCV,) = torch.autograd.grad(pulled, u_BCV, vector, retain_graph=True)
                p_BCV = torch.softmax(logits_BCV.detach(), -1)
                centred = moved_BCV - (p_BCV * moved_BCV).sum(-1, keepdim=True)
                back_BCV = batch.share_BC[..., None] * p_BCV * centred
                part = torch.autograd.grad(
                    logits_BCV, self.parameters, back_BCV, materialize_grads=True
                )
            for into, value in zip(total, part, strict=True):
                into += value
        return np.asarray(torch.cat([t.reshape(-1).cpu().double() for t in total]).numpy())

    def _split(self, v_D: Floats) -> list[torch.Tensor]:
        flat, at, out = torch.from_numpy(np.ascontiguousarray(v_D).reshape(-1)), 0, []
        for p in self.parameters:
            out.append(flat[at : at + p.numel()].reshape(p.shape).to(p.dtype).to(p.device))
            at += p.numel()
        return out

    @torch.inference_mode()
    def hidden_states(self) -> Floats:
        """The last hidden states from which response tokens are sampled, [N, H]."""
        found = []
        for batch in self.batches:
            state_BLH = self.network.states(batch.token_BL, batch.left_B)
            state_BCH = state_BLH[:, -batch.share_BC.shape[1] :]
            found.append(state_BCH[batch.share_BC > 0].cpu().double())
        return np.asarray(torch.cat(found).numpy())


def _batches(policy: CausalLM, prompts: Sequence[Prompt], samples: Samples) -> Iterator[Batch]:
    """Responses of like length, at most ``BATCH``, whose scores fit in a chunk; longer ones alone
    and in parts."""
    most = max(1, policy.network.chunk // policy.network.vocabulary)
    first = next(iter(policy.model.parameters()))
    order = np.argsort(samples.length_R, kind="stable")
    while len(order):
        length = samples.length_R[order[:BATCH]]
        B = max(1, int((length * np.arange(1, len(length) + 1) <= most).sum()))
        rows, order = order[:B], order[B:]
        T = int(length[B - 1])
        asked = [policy.encode(prompts[samples.prompt_R[r]]) for r in rows]
        prompt_BL, left_B = left_padded(asked)
        token_BL = torch.cat([prompt_BL, right_padded([samples.tokens_R[r] for r in rows])], dim=1)
        share_BT = (torch.arange(T) < torch.from_numpy(length[:B, None])) / len(samples)
        L = prompt_BL.shape[1]
        for start in range(0, T, most):
            end = min(T, start + most)  # the last token of a part is not run: nothing follows it
            share_BC = share_BT[:, start:end].to(first)
            yield Batch(token_BL[:, : L + end - 1], left_B, share_BC)
