"""The loop: the page to read first.

    prompts -> samples -> rewards -> pairs -> train -> measure -> report

``self_reward`` runs rounds of these words on any policy. What a round consists of is in ``rounds``,
the equations in ``losses``, stages are kept by ``run_folder``; ``runner`` makes the report.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from srlm import stopping
from srlm.data import split
from srlm.engines.base import Executor
from srlm.measure.evaluate import reference_of
from srlm.policies.base import Policy
from srlm.progress import Progress
from srlm.rounds import (
    Method,
    derived,
    joined_pairs,
    measure_round,
    reward_report,
    rewards_and_pairs,
    round_prompts,
    sample_round,
)
from srlm.run_folder import Folder, Memory
from srlm.train import settled
from srlm.types import Estimate, Pairs, Prompt, Round

HELD_OUT = 0.1
"""Share of the prompts that is held out where no held-out prompts are given."""


def self_reward(
    policy: Policy,
    prompts: Sequence[Prompt],
    held_out: Sequence[Prompt] | None = None,
    *,
    rounds: int = 5,
    method: Method | None = None,
    seed: int = 0,
    folder: Folder | None = None,
    progress: Progress | None = None,
) -> Iterator[Round]:
    """Self-reward ``policy`` for ``rounds`` rounds ([SR] eq. 1-4); yields rounds 0, 1, ..., T.

    Round t samples from pi_t, rewards the samples by pi_t, pairs them, and trains towards
    pi_{t+1} = argmin of the objective, which for the likelihood reward is
    pi_t^(1 + 1/beta) normalised, where the policy class contains it. Every policy is measured
    on held-out prompts. With ``method.stop`` the run may end before (``srlm.stopping``).

    A stage that the folder has is not made again.

    Args:
        policy: pi_0; in a folder that was begun, its last policy. In memory it is left as it is,
            and ``Memory.policy`` is the trained one; with another folder it is trained itself.
        prompts: training prompts.
        held_out: prompts measured on, never trained on; a tenth of ``prompts`` if left out.
        rounds: T.
        method: reward, objective, pairing and settings; likelihood self-reward if left out.
        seed: of everything sampled.
        folder: where stages are kept: a ``Memory`` or a ``RunFolder``; in memory if left out.
        progress: where to show stages; silent if left out.

    Raises:
        UserError: prompts that the policy cannot take, not-a-number, an update that diverges.
    """
    method, progress = method or Method(), progress or Progress.silent()
    folder = Memory() if folder is None else folder
    if held_out is None:
        prompts, held_out = split(prompts, HELD_OUT)
    held_out = held_out[: method.measure.prompts]
    a_round = min(len(prompts), method.samples.prompts or len(prompts))
    method = replace(method, update=settled(method.update, policy, a_round))
    folder.begin(policy)
    base = None
    records: list[Round] = []
    votes: list[Estimate] = []
    for t in range(rounds + 1):
        executor = Executor(method.engine, partial(folder.shelf, t))

        # measure
        if not folder.has(t, "round"):
            if t and base is None:
                first = (folder.get(0, "table"), folder.get(0, "held_out"))
                base = reference_of(*first, folder.base_log_prob)
            with progress.stage(f"round {t}: measure", total=len(held_out)) as bar:
                policy, tell = folder.get(t, "policy"), bar.advance
                made = measure_round(policy, held_out, method, base, records, seed, tell, executor)
            folder.keep(t, "held_out", made.samples, held_out)
            folder.keep(t, "table", made.table)
            update = folder.get(t, "update") if t else None
            rewards = folder.get(t - 1, "rewards") if t else None
            folder.keep(t, "round", Round(t, made.estimates, update, rewards))
        records.append(folder.get(t, "round"))
        yield records[-1]
        if stop := stopping.after_measuring(records, method.stop, last=t == rounds):
            folder.end(stop)
        if stop or t == rounds:
            return

        # samples
        chosen = round_prompts(prompts, method.samples.prompts, seed, t)
        if not folder.has(t, "pairs") and not folder.has(t, "samples"):
            with progress.stage(f"round {t + 1}: samples", total=len(chosen)) as bar:
                own, shelf = derived(seed, "samples", t), executor.shelf("samples")
                policy = folder.get(t, "policy")
                drawn = sample_round(policy, chosen, method, own, shelf, bar.advance)
                folder.keep(t, "samples", drawn, chosen)

        # rewards, pairs
        if not folder.has(t, "pairs"):
            with progress.stage(f"round {t + 1}: rewards", total=len(chosen)) as bar:
                policy, parts = folder.get(t, "policy"), folder.get(t, "samples")
                paired = list(
                    rewards_and_pairs(policy, chosen, parts, method, executor, bar.advance)
                )
            folder.keep(t, "rewards", reward_report(paired).to_json())
            folder.keep(t, "pairs", joined_pairs(paired, len(chosen)), chosen)
        pairs: Pairs = folder.get(t, "pairs")
        votes.append(Estimate.from_json(folder.get(t, "rewards")["vote_correlation"]))
        if stop := stopping.after_rewards(records, pairs.distinguishable, votes, method.stop):
            folder.end(stop)
            return

        # train
        if not folder.has(t + 1, "policy"):
            work = pairs.groups * (method.update.epochs or 1)
            with progress.stage(f"round {t + 1}: train", total=work) as bar:
                trained = method.fit(
                    folder.get(t, "policy"),
                    [*chosen, *pairs.asked],
                    pairs,
                    method.objective,
                    method.update,
                    seed=derived(seed, "update", t),
                    advance=bar.advance,
                )
            folder.keep(t + 1, "policy", trained, chosen)
