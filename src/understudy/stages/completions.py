"""Sampled completions: sampling them, laying them out in batches, evaluating a model on each of their tokens, and the
clipped policy loss that PPO and GRPO share.

Sampling and evaluating use the same model at the same temperature, without truncation of the distribution.

Shapes: N completions, A tokens of the longest, M tokens of all of them; R rows, T time, D model width, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.config.align import RolloutConfig
from understudy.data.chat.packing import pack_prefix_trees
from understudy.data.chat.prompts import Prompt
from understudy.data.loader import Batch
from understudy.inference.generate import evaluating, generate_text
from understudy.inference.sampling import SamplingSettings
from understudy.losses import clipped_ratio_sum, entropy, kl_estimate, token_logprobs, vocabulary_logprobs
from understudy.model import GPT
from understudy.rewards.model import completion_hidden_states
from understudy.runtime import Runtime, autocast_of
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.chat import RefusedConversation, end_ids, render
from understudy.train.objective import Objective

SAMPLING_BATCH = 128
"""Completions sampled together."""
FORWARD_BATCH = 64
"""Completions in one forward without gradients."""


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt with the token ids that a completion follows."""

    record: Prompt
    tokens: list[int]


@dataclass(frozen=True)
class SampledCompletion:
    """A sampled completion: ``tokens`` with their log-probabilities; ``has_eos`` says that it ends with an end token."""

    prompt: EncodedPrompt
    tokens: list[int]
    logprobs: list[float]
    has_eos: bool
    text: str


def encode_prompts(prompts: Iterable[Prompt], tokenizer: Tokenizer, max_tokens: int) -> list[EncodedPrompt]:
    """Encode the prompts, without those of more than ``max_tokens`` tokens and those that the chat template refuses."""
    encoded = []
    for prompt in prompts:
        with contextlib.suppress(RefusedConversation):
            tokens = render(tokenizer, list(prompt.messages), reply=True).tokens
            encoded += [EncodedPrompt(prompt, tokens)] if len(tokens) <= max_tokens else []
    return encoded


def sample_completions(
    model: GPT, tokenizer: Tokenizer, prompts: Sequence[EncodedPrompt], config: RolloutConfig, seed: int,
    runtime: Runtime, first: int = 0,
) -> list[SampledCompletion]:  # fmt: skip
    """Sample a completion of each prompt.

    The prompts are numbered from ``first``. A completion's random draws depend on the seed and on its prompt's number
    only, neither on the other prompts nor on the number of processes.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].tokens))  # equal lengths need no padding
    completions: dict[int, SampledCompletion] = {}
    for start in range(0, len(order), SAMPLING_BATCH):
        numbers = order[start : start + SAMPLING_BATCH]
        with runtime.autocast():  # around all steps, so that the weights are cast once and not for each token
            generated = generate_text(
                model, tokenizer, [prompts[i].tokens for i in numbers], config.max_new_tokens,
                SamplingSettings(config.temperature, seed=seed), autocast=autocast_of(runtime),
                end_ids=end_ids(tokenizer), numbers=[first + i for i in numbers],
            )  # fmt: skip
        for i, text in zip(numbers, generated):
            completions[i] = SampledCompletion(
                prompts[i], text.tokens, text.logprobs, text.finish_reason == "stop", text.text.strip()
            )
    return [completions[i] for i in range(len(prompts))]


def collate_completions(completions: Sequence[SampledCompletion], context_length: int) -> Batch:
    """A batch of completions with their prompts, several to a row; a prompt is read once for all of its completions.

    Returns:
        ``tokens``, ``documents`` and ``branch_ids`` (R, T); ``places`` (M,), the positions in R x T that predict the M
        tokens of all completions, in order; ``targets`` (M,), those tokens.
    """
    batch, places = pack_prefix_trees(
        [(completion.prompt.tokens, completion.tokens[:-1]) for completion in completions], context_length
    )
    batch["places"] = torch.cat(places)
    batch["targets"] = torch.tensor([token for completion in completions for token in completion.tokens])
    return batch


def completion_mask(completions: Sequence[SampledCompletion]) -> Tensor:
    """Mask (N, A) that is true on the tokens of each completion."""
    lengths = torch.tensor([len(completion.tokens) for completion in completions])
    return torch.arange(int(lengths.max())) < lengths[:, None]


def sampled_logprobs(completions: Sequence[SampledCompletion]) -> Tensor:
    """Log-probabilities (N, A) of the tokens as they were sampled, 0 beyond a completion's end."""
    mask = completion_mask(completions)
    logprobs = torch.tensor([logprob for completion in completions for logprob in completion.logprobs])
    return torch.zeros(mask.shape).masked_scatter(mask, logprobs)


@torch.no_grad()
def compute_per_token(
    completions: Sequence[SampledCompletion], compute: Callable[[Batch], Tensor], module: torch.nn.Module,
    context_length: int, runtime: Runtime,
) -> Tensor:  # fmt: skip
    """Values (N, A) of ``compute(batch)`` (M,) for the tokens of all completions, 0 beyond a completion's end.

    ``module``, which ``compute`` calls, is in evaluation mode meanwhile.
    """
    values = []
    with evaluating(module), runtime.autocast():
        for start in range(0, len(completions), FORWARD_BATCH):
            batch = collate_completions(completions[start : start + FORWARD_BATCH], context_length)
            values.append(compute({name: tensor.to(runtime.device) for name, tensor in batch.items()}).float().cpu())
    mask = completion_mask(completions)
    return torch.zeros(mask.shape).masked_scatter(mask, torch.cat(values))


def completion_logprobs(model: GPT, batch: Batch, temperature: float) -> Tensor:
    """Log-probabilities (M,) of the tokens of completions under ``model``."""
    logits = model.logits(completion_hidden_states(model, batch)[None])[0]
    return token_logprobs(logits, batch["targets"], temperature)


def completion_kl(policy: GPT, reference: GPT, batch: Batch, temperature: float) -> Tensor:
    """KL divergence (M,) of the policy's next-token distribution from the reference's, over the whole vocabulary.

    Its sum over a completion that the policy sampled is an unbiased estimate of the KL of whole completions, and is
    never negative.
    """
    logprobs, reference_logprobs = (
        vocabulary_logprobs(model.logits(completion_hidden_states(model, batch)[None])[0], temperature)
        for model in (policy, reference)
    )
    return (logprobs.exp() * (logprobs - reference_logprobs)).sum(-1).clamp(min=0)


class PolicyObjective(Objective):
    """The clipped loss of a policy on completions of the behaviour policy, the one that sampled them.

    A batch is that of :func:`collate_completions` with ``old_logprobs`` and ``advantages`` (M,), and with
    ``reference_logprobs`` (M,) where the KL from the reference is part of the loss.
    """

    model: GPT

    def __init__(self, model: GPT, config: RolloutConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def count(self, batch: dict[str, Tensor]) -> Tensor:
        return torch.tensor(float(len(batch["targets"])), device=batch["targets"].device)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.policy_loss(batch, completion_hidden_states(self.model, batch))

    def policy_loss(self, batch: dict[str, Tensor], hidden: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The summed loss from ``hidden`` (M, D), and the sums to be logged."""
        config, old_logprobs = self.config, batch["old_logprobs"]
        logits = self.model.logits(hidden[None])[0]  # (M, V)
        vocabulary = vocabulary_logprobs(logits, config.temperature)  # (M, V)
        logprobs = vocabulary.gather(-1, batch["targets"][:, None])[:, 0]  # (M,)
        clipped_loss, clipped_tokens = clipped_ratio_sum(
            logprobs, old_logprobs, batch["advantages"], config.clip_low, config.clip_high
        )
        with torch.set_grad_enabled(torch.is_grad_enabled() and config.entropy_bonus > 0):  # else it is only logged
            entropy_sum = entropy(vocabulary).sum()
        sums = {
            "policy_loss": clipped_loss, "entropy": entropy_sum, "clip_fraction": clipped_tokens,
            "behaviour_kl": kl_estimate(old_logprobs, logprobs, "k3").sum(),
            "ratio": (logprobs - old_logprobs).exp().sum(),
        }  # fmt: skip
        loss = clipped_loss - config.entropy_bonus * entropy_sum
        if "reference_logprobs" in batch:
            sums["kl_loss"] = kl_estimate(logprobs, batch["reference_logprobs"], config.kl_estimator).sum()
            loss = loss + config.kl_coefficient * sums["kl_loss"]
        return loss, sums
