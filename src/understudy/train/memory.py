"""What a training step will need in memory, computed before anything is allocated, and the micro-batch that fits.

The plan counts weights, gradients and optimiser state exactly, and activations by a formula that was held against
measured peaks (benchmarks/README.md). Not here: measuring what is in use, which is metrics.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from understudy.config import RunConfig
from understudy.model import build_model
from understudy.optim.groups import role
from understudy.runtime import Runtime

CPU_TOKENS = 8192
"""On a CPU a forward over more tokens is no faster, and outgrows the caches."""
BESIDE = 1.6
"""What kernels and the backward pass hold beside the counted activations: 1.2 to 1.65 times in all, measured on a CPU
over five presets (benchmarks/README.md)."""
USABLE = 0.8
"""The share of free memory a plan may fill; the rest is fragments and other programs' growth."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one process at its peak."""

    parameters: int
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    logits_bytes: int

    @property
    def total_bytes(self) -> int:
        fixed = self.weights_bytes + self.gradients_bytes + self.optimizer_bytes
        return fixed + self.activations_bytes + self.logits_bytes


def plan_memory(config: RunConfig, micro_batch_size: int, dtype: torch.dtype = torch.float32) -> MemoryPlan:
    """The memory of a step with forwards of ``micro_batch_size`` samples. The vocabulary must be known."""
    with torch.device("meta"):
        model = build_model(config.model)
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        kind = role(name, parameter)
        counts[kind] = counts.get(kind, 0) + parameter.numel()
    parameters = sum(counts.values())
    matrices = counts.get("matrix", 0) if config.optim.name == "muon" else 0
    optimizer = 4 * matrices + 8 * (parameters - matrices) + (4 * parameters if config.optim.ema else 0)
    shape = config.model.resolve()
    tokens = micro_batch_size * shape.context_length
    activations = int(BESIDE * tokens * activation_bytes_per_token(config, dtype))
    chunk = min(tokens, config.train.loss_chunk_tokens or tokens)
    # Logits, their fp32 copy or log-softmax, and the gradient of each.
    logits = chunk * shape.padded_vocab_size * (4 * 3 if dtype == torch.float32 else 2 * 2 + 4 * 2)
    return MemoryPlan(parameters, 4 * parameters, 4 * parameters, optimizer, activations, logits)


def activation_bytes_per_token(config: RunConfig, dtype: torch.dtype) -> int:
    """What the backward pass needs of the forward, for each token.

    A block keeps the inputs of its norms, of its four products and of its attention, and what its activation
    function saw (Korthikanti et al. 2022, section 4, without the attention matrix, which is never whole).
    """
    model = config.model.resolve()
    if model.family == "bigram":
        return 4 * model.padded_vocab_size
    item = 4 if dtype == torch.float32 else 2
    heads, kv_heads = model.n_heads * model.head_width, model.n_kv_heads * model.head_width
    attention = 2 * model.d_model + 2 * heads + 2 * kv_heads
    attention += 3 * (heads + kv_heads) if model.position == "rope" else 0  # turned copies
    attention += heads + kv_heads if model.qk_norm else 0
    mlp = 2 * model.d_model + model.d_ff * (4 if model.activation == "swiglu" else 2)
    dropout = 3 * model.d_model if model.dropout else 0
    block = attention + mlp + dropout
    kept = model.d_model * model.n_layers + block if config.train.activation_checkpointing else block * model.n_layers
    ngrams = 2 * len(model.ngram_orders) * model.d_model
    return item * (kept + ngrams + 4 * model.d_model)


def free_bytes(runtime: Runtime) -> int:
    """Memory this process could still take on its device."""
    if runtime.device.type == "cuda":
        return torch.cuda.mem_get_info(runtime.device)[0]
    import psutil

    return psutil.virtual_memory().available // runtime.world_size


def largest_micro_batch(config: RunConfig, runtime: Runtime, limit_bytes: int | None = None) -> int:
    """The largest divisor of one process's samples a step that is planned to fit the free memory.

    Raises:
        ValueError: not even one sample fits.
    """
    samples = max(1, config.train.batch_size // runtime.world_size)
    limit = USABLE * (free_bytes(runtime) if limit_bytes is None else limit_bytes)
    for micro in range(samples, 0, -1):
        too_long = runtime.device.type == "cpu" and micro > 1 and micro * config.model.context_length > CPU_TOKENS
        if samples % micro or too_long:
            continue
        if plan_memory(config, micro, runtime.dtype).total_bytes <= limit:
            return micro
    need = plan_memory(config, 1, runtime.dtype).total_bytes
    raise ValueError(
        f"one sample needs about {need / 2**30:.1f} GiB and {limit / 2**30:.1f} GiB may be used; choose a smaller model or "
        "context, or set train.activation_checkpointing true and train.loss_chunk_tokens 1024"
    )
