"""Solutions of the exercises of notebook 3: the whole GPT."""

import torch


def layer_norm(x, weight, bias, eps=1e-5):
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    return centred / (variance + eps).sqrt() * weight + bias


def count_parameters(vocab_size, context_length, n_layers, d_model):
    D = d_model
    attention = (3 * D * D + 3 * D) + (D * D + D)
    mlp = (4 * D * D + 4 * D) + (4 * D * D + D)
    norm = 2 * D
    return vocab_size * D + context_length * D + n_layers * (attention + mlp + 2 * norm) + norm


def windows(ids, starts, length):
    if any(start < 0 or start + length >= len(ids) for start in starts):
        raise ValueError("a window and its targets must lie inside the text")
    places = torch.tensor(starts)[:, None] + torch.arange(length)
    return ids[places], ids[places + 1]


def keep_top_k(logits, k):
    smallest = logits.topk(min(k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < smallest, -torch.inf)
