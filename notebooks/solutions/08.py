"""Answers to the exercises of notebook 8."""

import torch


def clipped_loss(logprobs, old_logprobs, advantages, low, high):
    ratio = (logprobs - old_logprobs).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages).mean()


def leave_one_out(rewards):
    size = rewards.shape[1]
    others = (rewards.sum(1, keepdim=True) - rewards) / (size - 1)
    return rewards - others


def token_advantages(rewards, values, lam):
    advantages, following, next_value = [], 0.0, 0.0
    for reward, value in zip(reversed(rewards), reversed(values), strict=True):
        following = reward + next_value - value + lam * following
        next_value = value
        advantages.insert(0, following)
    return advantages
