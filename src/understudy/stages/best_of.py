"""Best of n: the completion with the highest reward among n samples, a baseline for optimising a reward.

The expected score of the best of n is estimated without bias from N >= n samples (Gao et al. 2022, appendix I). Its KL
from the sampling policy is log n - (n - 1) / n nats (Stiennon et al. 2020, appendix G.3), and less where completions
repeat or their rewards tie (Beirami et al. 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from understudy.config.align import RolloutConfig
from understudy.config.stages import STAGES
from understudy.evaluation.statistics import mean_estimate
from understudy.files import write_json
from understudy.model import as_gpt
from understudy.run import BEST_OF_N, Run, RunFolder
from understudy.runtime import Runtime
from understudy.stages.completions import EncodedPrompt, sample_completions
from understudy.stages.rollout import RolloutModels
from understudy.stages.rollout_stage import load_models, open_encoded_prompts
from understudy.tokenizer import Tokenizer
from understudy.train.init_from import load_reference

METRICS = ("reward", "score", "true_score")


def best_of_run(
    run: Run, runtime: Runtime, most: int = 64, prompts: int = 64, seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Best of n from the reference model of a ppo or grpo run, with the run's reward, on its validation prompts. The
    result is also written to the run's folder as best_of_n.json.

    Raises:
        ValueError: a run of another stage, or its reference run, reward model or prompts are not there.
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
    _, encoded = open_encoded_prompts(run.config, run.tokenizer, "val")
    encoded = encoded[:prompts]
    policy = as_gpt(run.model).to(runtime.device)
    models = load_models(run.config, runtime, run.tokenizer, policy, as_gpt(load_reference(folder).model))
    rows = best_of_n(models, run.config.section(RolloutConfig), run.tokenizer, encoded, most, seed, runtime, progress)
    result = {"step": run.step, "prompts": len(encoded), "samples": most, "seed": seed, "rows": rows}
    if runtime.is_main:
        write_json(folder.path / BEST_OF_N, result)
    return result


def best_of_n(
    models: RolloutModels, config: RolloutConfig, tokenizer: Tokenizer, prompts: Sequence[EncodedPrompt], most: int,
    seed: int, runtime: Runtime, progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """For n = 1, 2, 4, ... ``most``: the expected metrics of the best of n completions of the reference, by reward.

    Each row has ``n``, ``kl``, ``reward``, and where they are known ``score`` and ``true_score``, with their 95% intervals
    over prompts.
    """
    values: list[dict[str, torch.Tensor]] = []  # of each prompt, (most,)
    for number, prompt in enumerate(prompts):
        same = [prompt] * most
        completions = sample_completions(models.reference, tokenizer, same, config, seed, runtime, number * most)
        values.append(models.reward(completions))
        if progress:
            progress(number + 1, len(prompts))
    rows = []
    for n in (2**k for k in range(most.bit_length())):
        row: dict[str, Any] = {"n": n, "kl": math.log(n) - (n - 1) / n}
        for name in METRICS:
            known = [value for value in values if name in value and not value[name].isnan().any()]
            if known:
                result = mean_estimate([expected_of_best(value["reward"], value[name], n) for value in known])
                row |= result.named(name)
        rows.append(row)
    return rows


def expected_of_best(reward: torch.Tensor, value: torch.Tensor, n: int) -> float:
    """The expected ``value`` of the completion with the highest ``reward`` among n of these N, without replacement.

    The k-th lowest of N is the best of n with probability C(k - 1, n - 1) / C(N, n).

    >>> expected_of_best(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]), 2)
    1.0
    """
    total = len(reward)
    ordered = value[reward.argsort(stable=True)].double().tolist()
    chances = [math.comb(k, n - 1) / math.comb(total, n) for k in range(total)]
    return math.fsum(chance * x for chance, x in zip(chances, ordered))
