"""Models made ready for inference: linear layers in fp32, fp16, bf16 or int8.

    weights   stored as                            product
    fp32      the trained weights, shared          fp32
    fp16      fp16                                 fp16; activations are fp32 between layers on a CPU
    bf16      bf16                                 bf16; as for fp16
    int8      int8, one fp32 scale per output row  fp32 (autocast's under autocast), weights dequantized block by block

With fp32 and int8 weights on a CPU with one number of threads, a row of a batch gets the same bits whatever rows are beside
it: the same seed gives the same answer whatever else is running. Matrix products differ in the last bits by their number
of rows, so each layer is checked once, at load, for the numbers of rows that agree, and is given only those. With fp16 and
bf16 weights, and on a GPU, answers to the same seed may differ where two tokens are nearly as likely.

Only public functions of PyTorch are used. Not here: training in low precision, files of quantized weights.

Shapes: N rows, I input width, O output width.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.inference.generate import Model
from understudy.model import merge_lora
from understudy.model.score_head import ScoreHead
from understudy.runtime import DTYPES, choose_dtype

WEIGHTS = ("fp32", "fp16", "bf16", "int8")
HALF = ("fp16", "bf16")
BLOCK_NUMBERS = 1 << 17
"""Int8 weights dequantized at a time on a CPU: 512 KiB of fp32, which stay in the second-level cache. On one core of a
Xeon with 2 MiB of it, half and twice as many were slower for layers of 384 to 3072 outputs (28 November)."""


def prepare_for_inference(model: Model, weights: str = "fp32", rows: int = 8) -> Model:
    """A copy of ``model`` in evaluation mode with linear layers in ``weights``; the model itself is left as it is.

    Adapters are merged. Embeddings, norms and a score head stay in fp32, but on a GPU with fp16 or bf16 weights, where
    all is converted.

    Args:
        rows: the largest batch in which rows are to have the same bits as alone, where the weights allow that.

    Raises:
        ValueError: weights by another name.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights is {weights!r}; choose one of {', '.join(WEIGHTS)}")
    device = next(model.parameters()).device
    shared = {} if model.shape.lora else {id(p): p for p in [*model.parameters(), *model.buffers()]}
    prepared = copy.deepcopy(model, shared).eval()
    if model.shape.lora:
        merge_lora(prepared)
    if device.type != "cpu" and weights != "int8":
        return prepared.to(DTYPES[weights])
    calls: dict[tuple[int, ...], list[int]] = {}
    with torch.no_grad():
        for owner in list(prepared.modules()):
            for name, layer in list(owner.named_children()):
                if not isinstance(layer, nn.Linear) or isinstance(layer, ScoreHead):
                    continue
                kernel: nn.Module = layer
                if weights != "fp32":
                    kernel = Int8Linear(layer) if weights == "int8" else LowPrecisionLinear(layer, DTYPES[weights])
                if device.type == "cpu" and weights not in HALF:
                    key = (*layer.weight.shape, layer.bias is not None)
                    if key not in calls:
                        calls[key] = rows_per_call(kernel, layer.in_features, rows)
                    kernel = BatchInvariantLinear(kernel, calls[key])
                setattr(owner, name, kernel)
    return prepared


def default_weights(device: torch.device) -> str:
    """``bf16`` on CUDA (``fp16`` without bf16 units), else ``fp32``."""
    if device.type != "cuda":
        return "fp32"
    dtype, _ = choose_dtype(device)
    return next(name for name, value in DTYPES.items() if value == dtype)


def model_for_generation(model: Model, weights: str | None = None) -> Model:
    """The model to sample text with. Its weights are converted once, and not in each step as autocast would.

    Args:
        weights: fp32, fp16, bf16 or int8; None is :func:`default_weights` of the model's device.

    Returns:
        ``model`` itself for fp32, else a converted copy.
    """
    weights = weights or default_weights(next(model.parameters()).device)
    return model if weights == "fp32" else prepare_for_inference(model, weights)


def is_prepared(model: nn.Module) -> bool:
    return any(isinstance(module, BatchInvariantLinear | LowPrecisionLinear | Int8Linear) for module in model.modules())


class LowPrecisionLinear(nn.Module):
    """A linear layer with the weight and product in fp16 or bf16; input, bias and output are fp32."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.bias = layer.bias
        self.register_buffer("weight", layer.weight.detach().to(dtype))
        self.weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x.to(self.weight.dtype), self.weight).to(x.dtype)
        return y if self.bias is None else y + self.bias


class Int8Linear(nn.Module):
    """A linear layer with whole numbers from -127 to 127 as weights, and a scale for each output.

    Activations are not rounded. Blocks of weights are converted to the activations' precision when they are multiplied, so
    that a layer takes a quarter of the memory of fp32.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.bias, weight = layer.bias, layer.weight.detach().float()
        scales = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        self.register_buffer("numbers", (weight / scales[:, None]).round().to(torch.int8))  # (O, I)
        self.register_buffer("scales", scales)  # (O,)
        self.numbers: Tensor
        self.scales: Tensor
        self.block_rows = max(1, BLOCK_NUMBERS // layer.in_features) if weight.device.type == "cpu" else len(weight)

    def forward(self, x: Tensor) -> Tensor:
        blocks = [F.linear(x, block.to(x.dtype)) for block in self.numbers.split(self.block_rows)]
        y = (blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-1)) * self.scales
        return y if self.bias is None else y + self.bias


class BatchInvariantLinear(nn.Module):
    """A linear layer that is always given numbers of rows for which it computes the same bits.

    Args:
        calls: for each number of rows from 1 on, how many the kernel is given at a time, the last time filled up with
            zeros. A larger number of rows is given at once.
    """

    def __init__(self, kernel: nn.Module, calls: Sequence[int]) -> None:
        super().__init__()
        self.kernel, self.calls = kernel, tuple(calls)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (N, I)
        size = self.calls[len(rows) - 1] if 0 < len(rows) <= len(self.calls) else len(rows)
        y = in_calls(self.kernel, rows, size)
        return y.view(*x.shape[:-1], y.shape[-1])


def rows_per_call(kernel: Callable[[Tensor], Tensor], width: int, rows: int) -> list[int]:
    """For each number of rows up to ``rows``, how many to give the kernel at a time: of the largest group of numbers that
    compute the same bits, the one that takes fewest calls."""
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(0))
    group = max(equal_calls(kernel, x), key=lambda sizes: (len(sizes), sizes))
    return [min(group, key=lambda size: (math.ceil(n / size), size)) for n in range(1, rows + 1)]


def equal_calls(kernel: Callable[[Tensor], Tensor], x: Tensor) -> list[list[int]]:
    """Numbers of rows per call in groups: within a group, each row of ``x`` (N, I) gets the same bits, wherever in a call
    it stands and whatever is beside it. 1 is in one of the groups."""
    groups: list[tuple[Tensor, list[int]]] = []
    sizes = sorted({size for size in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32) if size < len(x)} | {len(x)})
    beside = torch.cat((x[:1], 3 * x[1:]))
    for size in sizes:
        y = in_calls(kernel, x, size)
        if not torch.equal(in_calls(kernel, beside, size)[:1], y[:1]):
            continue
        if any(not torch.equal(in_calls(kernel, x.roll(k, 0), size).roll(-k, 0), y) for k in range(1, size)):
            continue
        for other, members in groups:
            if torch.equal(other, y):
                members.append(size)
                break
        else:
            groups.append((y, [size]))
    return [members for _, members in groups]


def in_calls(kernel: Callable[[Tensor], Tensor], rows: Tensor, size: int) -> Tensor:
    """``kernel`` of ``rows`` (N, I), given ``size`` rows at a time, the last time filled up with zeros."""
    if len(rows) == size:
        return kernel(rows)
    count, missing = len(rows), -len(rows) % size
    if missing:
        rows = torch.cat((rows, rows.new_zeros(missing, rows.shape[1])))
    parts = [kernel(part) for part in rows.split(size)]
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[:count]
