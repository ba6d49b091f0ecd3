"""Solutions of the exercises in notebook 11."""

import torch


def lora_forward(x, weight, a, b, alpha):
    return x @ weight.T + alpha / len(a) * (x @ a.T) @ b.T


def merged_weight(weight, a, b, alpha):
    return weight + alpha / len(a) * (b @ a)


def adapter_parameters(shapes, rank):
    return sum(rank * (outputs + inputs) for outputs, inputs in shapes)


def quantise(block):
    scale = float(block.abs().max()) / 127
    if scale == 0:
        return 0.0, torch.zeros(32, dtype=torch.int8)
    return scale, (block / scale).round().to(torch.int8)
