"""Solutions of the exercises in notebook 5."""

import math

import numpy as np
import torch


def mean_loss(logits, targets):
    kept = targets != -100
    logprobs = torch.log_softmax(logits[kept], dim=-1)  # (N, V)
    return -logprobs.gather(1, targets[kept][:, None]).mean()


def learning_rate(step, steps, warmup_steps, peak):
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def tokens_and_epochs(steps, batch_size, context_length, data_tokens):
    tokens = steps * batch_size * context_length
    return tokens, tokens / data_tokens


def fit_power_law(x, y):
    slope, intercept = np.polyfit(np.log(x), np.log(y), 1)
    return math.exp(intercept), -slope
