"""The likeliest response of every prompt, with a certificate: best-first search over prefixes.

A prefix is at least as likely as every response that starts with it. So once a response has
been found that is at least as likely as every prefix not yet opened, it is the mode, for
certain; and a search stopped before that still knows that p* lies between the best response
found and the likelier of it and the best open prefix (theory.md section 2). At each depth fewer
than 1/p* prefixes are likelier than p*, so the search opens at most H * ceil(1/p*) prefixes of
a prompt when it opens one at a time: the condition number is the price of its own certificate.

All prompts are searched together. A wave opens a few prefixes of each prompt in one forward
pass, and the fewer prompts are left the more prefixes of each, so that the last hard ones do
not cost a pass a prefix. The bookkeeping is a flat table of open prefixes in numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Literal

import numpy as np
import torch

from srlm.errors import UserError
from srlm.measure.modes import Modes
from srlm.policies.base import PrefixTree
from srlm.types import Bools, Floats, Ints, Tokens

KEPT = 64
"""Children of a prefix that become entries of their own; the rest stay one entry."""
Second = Literal["none", "least", "every"]


@dataclass(frozen=True, slots=True)
class _Open:
    """Open entries: "extend ``node`` by ``token`` and take its children from rank ``skip`` on".

    ``bound`` is the log-probability of the likeliest outcome that can be below the entry,
    ``logp`` that of the prefix itself (they differ where skip > 0), ``record`` the number of the
    parent in the log of opened prefixes, ``greedy`` marks the next step of the greedy path.
    """

    prompt: Ints
    bound: Floats
    logp: Floats
    node: Ints
    token: Ints
    skip: Ints
    depth: Ints
    record: Ints
    greedy: Bools

    def take(self, index: Ints | Bools) -> _Open:
        return _Open(*(getattr(self, name)[index] for name in self.__slots__))

    def without(self, index: Ints) -> _Open:
        keep = np.ones(len(self.prompt), dtype=bool)
        keep[index] = False
        return self.take(keep)

    def join(self, others: list[_Open]) -> _Open:
        every = [self, *others]
        return _Open(*(np.concatenate([getattr(o, n) for o in every]) for n in self.__slots__))


class _Search:
    """The state of a search over all prompts: open entries, best and second outcomes."""

    def __init__(self, tree: PrefixTree, prompts: int, second: bool) -> None:
        self.tree = tree
        self.best_P = np.full(prompts, -np.inf)
        self.second_P = np.full(prompts, -np.inf)
        self.left_P = np.full(prompts, -np.inf)
        """Best bound among the entries that were dropped unopened."""
        self.keep_P = self.second_P if second else self.best_P
        """Entries at or below it can be dropped."""
        self.nodes_P = np.zeros(prompts, dtype=np.int64)
        self.tokens = 0
        self.end_record_P = np.full(prompts, -1, dtype=np.int64)
        self.end_token_P = np.full(prompts, -1, dtype=np.int64)
        self.parents: list[Ints] = []
        self.steps: list[Ints] = []
        self.records = 0
        zero_P, i_P = np.zeros(prompts, dtype=np.int64), np.arange(prompts)
        node_P, self.root_logp_PV = tree.roots()
        self.root_node_P = np.asarray(node_P, dtype=np.int64)
        self.is_end_V = np.zeros(self.root_logp_PV.shape[1], dtype=bool)
        self.is_end_V[list(tree.ends)] = True
        roots = _Open(
            prompt=i_P,
            bound=np.zeros(prompts),
            logp=np.zeros(prompts),
            node=zero_P - 1,
            token=zero_P - 1,
            skip=zero_P,
            depth=zero_P,
            record=zero_P - 1,
            greedy=np.ones(prompts, dtype=bool),
        )
        none = roots.take(zero_P[:0])
        self.lead = self.open = none
        """The next steps of greedy paths, one a prompt; the entries of prompts without such."""
        self.on_path_P = np.ones(prompts, dtype=bool)
        """Prompts that have, or had in the last wave, a greedy path that goes on."""
        self.aside: list[_Open] = []
        """The other entries of prompts on the greedy path: not looked at until it ends."""
        self.shelf: list[_Open] = []
        """Entries at or below the best outcome, above the second."""
        self.put(none.join(self.expand(roots)))

    def expand(self, chosen: _Open) -> list[_Open]:
        """Open the chosen entries: their outcomes are noted, their other children returned."""
        B = len(chosen.prompt)
        node_B = np.empty(B, dtype=np.int64)
        is_root_B = chosen.node < 0
        inner = np.flatnonzero(~is_root_B)
        if len(inner):
            node_B[inner], logp_BV = self.tree.extend(chosen.node[inner], chosen.token[inner])
            self.tokens += len(inner)
        if is_root_B.any():
            # Roots come alone at the start, and again where a root's rest reached the head.
            node_B[is_root_B] = self.root_node_P[chosen.prompt[is_root_B]]
            root_BV = self.root_logp_PV[torch.as_tensor(chosen.prompt[is_root_B])]
            logp_BV = torch.cat([root_BV, logp_BV]) if len(inner) else root_BV
            order = np.concatenate([np.flatnonzero(is_root_B), inner])
            chosen, node_B = chosen.take(order), node_B[order]
        record_B = self.records + np.arange(B)
        self.records += B
        self.parents.append(chosen.record)
        self.steps.append(chosen.token)
        np.add.at(self.nodes_P, chosen.prompt, 1)
        out = []
        for skip in np.unique(chosen.skip):
            b = np.flatnonzero(chosen.skip == skip)
            rows = logp_BV if len(b) == B else logp_BV[torch.as_tensor(b)]
            out += self.children(chosen.take(b), rows, node_B[b], record_B[b], int(skip))
        return out

    def children(
        self, parent: _Open, logp_BV: torch.Tensor, node_B: Ints, record_B: Ints, skip: int
    ) -> list[_Open]:
        """Children of rank ``skip`` and more: outcomes are noted, prefixes returned as entries.

        As many ranks are taken as were skipped, at least KEPT: a row of V tokens is opened
        again at most log2(V / KEPT) times.
        """
        V = logp_BV.shape[1]
        stop = min(V, skip + max(skip, KEPT))
        top = logp_BV.detach().topk(min(V, stop + 1), dim=1)
        value_BC = top.values.double().cpu().numpy()
        _check(value_BC[:, 0], parent.prompt)
        token_BC = top.indices.cpu().numpy()[:, skip:stop]
        child_BC = value_BC[:, skip:stop] + parent.logp[:, None]
        is_end_BC = self.is_end_V[token_BC]
        is_end_BC |= (parent.depth == self.tree.max_tokens - 1)[:, None]
        b, c = np.nonzero(is_end_BC & (child_BC > self.second_P[parent.prompt][:, None]))
        self.note(parent.prompt[b], child_BC[b, c], record_B[b], token_BC[b, c])
        floor_B = self.keep_P[parent.prompt]
        keep_BC = ~is_end_BC & (child_BC > floor_B[:, None])
        dropped_BC = np.where(is_end_BC | keep_BC, -np.inf, child_BC)
        np.maximum.at(self.left_P, parent.prompt, dropped_BC.max(axis=1))
        b, c = np.nonzero(keep_BC)
        whole = _Open(
            prompt=parent.prompt[b],
            bound=child_BC[b, c],
            logp=child_BC[b, c],
            node=node_B[b],
            token=token_BC[b, c],
            skip=np.zeros(len(b), dtype=np.int64),
            depth=parent.depth[b] + 1,
            record=record_B[b],
            greedy=parent.greedy[b] & (c == 0),
        )
        if stop == V:
            return [whole]
        bound_B = value_BC[:, stop] + parent.logp
        np.maximum.at(self.left_P, parent.prompt, np.where(bound_B > floor_B, -np.inf, bound_B))
        b = np.flatnonzero(bound_B > floor_B)
        rest = replace(
            parent.take(b),
            bound=bound_B[b],
            skip=np.full(len(b), stop, dtype=np.int64),
            greedy=np.zeros(len(b), dtype=bool),
        )
        return [whole, rest]

    def note(self, prompt: Ints, logp: Floats, record: Ints, token: Ints) -> None:
        """Update each prompt's best and second outcome; the first found of equals stays."""
        order = np.lexsort((-logp, prompt))
        prompt, logp = prompt[order], logp[order]
        first = np.flatnonzero(np.diff(prompt, prepend=-1))
        p, new = prompt[first], logp[first]
        runner = np.full(len(first), -np.inf)
        has = np.append(prompt, -1)[first + 1] == p
        runner[has] = logp[first[has] + 1]
        old = self.best_P[p]
        self.second_P[p] = np.maximum(np.minimum(old, new), np.maximum(self.second_P[p], runner))
        won = new > old
        at = order[first[won]]
        self.best_P[p[won]] = new[won]
        self.end_record_P[p[won]], self.end_token_P[p[won]] = record[at], token[at]

    def put(self, entries: _Open) -> None:
        """Add new entries to those that they belong with."""
        aside = self.on_path_P[entries.prompt] & ~entries.greedy
        self.lead = self.lead.join([entries.take(entries.greedy)])
        self.aside.append(entries.take(aside))
        self.open = self.open.join([entries.take(~aside & ~entries.greedy)])

    def unshelve(self) -> None:
        """Take up again what was shelved."""
        entries, self.shelf = self.open.join(self.shelf), []
        self.on_path_P[entries.prompt[entries.greedy]] = True
        self.open = entries.take(np.arange(0))
        self.put(entries)

    def sift(self, floor_P: Floats, nodes: int) -> None:
        """Leave open what is above ``floor_P``; shelve or drop the rest."""
        self.lead = self.sifted(self.lead, floor_P, nodes)
        ended_P = self.on_path_P.copy()
        ended_P[self.lead.prompt] = False
        if ended_P.any():
            self.on_path_P &= ~ended_P
            ended = [ended_P[entries.prompt] for entries in self.aside]
            again = [x.take(own) for x, own in zip(self.aside, ended, strict=True)]
            self.aside = [x.take(~own) for x, own in zip(self.aside, ended, strict=True)]
            self.open = self.open.join(again)
        self.open = self.sifted(self.open, floor_P, nodes)

    def sifted(self, entries: _Open, floor_P: Floats, nodes: int) -> _Open:
        """Those of the entries that stay open."""
        spent = self.nodes_P[entries.prompt] >= nodes
        live = ~spent & (entries.bound > floor_P[entries.prompt])
        if live.all():
            return entries
        shelved = ~spent & ~live & (entries.bound > self.keep_P[entries.prompt])
        self.shelf.append(entries.take(shelved))
        gone = ~live & ~shelved
        np.maximum.at(self.left_P, entries.prompt[gone], entries.bound[gone])
        return entries.take(live)

    def wave(self, batch: int, nodes: int, tokens: int | None) -> None:
        """Open the best of the open entries, all of which are worth it.

        A prompt whose greedy path is not at its end follows that, an entry at a time.
        """
        order = np.lexsort((-self.open.bound, self.open.prompt))
        prompt = self.open.prompt[order]
        start = np.flatnonzero(np.diff(prompt, prepend=-1))
        size = np.diff(np.append(start, len(order)))
        place = np.arange(len(order)) - np.repeat(start, size)
        width = max(1, batch // (len(start) + len(self.lead.prompt)))
        best = order[place < np.minimum(width, nodes - self.nodes_P[prompt])]
        step = np.arange(len(self.lead.prompt))
        chosen_prompt = np.concatenate([self.lead.prompt, self.open.prompt[best]])
        turn = np.argsort(chosen_prompt, kind="stable")
        if tokens is not None:
            turn = turn[: tokens - self.tokens]
        chosen = self.lead.join([self.open.take(best)]).take(turn)
        step, best = step[turn[turn < len(step)]], best[turn[turn >= len(step)] - len(step)]
        self.lead, self.open = self.lead.without(step), self.open.without(best)
        children = self.expand(chosen)
        self.put(children[0].join(children[1:]))

    def second_floor(self) -> Floats:
        """Above it lies what could hold a better second outcome."""
        return self.second_P

    def margin_floor(self) -> Floats:
        """Above it lies what could make the least margin of all prompts smaller.

        Prompts without a certified mode are left alone: their margin has no lower bound but 0.
        """
        sure_P = (self.best_P > -np.inf) & (self.best_P >= self.left_P)
        gap_P = np.where(sure_P, self.best_P, np.inf) - self.second_P
        floor_P = np.maximum(self.second_P, self.best_P - gap_P.min(initial=np.inf))
        return np.where(sure_P, floor_P, np.inf)

    def finish(self) -> None:
        """Drop all that is open."""
        entries = self.open.join([self.lead, *self.aside, *self.shelf])
        np.maximum.at(self.left_P, entries.prompt, entries.bound)

    def path(self, prompt: int, parent: Ints, step: Ints) -> Tokens:
        """Tokens of the prompt's best outcome."""
        tokens, record = [int(self.end_token_P[prompt])], int(self.end_record_P[prompt])
        while parent[record] >= 0:
            tokens.append(int(step[record]))
            record = int(parent[record])
        return tuple(reversed(tokens))


def find_modes(
    tree: PrefixTree,
    prompts: int,
    *,
    nodes: int,
    tokens: int | None = None,
    seconds: float | None = None,
    second: Second = "every",
    batch: int = 512,
) -> Modes:
    """The mode of each prompt of ``tree`` by best-first search, certified where the budget lets.

    Args:
        tree: prefixes of P prompts.
        prompts: P.
        nodes: prefixes that may be opened a prompt, at least 1.
        tokens: tokens that may go through the policy in all; None: no limit.
        seconds: wall-clock limit, looked at between forward passes; None: no limit. With one,
            the result depends on the machine's speed (never its truth).
        second: how far to go on for second likeliest outcomes p2, after all the modes. "every":
            until each is certified, at up to H/p2 prefixes a prompt where the mode costs H/p*;
            "least": until the least margin log p* - log p2 of all prompts is, which needs little
            more than the modes; "none".
        batch: rows that a forward pass aims at. 1 opens one prefix of each prompt at a time,
            which opens the fewest; more opens some that turn out below p*, in fewer passes.

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
    search = _Search(tree, prompts, second != "none")

    def grow(floor: Callable[[], Floats]) -> None:
        while True:
            search.sift(floor(), nodes)
            late = seconds is not None and perf_counter() - begun >= seconds
            if late or not len(search.open.prompt) + len(search.lead.prompt):
                return
            if tokens is not None and search.tokens >= tokens:
                return
            search.wave(batch, nodes, tokens)

    grow(lambda: search.best_P)
    if second != "none":
        search.unshelve()
        grow(search.second_floor if second == "every" else search.margin_floor)
    search.finish()
    found_P = search.end_record_P >= 0
    upper_P = np.maximum(search.best_P, search.left_P)
    second_upper_P = np.maximum(search.second_P, search.left_P)
    certified_P = found_P & (search.best_P >= upper_P)
    parent, step = np.concatenate(search.parents), np.concatenate(search.steps)
    return Modes(
        tokens_P=tuple(search.path(p, parent, step) if found_P[p] else () for p in range(prompts)),
        logp_P=search.best_P,
        upper_P=upper_P,
        certified_P=certified_P,
        finished_P=found_P & search.is_end_V[search.end_token_P],
        second_P=search.second_P,
        second_upper_P=second_upper_P,
        second_certified_P=certified_P & (search.second_P >= second_upper_P),
        nodes_P=search.nodes_P,
        tokens=search.tokens,
        seconds=perf_counter() - begun,
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
