"""Best of n: of n sampled answers the one with the highest reward, which is what optimising a reward can be held against.

The expected score of the best of n is estimated from N >= n samples without bias (Gao et al. 2022, appendix I). Its
divergence from the policy that sampled is log n - (n - 1) / n nats (Stiennon et al. 2020, appendix G.3), and less where
answers come twice or tie (Beirami et al. 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from understudy.config.stages import STAGES
from understudy.evaluate.statistics import mean_estimate
from understudy.files import write_json
from understudy.model import GPT
from understudy.run import BEST_OF_N, Run, RunFolder
from understudy.runtime import Runtime
from understudy.stages.answers import EncodedPrompt, sample_completions
from understudy.stages.rollout import RolloutModels, gather, open_asked
from understudy.train.init_from import load_reference

SCORES = ("reward", "score", "truth")


def best_of_run(
    run: Run, runtime: Runtime, most: int = 64, prompts: int = 64, seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Best of n from what a ppo or grpo run started from, rewarded as the run was, on its validation prompts. The result
    is kept in the run's folder as best_of_n.json.

    Raises:
        ValueError: another stage's run, or its start, its reward model or its prompts are not there.
    """
    if not run.config.info.rollout:
        stages = " and ".join(name for name, info in STAGES.items() if info.rollout)
        raise ValueError(
            f"{run.path} is a run of {run.config.stage}; only {stages} optimise a reward: name one of those"
        )
    if most < 2 or most & (most - 1):
        raise ValueError(f"most is {most}; a power of two from 2 is wanted, such as 64")
    if prompts < 2:
        raise ValueError(f"prompts is {prompts}; a number from 2 is wanted")
    folder = RunFolder(run.path)
    _, asked = open_asked(run.config, run.tokenizer, "val")
    assert isinstance(run.model, GPT)
    actors = gather(run.config, runtime, run.tokenizer, run.model.to(runtime.device), load_reference(folder), [])
    asked = asked[:prompts]
    rows = best_of_n(actors, asked, most, seed, progress)
    found = {"step": run.step, "prompts": len(asked), "samples": most, "seed": seed, "rows": rows}
    if runtime.is_main:
        write_json(folder.path / BEST_OF_N, found)
    return found


def best_of_n(
    actors: RolloutModels,
    asked: Sequence[EncodedPrompt],
    most: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """For n = 1, 2, 4, ... ``most``: what the best of n answers of the reference, by reward, is worth.

    Each row has ``n``, ``kl``, ``reward``, and where they are known ``score`` and ``truth``, with their 95% intervals
    over prompts.
    """
    drawn: list[dict[str, torch.Tensor]] = []
    for number, each in enumerate(asked):
        many, first = [each] * most, number * most
        answers = sample_completions(
            actors.reference, actors.tokenizer, many, actors.rollout, seed, actors.runtime, first
        )
        drawn.append(actors.rewards(answers))
        if progress:
            progress(number + 1, len(asked))
    known = [name for name in SCORES if all(name in each for each in drawn)]
    rows = []
    for n in (2**k for k in range(most.bit_length())):
        row: dict[str, Any] = {"n": n, "kl": math.log(n) - (n - 1) / n}
        for name in known:
            told = mean_estimate([expected_of_best(each["reward"], each[name], n) for each in drawn])
            row |= {name: told.value, f"{name}_low": told.low, f"{name}_high": told.high}
        rows.append(row)
    return rows


def expected_of_best(reward: torch.Tensor, value: torch.Tensor, n: int) -> float:
    """The expected ``value`` of the answer whose ``reward`` is highest among n drawn from these N, without replacement.

    The k-th lowest of N is the best of n with probability C(k - 1, n - 1) / C(N, n).

    >>> expected_of_best(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]), 2)
    1.0
    """
    total = len(reward)
    ordered = value[reward.argsort(stable=True)].double().tolist()
    chances = [math.comb(k, n - 1) / math.comb(total, n) for k in range(total)]
    return math.fsum(chance * each for chance, each in zip(chances, ordered))
