"""A trained model made ready to answer: weights in fp32, fp16, bf16 or int8, and for each layer the fastest kernel here.

A token costs one product of every weight matrix with a few rows, and libraries differ fivefold in how fast they do that,
by machine, matrix and number of rows. So each layer is timed once, at load. A kernel may also round a row differently
in one batch than in another; only those are used together that give a row the same bits in every batch of 1 to ``rows``
rows, so that an answer does not depend on what else is running. Where it pays to wait for a compiler, compiled.py takes
the place of these kernels.

The trained model stays as it is; fp32 shares its memory. Not here: training in low precision, files of quantized
weights.

Shapes: N rows, I input width, O output width.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.inference.compiled import RowsLinear, compile_step
from understudy.inference.generate import Model
from understudy.model import GPT, merge_lora

WEIGHTS = ("fp32", "fp16", "bf16", "int8")
Kernel = Callable[[Tensor], Tensor]  # (N, I) -> (N, O), fp32
Pack = Callable[[Tensor, Tensor | None], Kernel]
COLD_BYTES = 1 << 26
"""What is timed reads this much before it reads anything twice, so that no cache flatters it."""


class FastLinear(nn.Module):
    """A linear layer with a kernel of its own, for inference only.

    Args:
        calls: for each number of rows from 1 on, how many the kernel is given at a time. A larger number of rows is
            given at once.
    """

    def __init__(self, kernel: Kernel, calls: Sequence[int]) -> None:
        super().__init__()
        self.kernel, self.calls = kernel, tuple(calls)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if 0 < len(rows) <= len(self.calls):
            y = in_calls(self.kernel, rows, self.calls[len(rows) - 1])
        else:
            y = self.kernel(rows)
        return y.view(*x.shape[:-1], y.shape[-1])


def prepare_for_inference(model: Model, weights: str = "fp32", rows: int = 8, compiled: bool = False) -> Model:
    """A copy of ``model`` that computes its linear layers in ``weights``, as fast as this machine can.

    On a CPU, the rows of any batch of up to ``rows`` have the same bits as each alone, and activations stay in fp32
    between layers; int8 rounds weights by output, and activations by row where it is not compiled. A GPU keeps PyTorch's
    own kernels but for int8.

    Args:
        compiled: steps of one token are compiled (compiled.py), which takes up to a minute or two. Only on a CPU.

    Raises:
        ValueError: weights by another name, or with no kernel on this machine, or what cannot be compiled here.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights is {weights!r}; choose one of {', '.join(WEIGHTS)}")
    device = next(model.parameters()).device
    shared = {} if model.config.lora else {id(p): p for p in [*model.parameters(), *model.buffers()]}
    prepared = copy.deepcopy(model, shared).eval()
    if model.config.lora:
        merge_lora(prepared)
    if compiled:
        if device.type != "cpu" or not isinstance(prepared, GPT):
            raise ValueError("only steps of a GPT on a CPU are compiled; leave --compile out")
        compile_step(prepared, weights, rows)
        return prepared
    if device.type != "cpu" and weights != "int8":
        return prepared if weights == "fp32" else prepared.to({"fp16": torch.float16, "bf16": torch.bfloat16}[weights])
    layers: dict[tuple[int, ...], list[tuple[nn.Module, str, nn.Linear]]] = defaultdict(list)
    for owner in list(prepared.modules()):
        for name, layer in owner.named_children():
            if isinstance(layer, nn.Linear) and name != "score":
                layers[(*layer.weight.shape, layer.bias is not None)].append((owner, name, layer))
    with torch.no_grad():
        for alike in layers.values():
            pack, calls = choose([layer for _, _, layer in alike], weights, rows)
            for owner, name, layer in alike:
                setattr(owner, name, FastLinear(pack(layer.weight, layer.bias), calls))
    return prepared


def is_prepared(model: nn.Module) -> bool:
    return any(isinstance(module, FastLinear | RowsLinear) for module in model.modules())


def choose(layers: Sequence[nn.Linear], weights: str, rows: int) -> tuple[Pack, list[int]]:
    """The kernel for layers of one shape, and for each number of rows up to ``rows`` how many to give it at a time.

    Raises:
        ValueError: no kernel for these weights works here.
    """
    device = layers[0].weight.device
    bytes_each = layers[0].weight.numel() * layers[0].weight.element_size()
    timed = layers[: math.ceil(COLD_BYTES / bytes_each)]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, layers[0].in_features, generator=generator).to(device)
    expected = F.linear(x, layers[0].weight, layers[0].bias)
    best: tuple[float, Pack, list[int]] | None = None
    for pack in (CPU_KERNELS if device.type == "cpu" else GPU_KERNELS)[weights]:
        try:
            kernels = [pack(layer.weight, layer.bias) for layer in timed]
            off = float((kernels[0](x) - expected).square().mean() / expected.square().mean())
        except (RuntimeError, NotImplementedError, AttributeError):  # how PyTorch says that this build lacks it
            continue
        if not off < 1e-3:  # int8 kernels that overflow on processors without the instructions they are meant for
            continue
        for sizes in equal_calls(kernels[0], x):
            seconds = {size: time_calls(kernels, x[:1].expand(size, -1).contiguous()) for size in sizes}
            cost = [min((math.ceil(n / size) * seconds[size], size) for size in sizes) for n in range(1, rows + 1)]
            score = math.sqrt(cost[0][0] * cost[-1][0])  # one stream and a full batch count alike
            if best is None or score < best[0]:
                best = score, pack, [size for _, size in cost]
    if best is None:
        raise ValueError(f"no kernel for {weights} weights works on this machine; use fp32")
    return best[1], best[2]


def equal_calls(kernel: Kernel, x: Tensor) -> list[list[int]]:
    """Numbers of rows per call in groups: within a group, each row of ``x`` (N, I) gets the same bits, wherever in a call
    it stands and whatever is beside it."""
    groups: list[tuple[Tensor, list[int]]] = []
    sizes = sorted({size for size in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32) if size < len(x)} | {len(x)})
    beside = torch.cat((x[:1], 3 * x[1:]))
    for size in sizes:
        y = in_calls(kernel, x, size)
        if not torch.equal(in_calls(kernel, beside, size)[:1], y[:1]):
            continue
        if any(not torch.equal(in_calls(kernel, x.roll(k, 0), size).roll(-k, 0), y) for k in range(1, size)):
            continue
        group = next((members for other, members in groups if torch.equal(other, y)), None)
        if group is None:
            groups.append((y, [size]))
        else:
            group.append(size)
    return [members for _, members in groups]


def in_calls(kernel: Kernel, rows: Tensor, size: int) -> Tensor:
    """``kernel`` of ``rows`` (N, I), always given ``size`` rows, the last time filled up with zeros."""
    if len(rows) == size:
        return kernel(rows)
    rows_in, missing = len(rows), -len(rows) % size
    if missing:
        rows = torch.cat((rows, rows.new_zeros(missing, rows.shape[1])))
    parts = [kernel(part) for part in rows.split(size)]
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[:rows_in]


def time_calls(kernels: Sequence[Kernel], x: Tensor, passes: int = 3) -> float:
    """Seconds of one call, the best of some passes over all of ``kernels``."""
    best = math.inf
    for _ in range(passes + 1):  # the first is only for warming up
        start = time.perf_counter()
        for kernel in kernels:
            kernel(x)
        if x.is_cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best / len(kernels)


# Kernels. Each takes a layer's weight (O, I) and bias (O,) and gives the function that computes the layer.


def plain(weight: Tensor, bias: Tensor | None) -> Kernel:
    return lambda x: F.linear(x, weight, bias)


def columns(weight: Tensor, bias: Tensor | None) -> Kernel:
    """The same product the other way round, for which BLAS picks other kernels."""
    if bias is None:
        return lambda x: (weight @ x.T.contiguous()).T
    column = bias[:, None]
    return lambda x: torch.addmm(column, weight, x.T.contiguous()).T


def onednn_fp32(weight: Tensor, bias: Tensor | None) -> Kernel:
    """oneDNN on weights in the order it likes best, which is a copy of them."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 8)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def fbgemm_fp16(weight: Tensor, bias: Tensor | None) -> Kernel:
    """FBGEMM: fp16 weights, fp32 activations and sums."""
    packed = torch.ops.quantized.linear_prepack_fp16(weight.detach(), bias)
    return lambda x: torch.ops.quantized.linear_dynamic_fp16(x, packed)


def narrow(dtype: torch.dtype) -> Pack:
    """PyTorch's own kernel for weights and activations of 16 bits."""

    def pack(weight: Tensor, bias: Tensor | None) -> Kernel:
        weight = weight.detach().to(dtype)
        if bias is None:
            return lambda x: F.linear(x.to(dtype), weight).float()
        return lambda x: F.linear(x.to(dtype), weight).float().add_(bias)

    return pack


def int8_weights(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers (O, I) from -127 to 127, and the scales (O,) they are multiplied by."""
    scales = weight.detach().abs().amax(dim=1).clamp(min=1e-12) / 127
    return (weight.detach() / scales[:, None]).round().to(torch.int8), scales


def row_scales(x: Tensor, largest: int) -> Tensor:
    """(N, 1) what the rows of ``x`` (N, I) are divided by to lie between -largest and largest."""
    return x.abs().amax(dim=1, keepdim=True).clamp_(min=1e-12).div_(largest)


def fbgemm_int8(weight: Tensor, bias: Tensor | None) -> Kernel:
    """FBGEMM: whole numbers of 8 bits for weights and 7 for activations, which AVX2 adds up without overflow."""
    numbers, scales = int8_weights(weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # quantized tensors are deprecated, their kernels are not
        quantized = torch._make_per_channel_quantized_tensor(
            numbers, scales.double(), torch.zeros(len(scales), dtype=torch.long), 0
        )
        packed = torch.ops.quantized.linear_prepack(quantized, None)
    multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32

    def kernel(x: Tensor) -> Tensor:
        by = row_scales(x, 63)
        y = multiply(x / by, 1.0, 64, packed).mul_(by)
        return y if bias is None else y.add_(bias)

    return kernel


def onednn_int8(largest: int) -> Pack:
    """oneDNN: whole numbers of 8 bits for weights, and for activations 8 or, where those overflow, 7."""

    def pack(weight: Tensor, bias: Tensor | None) -> Kernel:
        numbers, scales = int8_weights(weight)
        packed = torch.ops.onednn.qlinear_prepack(numbers, None)
        zeros = torch.zeros(len(scales), dtype=torch.long)
        multiply, middle = torch.ops.onednn.qlinear_pointwise, largest + 1

        def kernel(x: Tensor) -> Tensor:
            by = row_scales(x, largest)
            whole = (x / by).add_(middle).round_().to(torch.uint8)
            y = multiply(whole, 1.0, middle, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], "")
            y = y.mul_(by)
            return y if bias is None else y.add_(bias)

        return kernel

    return pack


def weight_only_int8(dtype: torch.dtype) -> Pack:
    """PyTorch's kernel that turns int8 weights into ``dtype`` on the way; activations are not rounded further."""

    def pack(weight: Tensor, bias: Tensor | None) -> Kernel:
        numbers, scales = int8_weights(weight)
        scales = scales.to(dtype)

        def kernel(x: Tensor) -> Tensor:
            y = torch._weight_int8pack_mm(x.to(dtype), numbers, scales).float()
            return y if bias is None else y.add_(bias)

        return kernel

    return pack


def int_mm(weight: Tensor, bias: Tensor | None) -> Kernel:
    """Whole numbers of 8 bits for weights and activations; a GPU wants more than 16 rows."""
    numbers, scales = int8_weights(weight)
    columns_first = numbers.t()

    def kernel(x: Tensor) -> Tensor:
        by = row_scales(x.float(), 127)
        whole = (x / by).round_().to(torch.int8)
        if x.is_cuda and len(x) < 32:
            whole = F.pad(whole, (0, 0, 0, 32 - len(x)))
        y = torch._int_mm(whole, columns_first)[: len(x)] * by * scales
        return (y if bias is None else y.add_(bias)).to(x.dtype)

    return kernel


CPU_KERNELS: dict[str, tuple[Pack, ...]] = {
    "fp32": (plain, columns, onednn_fp32),
    "fp16": (fbgemm_fp16, narrow(torch.float16)),
    "bf16": (narrow(torch.bfloat16),),
    "int8": (fbgemm_int8, onednn_int8(127), onednn_int8(63), weight_only_int8(torch.bfloat16), int_mm),
}
GPU_KERNELS: dict[str, tuple[Pack, ...]] = {"int8": (int_mm,)}
