"""The likeliest response of every prompt, with a certificate: best-first search over prefixes.

A prefix is at least as likely as every response that starts with it. So once a response has
been found that is at least as likely as every prefix not yet opened, it is the mode, for
certain; and a search stopped before that still knows that p* lies between the best response
found and the likelier of it and the best open prefix (theory.md section 2). At each depth fewer
than 1/p* prefixes are likelier than p*, so the search opens at most H * ceil(1/p*) prefixes of
a prompt when it opens one at a time: the condition number is the price of its own certificate.

Each prompt has a heap with one entry per opened prefix: its likeliest child that was not taken
yet. Taking that child puts the entry back at the next one, so a heap never holds more entries
than prefixes were opened, and opening one costs O(log nodes) whatever the vocabulary. Of the V
children only the likeliest are copied off the device; the rest are one remainder, whose bound is
the likeliest of them and which is read when it reaches the head.

The prompts of a lot are searched together. A wave opens a few prefixes of each prompt in one
forward pass, and the fewer prompts are left the more prefixes of each, so that the last hard ones
do not cost a pass a prefix. ``lots`` cuts many prompts into lots that are searched one after the
other, or by several processes: each has its share of the tokens and seconds, and is the same
wherever it is searched, unless the seconds end it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from time import perf_counter
from typing import Literal

import numpy as np
import torch

from srlm.config import MeasureSettings
from srlm.engines.base import Advance, Piece
from srlm.errors import UserError
from srlm.measure.modes import Modes
from srlm.policies.base import Differentiable, Policy, PrefixTree
from srlm.policies.devices import ENTRIES, SEARCHED
from srlm.types import Floats, Ints, Prompt, Samples, Tokens, rows_by_prompt

LOT = 128
"""Prompts that are searched together, at most."""
KEPT = 64
"""Children of a prefix that are read at a time; the rest stay a remainder."""
FEW = 0.05
"""Search is left off where it can certify the modes of a smaller share of the prompts."""
SLACK = 4
"""The samples' number of prefixes that search must open may be this many times too large."""
Second = Literal["none", "least", "every"]


@dataclass(slots=True, eq=False)
class _Node:
    """A prefix y_1..y_t of a prompt, and once it is opened its children by falling probability."""

    prompt: int
    parent: _Node | None
    """y_1..y_{t-1}; None for the empty prefix."""
    token: int
    """y_t."""
    depth: int
    logp: float
    greedy: bool = False
    """Whether greedy decoding goes through it."""
    skip: int = 0
    """Likeliest children that were read before, for a prefix whose remainder is opened."""
    tree: int = -1
    """Its number in the tree."""
    token_C: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    """Children that are prefixes, those of rank ``skip`` and more."""
    logp_C: Floats = field(default_factory=lambda: np.zeros(0))
    """log pi of each; where there is a remainder, that of its likeliest child as one more."""

    def child(self, rank: int) -> _Node:
        """The child of this rank, or this prefix again for the remainder, still to be opened."""
        if rank == len(self.token_C):
            skip = self.skip + rank
            return _Node(
                self.prompt, self.parent, self.token, self.depth, self.logp, False, skip, self.tree
            )
        return _Node(
            self.prompt,
            self,
            int(self.token_C[rank]),
            self.depth + 1,
            float(self.logp_C[rank]),
            self.greedy and rank == 0,
        )


class _Search:
    """The state of a search over all prompts: heaps, best and second outcomes."""

    def __init__(self, tree: PrefixTree, prompts: int, second: bool, first: int) -> None:
        self.tree, self.first = tree, first
        self.best_P = np.full(prompts, -np.inf)
        self.second_P = np.full(prompts, -np.inf)
        self.left_P = np.full(prompts, -np.inf)
        """Best bound among the prefixes that were dropped unopened."""
        self.head_P = np.full(prompts, -np.inf)
        """Best bound among the prefixes that may still be opened."""
        self.keep_P = self.second_P if second else self.best_P
        """Prefixes at or below it are dropped."""
        self.nodes_P = np.zeros(prompts, dtype=np.int64)
        self.tokens = 0
        self.end_P: list[tuple[_Node, int] | None] = [None] * prompts
        """The best outcome: a prefix and the last token."""
        self.heap_P: list[list[tuple[float, int, int, _Node]]] = [[] for _ in range(prompts)]
        """-bound, a serial number, and the child: its rank and its parent."""
        self.path_P: list[_Node | None] = [None] * prompts
        """The greedy path as far as it was followed; None where it is at its end."""
        self.serial = 0
        node_P, self.root_PV = tree.roots()
        self.end_E = torch.tensor(sorted(tree.ends), device=self.root_PV.device)
        self.is_end_V = np.zeros(self.root_PV.shape[1], dtype=bool)
        self.is_end_V[list(tree.ends)] = True
        roots = [_Node(p, None, -1, 0, 0.0, True, 0, int(node_P[p])) for p in range(prompts)]
        self.read(roots, self.root_PV)

    def open(self, chosen: list[_Node]) -> None:
        """Open prefixes. Roots come here only where their remainder reached the head."""
        rows = max(1, ENTRIES // len(self.is_end_V))
        roots = [node for node in chosen if node.parent is None]
        below = [(node, node.parent) for node in chosen if node.parent is not None]
        for begin in range(0, len(below), rows):
            part = below[begin : begin + rows]
            node_B, logp_BV = self.tree.extend(
                np.array([parent.tree for _, parent in part]),
                np.array([node.token for node, _ in part]),
            )
            self.tokens += len(part)
            for (node, _), number in zip(part, node_B, strict=True):
                node.tree = int(number)
            self.read([node for node, _ in part], logp_BV)
        if roots:
            self.read(roots, self.root_PV[torch.as_tensor([node.prompt for node in roots])])

    def read(self, nodes: list[_Node], logp_BV: torch.Tensor) -> None:
        """Take up opened prefixes with their next-token log-probabilities."""
        skips = {node.skip for node in nodes}
        for skip in sorted(skips):
            part = [b for b, node in enumerate(nodes) if node.skip == skip]
            rows = logp_BV if len(skips) == 1 else logp_BV[torch.as_tensor(part)]
            self.children([nodes[b] for b in part], rows, skip)

    def children(self, nodes: list[_Node], logp_BV: torch.Tensor, skip: int) -> None:
        """Note the outcomes right below the prefixes, and give each its children from ``skip`` on.

        As many ranks are read as were skipped, at least KEPT: a row of V tokens is opened again
        at most log2(V / KEPT) times.
        """
        V, E = logp_BV.shape[1], len(self.end_E)
        stop = skip + max(skip, KEPT)
        top = logp_BV.detach().topk(min(V, stop + E + 1), dim=1)
        value_BC, token_BC = top.values.cpu().double().numpy(), top.indices.cpu().numpy()
        prompt_B = np.array([node.prompt for node in nodes])
        logp_B1 = np.array([[node.logp] for node in nodes])
        last_B = np.array([node.depth == self.tree.max_tokens - 1 for node in nodes])
        np.add.at(self.nodes_P, prompt_B, 1)
        _check(value_BC[:, 0], prompt_B + self.first)
        if skip == 0:
            at_B = np.flatnonzero(last_B)
            self.note([nodes[b] for b in at_B], logp_B1[at_B] + value_BC[at_B, :2], token_BC[at_B])
            at_B = np.flatnonzero(~last_B)
            if E and len(at_B):
                ends = logp_BV.detach()[:, self.end_E].topk(min(2, E), dim=1)
                end_BE = self.end_E.cpu().numpy()[ends.indices.cpu().numpy()][at_B]
                logp_BE = logp_B1[at_B] + ends.values.cpu().double().numpy()[at_B]
                self.note([nodes[b] for b in at_B], logp_BE, end_BE)
        is_end_BC = self.is_end_V[token_BC]
        ended_B = last_B | is_end_BC[:, 0]
        if is_end_BC.any():
            order_BC = np.argsort(is_end_BC, axis=1, kind="stable")
            token_BC = np.take_along_axis(token_BC, order_BC, axis=1)
            value_BC = np.take_along_axis(value_BC, order_BC, axis=1)
        width = min(stop, V - E)
        child_BC = logp_B1 + value_BC[:, skip : min(stop + 1, V - E)]
        token_BC = token_BC[:, skip:width].astype(np.int32)
        live_BC = child_BC > self.keep_P[prompt_B][:, None]
        live_BC[last_B] = False
        for b, (node, count) in enumerate(zip(nodes, live_BC.sum(axis=1).tolist(), strict=True)):
            if not last_B[b] and count < child_BC.shape[1]:
                self.drop(node.prompt, child_BC[b, count])
            if count:
                node.logp_C = child_BC[b, :count].copy()
                node.token_C = token_BC[b, :count].copy()
            if node.greedy and count and not ended_B[b]:
                self.path_P[node.prompt] = node
            else:
                self.put(node, 0)
                if node.greedy:
                    self.path_P[node.prompt] = None

    def note(self, nodes: list[_Node], logp_BE: Floats, token_BE: Ints) -> None:
        """Update each prompt's best and second outcome; the first found of equals stays."""
        for b, node in enumerate(nodes):
            p = node.prompt
            for logp, token in zip(logp_BE[b].tolist(), token_BE[b].tolist(), strict=False):
                if logp > self.best_P[p]:
                    self.second_P[p], self.best_P[p] = self.best_P[p], logp
                    self.end_P[p] = (node, token)
                elif logp > self.second_P[p]:
                    self.second_P[p] = logp

    def put(self, node: _Node, rank: int) -> None:
        """Make an opened prefix's child of this rank, if there is one, its entry of the heap."""
        if rank >= len(node.logp_C):
            return
        bound = float(node.logp_C[rank])
        if bound > self.keep_P[node.prompt]:
            self.serial += 1
            heappush(self.heap_P[node.prompt], (-bound, self.serial, rank, node))
        else:
            self.drop(node.prompt, bound)

    def drop(self, prompt: int, bound: float) -> None:
        """Leave out what lies at or below ``bound``."""
        self.left_P[prompt] = max(self.left_P[prompt], bound)

    def look(self, prompts: Ints) -> None:
        """Bring the heads of these prompts up to date."""
        for p in prompts.tolist():
            heap, path = self.heap_P[p], self.path_P[p]
            head = -heap[0][0] if heap else -np.inf
            self.head_P[p] = head if path is None else max(head, path.logp_C[0])

    def wave(self, live: Ints, floor_P: Floats, batch: int, nodes: int, tokens: int | None) -> None:
        """Open the likeliest prefixes above the floor of each live prompt.

        A prompt whose greedy path is not at its end follows that, a prefix at a time.
        """
        width, chosen = max(1, batch // len(live)), []
        left = len(live) * width if tokens is None else tokens - self.tokens
        for p in live.tolist():
            heap, path, floor = self.heap_P[p], self.path_P[p], floor_P[p]
            if path is not None:
                if left > 0 and path.logp_C[0] > floor:
                    chosen.append(path.child(0))
                    self.put(path, 1)
                    left -= 1
                    continue
                self.path_P[p] = None
                self.put(path, 0)
            for _ in range(min(width, nodes - int(self.nodes_P[p]), left)):
                if not heap or -heap[0][0] <= floor:
                    break
                _, _, rank, node = heappop(heap)
                self.put(node, rank + 1)
                chosen.append(node.child(rank))
                left -= 1
        if chosen:
            self.open(chosen)
        self.look(live)

    def second_floor(self) -> Floats:
        """Above it lies what could hold a better second outcome."""
        return self.second_P

    def margin_floor(self) -> Floats:
        """Above it lies what could make the least margin of all prompts smaller.

        Prompts without a certified mode are left alone: their margin has no lower bound but 0.
        """
        open_P = np.maximum(self.left_P, self.head_P)
        sure_P = (self.best_P > -np.inf) & (self.best_P >= open_P)
        gap_P = np.where(sure_P, self.best_P, np.inf) - self.second_P
        floor_P = np.maximum(self.second_P, self.best_P - gap_P.min(initial=np.inf))
        return np.where(sure_P, floor_P, np.inf)

    def outcome(self, prompt: int) -> Tokens:
        """Tokens of the prompt's best outcome; the empty tuple where none was found."""
        found = self.end_P[prompt]
        if found is None:
            return ()
        node, token = found
        tokens = [token]
        while node.parent is not None:
            tokens.append(node.token)
            node = node.parent
        return tuple(reversed(tokens))


def find_modes(
    tree: PrefixTree,
    prompts: int,
    *,
    nodes: int,
    tokens: int | None = None,
    seconds: float | None = None,
    second: Second = "every",
    batch: int = SEARCHED,
    first: int = 0,
) -> Modes:
    """The mode of each prompt of ``tree`` by best-first search, certified where the budget lets.

    Args:
        tree: prefixes of P prompts.
        prompts: P.
        nodes: prefixes that may be opened per prompt, at least 1.
        tokens: tokens that may go through the policy in all; None: no limit.
        seconds: wall-clock limit, looked at between forward passes; None: no limit. With one,
            the result depends on the machine's speed (never its truth).
        second: how far to search for second likeliest outcomes p2, after all the modes. "every":
            until each is certified, at up to H/p2 prefixes per prompt where the mode costs H/p*;
            "least": until the least margin log p* - log p2 of all prompts is, which needs little
            more than the modes; "none".
        batch: rows that a forward pass aims at. 1 opens one prefix of each prompt at a time,
            which opens the fewest; more opens some that turn out below p*, in fewer passes.
        first: number of the first prompt, for messages.

    Returns:
        ``Modes``. First the greedy path is followed, so that a search cut short has an outcome;
        then the likeliest open prefixes are opened, none below the best outcome found.

    Raises:
        UserError: the policy gives NaN, positive log-probabilities or no possible token; the
            message names the index of the prompt.

    Cost: at most H * ceil(1/p*) prefixes of a prompt with batch = 1 and ``second`` "none".
    Source: theory.md section 2 (search); certificates as in best-first branch and bound.
    """
    begun = perf_counter()
    search = _Search(tree, prompts, second != "none", first)

    def grow(floor: Callable[[], Floats]) -> None:
        while True:
            floor_P = floor()
            live = np.flatnonzero((search.head_P > floor_P) & (search.nodes_P < nodes))
            late = seconds is not None and perf_counter() - begun >= seconds
            if late or not len(live) or (tokens is not None and search.tokens >= tokens):
                return
            search.wave(live, floor_P, batch, nodes, tokens)

    search.look(np.arange(prompts))
    grow(lambda: search.best_P)
    if second != "none":
        grow(search.second_floor if second == "every" else search.margin_floor)
    left_P = np.maximum(search.left_P, search.head_P)
    tokens_P = tuple(search.outcome(p) for p in range(prompts))
    found_P = np.array([len(y) > 0 for y in tokens_P], dtype=bool)
    last_P = np.array([y[-1] if y else 0 for y in tokens_P], dtype=np.int64)
    upper_P = np.maximum(search.best_P, left_P)
    second_upper_P = np.maximum(search.second_P, left_P)
    certified_P = found_P & (search.best_P >= upper_P)
    return Modes(
        tokens_P=tokens_P,
        logp_P=search.best_P,
        upper_P=upper_P,
        certified_P=certified_P,
        finished_P=found_P & search.is_end_V[last_P],
        second_P=search.second_P,
        second_upper_P=second_upper_P,
        second_certified_P=certified_P & (search.second_P >= second_upper_P),
        nodes_P=search.nodes_P,
        tokens=search.tokens,
        seconds=perf_counter() - begun,
    )


def lots(prompts: Sequence[Prompt], settings: MeasureSettings, max_tokens: int) -> Iterator[Piece]:
    """The searches for the modes of many prompts, of ``LOT`` prompts each: their number decides
    the lots, and nothing else.

    A lot has its share of the tokens, of the seconds and of the rows of a pass, by its prompts: so
    it opens what it would in a search of all of them. Its least margin is searched for among its
    own prompts, so that of all of them is found too.
    """
    for number, first in enumerate(range(0, len(prompts), LOT)):
        some = tuple(prompts[first : first + LOT])
        share = len(some) / len(prompts)
        tokens, seconds = max(1, int(settings.tokens * share)), settings.seconds * share
        asked = (max_tokens, settings.nodes, tokens, seconds, max(1, int(SEARCHED * share)))
        yield Piece(number, first, some, asked, repr(asked), seconds)


def searched(policy: Policy, lot: Piece, advance: Advance) -> Modes:
    """``find_modes`` of a lot."""
    max_tokens, nodes, tokens, seconds, batch = lot.asked
    found = find_modes(
        policy.tree(lot.prompts, max_tokens=max_tokens),
        len(lot.prompts),
        nodes=nodes,
        tokens=tokens,
        seconds=seconds,
        second="least",
        batch=batch,
        first=lot.first,
    )
    if isinstance(policy, Differentiable):
        policy.budget.release()
    return found


def nodes_needed(samples: Samples, best_P: Floats) -> Floats:
    """About how many prefixes a search must open to certify that each p* is ``best_P``, [P].

    These are the prefixes s that no end token closes and that are likelier than p*. A sample
    goes through s with probability pi(s), so the mean over a prompt's samples of

        1 + sum_{t < T} 1{pi(y_1..y_t) > p*} / pi(y_1..y_t)

    is unbiased for their number (the 1 is the empty prefix). Since p* >= exp(``best_P``) the
    number at the best outcome known is an upper bound on what is needed, usually a near one.

    Args:
        samples: of the policy itself, with the log-probabilities of their tokens.
        best_P: log-probability of the likeliest outcome known of each prompt, nats.

    Cost: O(R T). Source: own construction.
    """
    needed_R = np.ones(len(samples))
    for r, token_logp_T in enumerate(samples.token_logp_R):
        prefix_T = np.cumsum(token_logp_T)[:-1]
        prefix_T = prefix_T[prefix_T > best_P[samples.prompt_R[r]]]
        needed_R[r] += np.exp(-prefix_T).sum()
    rows_P = rows_by_prompt(samples.prompt_R, len(best_P))
    return np.array([needed_R[rows].mean() if len(rows) else np.inf for rows in rows_P])


def hopeless(samples: Samples, greedy: Samples, nodes: int) -> str:
    """Why a search of ``nodes`` prefixes per prompt would be in vain; empty where it would not.

    It is where ``nodes_needed``, at the likelier of a prompt's greedy response and samples, is
    more than ``SLACK`` times the limit for all but ``FEW`` of the prompts.
    """
    best_P = greedy.logp_R.copy()
    np.maximum.at(best_P, samples.prompt_R, samples.logp_R)
    needed_P = nodes_needed(samples, best_P)
    if float((needed_P <= SLACK * nodes).mean()) >= FEW:
        return ""
    size = np.log10(np.median(needed_P))
    return (
        f"no search for modes: certifying a prompt's takes some 10^{size:.1f} prefixes, and the "
        f"limit is {nodes}; read log10 kappa as an upper bound, and kappa of answers"
    )


def _check(top_B: Floats, prompt_B: Ints) -> None:
    """Refuse rows that are no log-probabilities; ``top_B`` is the largest (or NaN) of each."""
    bad = np.flatnonzero(~((top_B > -np.inf) & (top_B < 1e-3)))
    if len(bad):
        value = top_B[bad[0]]
        problem = "no token is possible" if value == -np.inf else f"a log-probability is {value}"
        raise UserError(
            f"prompt {prompt_B[bad[0]]} (counted from 0): {problem} after some prefix",
            "the policy is broken (a diverged update, or overflow in half precision): go back to "
            "the last good one, or use float32",
        )
