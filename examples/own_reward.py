"""A reward of one's own: any function from (policy, prompts, samples) to a number a row.

Three prompts, four possible responses each; the policy is a table, so every round is exact.
Its likeliest response to two of the prompts is to give up. Rewarded by its own likelihood it
would learn to give up there always; this reward takes that away, and keeps the policy's
opinion of the rest. Run it: python examples/own_reward.py
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import srlm
from srlm.policies.tabular import rows

TEXTS = ("I cannot say.", "It is 12.", "It is 13.", "Perhaps 12 or 13.")
TABLE = np.log(
    [
        [0.50, 0.30, 0.15, 0.05],
        [0.40, 0.10, 0.30, 0.20],
        [0.20, 0.60, 0.10, 0.10],
    ]
)


def commits(
    policy: srlm.Policy, prompts: Sequence[srlm.Prompt], samples: srlm.Samples
) -> srlm.Scored:
    """log pi(y|x), less 10 nats where y gives up; responses that name two numbers have none.

    A plain array of floats would do as well; `Scored` adds figures and sentences to the round's
    report. Not-a-number leaves a response out of the update.
    """
    gives_up = np.array(["cannot" in text for text in samples.text_R])
    vague = np.array([" or " in text for text in samples.text_R])
    reward_R = np.where(vague, np.nan, samples.logp_R - 10.0 * gives_up)
    return srlm.Scored(
        reward_R, {"gives up": srlm.Mean(samples.weight_R[gives_up].sum(), len(prompts))}
    )


def main() -> None:
    policy, prompts = (
        srlm.Tabular(TABLE, text_M=TEXTS, responses_M=((0,), (1,), (2,), (3,))),
        rows(3),
    )
    method = srlm.Method(
        samples=srlm.SampleSettings(source="enumerate"),
        reward=commits,
        update=srlm.UpdateSettings(beta=1.0),
    )
    memory = srlm.Memory()
    for r in srlm.self_reward(policy, prompts, prompts, rounds=3, method=method, folder=memory):
        now = memory.policy
        assert isinstance(now, srlm.Tabular)
        likeliest = [TEXTS[m] for m in now.log_table(prompts).argmax(1)]
        print(f"round {r.round}: {likeliest}")
    assert likeliest == ["It is 12.", "It is 13.", "It is 12."]


if __name__ == "__main__":
    main()
