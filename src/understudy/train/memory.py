"""The memory of a training step, computed before anything is allocated, and the micro-batch that fits.

Weights, gradients and optimiser state of all models are counted exactly, activations by a formula that was checked against
measured peaks (benchmarks/README.md). Not here: measuring memory in use (metrics.py).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import psutil
import torch

from understudy.config.align import RolloutConfig
from understudy.config.model import ModelConfig
from understudy.config.run import RunConfig
from understudy.model import build_model
from understudy.optim import role
from understudy.run import find_run
from understudy.runtime import Runtime
from understudy.train.objective import loss_chunk

CPU = torch.device("cpu")
CPU_TOKENS = 8192
"""On a CPU a forward over more tokens is no faster, and outgrows the caches."""
ACTIVATION_FACTOR = 1.6
"""Memory of kernels and of the backward pass beside the counted activations: 1.2 to 1.65 times in all, measured on a CPU
over five presets (benchmarks/README.md)."""
USABLE = 0.8
"""The share of free memory that a plan may fill; the rest is for fragmentation and other programs."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one process at its peak. ``parameters``: of the model that the run saves; bytes are of all models."""

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


def plan_memory(
    config: RunConfig, micro_batch_size: int, dtype: torch.dtype = torch.float32, tokens_per_sample: int | None = None,
    device: torch.device = CPU,
) -> MemoryPlan:  # fmt: skip
    """The memory of a step with forwards of ``micro_batch_size`` samples. The vocabulary must be known.

    Args:
        tokens_per_sample: most tokens of a sample; by default the context, as often as the table of stages says.
    """
    models = [(config.model, True), *other_models(config)]
    states = [_state_bytes(config, model, trained, dtype) for model, trained in models]
    _, weights, gradients, optimizer = (sum(numbers) for numbers in zip(*states))
    length = config.model.context_length
    tokens_per_sample = tokens_per_sample or config.info.sequences_per_sample * length
    if config.info.rollout and getattr(config.section(RolloutConfig), "ptx_data", None):
        tokens_per_sample += length  # PPO-ptx adds a row of conversations for each completion
    tokens = micro_batch_size * tokens_per_sample
    activations = int(ACTIVATION_FACTOR * tokens * activation_bytes_per_token(config, dtype))
    chunk = tokens
    if "train.loss_chunk_tokens" not in config.info.ignored:
        chunk = min(tokens, loss_chunk(config.train.loss_chunk_tokens, config.model.vocab_size or 1, device) or tokens)
    # Logits, their fp32 copy or log-softmax, and the gradient of each.
    logits = chunk * config.model.resolve().padded_vocab_size * (4 * 3 if dtype == torch.float32 else 2 * 2 + 4 * 2)
    return MemoryPlan(states[0][0], weights, gradients, optimizer, activations, logits)


def other_models(config: RunConfig) -> list[tuple[ModelConfig, bool]]:
    """The models that a stage holds beside its policy, and whether each is trained: the reference model, and of a rollout
    stage the reward model and a separate critic. A reward model that is not there yet is planned with the policy's shape."""
    lora = config.model.lora
    shared = lora is not None and not lora.embeddings  # the reference model is the frozen one
    models = [(config.model, False)] if config.info.reference_model and not shared else []
    if not config.info.rollout:
        return models
    rollout, reward = config.section(RolloutConfig), config.model
    if rollout.reward_model and rollout.reward_weight:
        with contextlib.suppress(ValueError):
            reward = find_run(rollout.reward_model).config().model
        models.append((reward, False))
    critic = getattr(rollout, "critic", "head")  # grpo has none
    return models if critic == "head" else [*models, (reward if critic == "reward" else config.model, True)]


def _state_bytes(
    config: RunConfig, model_config: ModelConfig, trained: bool, dtype: torch.dtype
) -> tuple[int, int, int, int]:
    """Parameters of a model, and the bytes of its weights, gradients and optimiser state."""
    with torch.device("meta"):
        model = build_model(model_config)
    parameters, weights, gradients, optimizer = 0, 0, 0, 0
    for name, parameter in model.named_parameters():
        parameters += parameter.numel()
        in_bf16 = trained and dtype == torch.bfloat16 and parameter.ndim > 1 and not parameter.requires_grad
        weights += (2 if in_bf16 else 4) * parameter.numel()  # as hold_frozen_weights of model/lora.py
        if trained and parameter.requires_grad:
            gradients += 4 * parameter.numel()
            muon = config.optim.name == "muon" and role(name, parameter) == "matrix"
            optimizer += (4 if muon else 8) * parameter.numel()
    ema = 4 * parameters if trained and config.optim.ema else 0
    return parameters, weights, gradients, optimizer + ema


def activation_bytes_per_token(config: RunConfig, dtype: torch.dtype) -> int:
    """Bytes of activations per token that the backward pass needs.

    A block keeps the inputs of its norms, of its four products, of its attention or short convolution and of its
    activation function (Korthikanti et al. 2022, section 4, without the attention matrix, which is never whole).
    """
    model = config.model.resolve()
    if model.family == "bigram":
        return 4 * model.padded_vocab_size
    item = 4 if dtype == torch.float32 else 2
    heads, kv_heads = model.n_heads * model.head_width, model.n_kv_heads * model.head_width
    attention = 2 * model.d_model + 2 * heads + 2 * kv_heads
    attention += 3 * (heads + kv_heads) if model.position == "rope" else 0  # rotated copies
    attention += heads + kv_heads if model.qk_norm else 0
    # Of the norm 2, b, c, x, the convolution's input and sum, and a shifted input for each of its places.
    conv = model.d_model * (7 + model.conv_width)
    mlp = 2 * model.d_model + model.d_ff * (3 if model.activation == "swiglu" else 2)
    dropout = 3 * model.d_model if model.dropout else 0
    convs = len(model.conv_layers)
    features = attention * model.attention_layers + conv * convs + (mlp + dropout) * model.n_layers
    if config.train.activation_checkpointing:
        features = model.d_model * model.n_layers + max(attention, conv if convs else 0) + mlp + dropout
    ngrams = 2 * len(model.ngram_orders) * model.d_model
    return item * (features + ngrams + 4 * model.d_model)


def free_bytes(runtime: Runtime) -> int:
    """Bytes that this process could still allocate on its device."""
    if runtime.device.type == "cuda":
        return torch.cuda.mem_get_info(runtime.device)[0]
    return psutil.virtual_memory().available // runtime.world_size


def largest_micro_batch(
    config: RunConfig, runtime: Runtime, free: int | None = None, tokens_per_sample: int | None = None
) -> int:
    """The largest divisor of one process's samples a step whose plan fits the memory, the same in every process.

    Args:
        free: bytes that this process could allocate; measured by default. The least of all processes counts.
        tokens_per_sample: as for :func:`plan_memory`.

    Raises:
        ValueError: not even one sample fits.
    """
    samples = max(1, config.train.batch_size // runtime.world_size)
    limit = USABLE * min(runtime.all_gather(free_bytes(runtime) if free is None else free))
    most = max(1, CPU_TOKENS // config.model.context_length) if runtime.device.type == "cpu" else samples
    for micro in (n for n in range(min(samples, most), 0, -1) if samples % n == 0):
        needed = plan_memory(config, micro, runtime.dtype, tokens_per_sample, runtime.device).total_bytes
        if needed <= limit:
            return micro
    chunked = "" if "train.loss_chunk_tokens" in config.info.ignored else " and train.loss_chunk_tokens 1024"
    raise ValueError(
        f"one sample needs about {needed / 2**30:.1f} GiB and {limit / 2**30:.1f} GiB may be used; choose a smaller model "
        f"or context, or set train.activation_checkpointing true{chunked}"
    )


def with_vocabulary(config: RunConfig) -> RunConfig:
    """The configuration with the vocabulary of its tokenizer: known for bpe and gpt2, a guess for characters."""
    tokenizer = config.tokenizer
    vocab_size = config.model.vocab_size or tokenizer.vocab_size or (65 if tokenizer.kind == "char" else 50257)
    return config.model_copy(update={"model": config.model.model_copy(update={"vocab_size": vocab_size})})
