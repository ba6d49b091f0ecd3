"""A step of one token, compiled by PyTorch's Inductor, for a CPU with a C++ compiler.

A few tokens at a time cost little but reading the weights. The libraries' kernels for that (quantize.py) reach half the
speed of the memory, and Python takes its time between them. Here linear layers are sums that the compiler turns
into one loop over the weights, whatever they are held in, joined with all else in :meth:`Block.before` and
:meth:`Block.after`. Each is compiled once for all blocks that are alike, for 1, 4 and 8 rows; more are taken eight at a
time. Prompts are computed by PyTorch's own kernels from the same weights.

Not here: attention, machines without a compiler.

Shapes: N rows, I input width, O output width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from understudy.model.gpt import GPT, Block

SIZES = (1, 4, 8)
"""Numbers of rows that are compiled."""
PLACES, SUMS = 4, 16
"""One row reads its weights in several places at once, more rows in fewer: a processor keeps so many sums at hand."""
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TRACED: ContextVar[bool] = ContextVar("TRACED", default=False)
"""Whether what a layer computes is about to be compiled."""


def compile_step(model: GPT, weights: str, rows: int) -> None:
    """Change ``model`` so that it reads one token of each of some rows by compiled code.

    Args:
        weights: what linear layers are held in: fp32, fp16, bf16 or int8.
        rows: how many there will be at most.

    Raises:
        ValueError: it cannot be compiled here.
    """
    import torch._inductor.exc

    for owner in list(model.modules()):
        for name, layer in list(owner.named_children()):
            if isinstance(layer, nn.Linear) and name != "score":
                setattr(owner, name, RowsLinear(layer, weights))
            elif isinstance(layer, nn.LayerNorm | nn.RMSNorm):
                setattr(owner, name, RowsNorm(layer))
    config, size = model.config, min(rows, SIZES[-1])
    assert config.d_model and config.n_heads and config.head_width
    x, found = torch.zeros(size, 1, config.d_model), torch.zeros(size, 1, config.n_heads * config.head_width)
    compiled: dict[Any, dict[int, Callable[..., Any]]] = {}
    try:
        with torch.inference_mode():
            for block in model.blocks:
                assert isinstance(block, Block)
                before = RowsPart(block, Block.before, [x], rows, compiled)
                after = RowsPart(block, Block.after, [x, found], rows, compiled)
                block.before, block.after = before, after  # type: ignore[method-assign, assignment]
            head = RowsPart(model.head, RowsLinear.forward, [x[:, 0]], rows, compiled)
            model.head.forward = head  # type: ignore[method-assign, assignment]
    except (torch._inductor.exc.InductorError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"a step of one token cannot be compiled here ({reason}); leave --compile out") from error


class RowsPart:
    """A method of a module, compiled for some numbers of rows.

    Args:
        examples: what it is called with, for as many rows as it is compiled for at most.
        rows: for more than these, and for more than one token of a row, the method is called as it is.
        compiled: by what is compiled, shared by all modules that are alike.
    """

    def __init__(
        self, module: nn.Module, method: Callable[..., Tensor], examples: Sequence[Tensor], rows: int,
        compiled: dict[Any, dict[int, Callable[..., Tensor]]],
    ) -> None:  # fmt: skip
        self.module, self.method, self.rows = module, method, rows
        state = dict(module.named_parameters()) | dict(module.named_buffers())
        self.state = list(state.values())
        kind = method, *((name, value.shape, value.dtype) for name, value in state.items())
        if kind not in compiled:
            compiled[kind] = self._compile(list(state), examples)
        self.compiled = compiled[kind]

    def __call__(self, *inputs: Tensor) -> Tensor:
        rows = len(inputs[0])
        if inputs[0].shape[1:-1].numel() != 1 or rows > self.rows:
            return self.method(self.module, *inputs)
        most = max(self.compiled)
        if rows > most:
            return torch.cat([self(*parts) for parts in zip(*(each.split(most) for each in inputs))])
        size = min(size for size in self.compiled if size >= rows)
        if size > rows:
            inputs = tuple(torch.cat((each, each.new_zeros(size - rows, *each.shape[1:]))) for each in inputs)
        return self.compiled[size](*(each.contiguous() for each in inputs), *self.state)[:rows]

    def _compile(self, names: Sequence[str], examples: Sequence[Tensor]) -> dict[int, Callable[..., Tensor]]:
        """For some numbers of rows; only such as give a row the same bits, wherever it stands and whatever is beside it.

        Multiplying and adding in one instruction is faster, and rounds as the compiler likes. Where that differs with
        the number of rows, it is done without.
        """
        call, most = _Call(self.module, self.method), len(examples[0])
        sizes = [most, *(size for size in reversed(SIZES) if size < most)]

        def run(*tensors: Tensor) -> Any:
            state = {f"module.{name}": value for name, value in zip(names, tensors[len(examples) :])}
            traced = TRACED.set(True)
            try:
                return functional_call(call, state, tensors[: len(examples)])
            finally:
                TRACED.reset(traced)

        generator = torch.Generator().manual_seed(0)
        inputs = [torch.randn(each.shape, generator=generator) for each in examples]
        for contract in ("fast", "off"):
            good: dict[int, Callable[..., Tensor]] = {}
            expected: Tensor | None = None
            for size in sizes:
                shown = [each[:size] for each in inputs]
                compiled = compile_for(run, [*shown, *self.state], contract)
                found = compiled(*shown, *self.state)
                turned = compiled(*(each.roll(1, 0) for each in shown), *self.state).roll(-1, 0)
                expected = found if expected is None else expected
                if torch.equal(found, expected[:size]) and torch.equal(found, turned):
                    good[size] = compiled
            if len(good) == len(sizes):
                break
        if most not in good:
            raise RuntimeError("what is computed for a row depends on those beside it")
        return good


class _Call(nn.Module):
    def __init__(self, module: nn.Module, method: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.method(self.module, *inputs)


def compile_for(function: Callable[..., Any], examples: Sequence[Tensor], contract: str) -> Callable[..., Tensor]:
    """``function`` of tensors with the shapes and strides of ``examples``, which it then does not check."""
    import torch._inductor
    from torch.fx.experimental.proxy_tensor import make_fx

    options = {"size_asserts": False, "cpp.enable_floating_point_contract_flag": contract}
    return torch._inductor.compile(make_fx(function)(*examples), [*examples], options=options)


class RowsLinear(nn.Module):
    """A linear layer for a compiler; the sums of a row have the same order in any number of rows.

    Args:
        layer: stays as it is; fp32 shares its memory.
        weights: what they are held in: fp32, fp16, bf16 or int8.
    """

    def __init__(self, layer: nn.Linear, weights: str) -> None:
        super().__init__()
        self.bias, weight = layer.bias, layer.weight.detach()
        scales = None
        if weights == "int8":
            weight, scales = pack_int8(weight)
        self.register_buffer("weight", weight if scales is not None else weight.to(DTYPES[weights]))
        self.register_buffer("scales", scales)
        self.weight: Tensor
        self.scales: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        if self.scales is not None and x.shape[-1] % 4:
            x = F.pad(x, (0, -x.shape[-1] % 4))
        if not TRACED.get():
            if self.scales is None:
                return F.linear(x, self.weight.float(), self.bias)
            quarters = zip(x.chunk(4, dim=-1), unpack_int8(self.weight))
            y = sum(F.linear(own, part) for own, part in quarters) * self.scales
            return y if self.bias is None else y + self.bias
        rows = settle(x.reshape(-1, x.shape[-1]))
        places = min(PLACES, max(1, SUMS // len(rows)))
        places = places if len(self.weight) % places == 0 else 1
        sums = []
        for weight in self.weight.chunk(places):
            parts = self._parts(weight)  # each (O / places, I / parts)
            for row in rows:
                terms = [part * own for part, own in zip(parts, row.chunk(len(parts)))]
                while len(terms) > 1:
                    terms = [first + second for first, second in zip(terms[::2], terms[1::2])]
                sums.append(terms[0].sum(dim=1))
        y = torch.cat(sums).view(places, len(rows), -1).transpose(0, 1).flatten(1)  # (N, O)
        y = y if self.scales is None else y * self.scales
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], -1)

    def _parts(self, weight: Tensor) -> list[Tensor]:
        return [weight.float()] if self.scales is None else unpack_int8(weight)


class RowsNorm(nn.Module):
    """LayerNorm or RMSNorm as plain sums, for the same reason."""

    def __init__(self, norm: nn.LayerNorm | nn.RMSNorm) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, getattr(norm, "bias", None)
        self.eps = norm.eps or torch.finfo(norm.weight.dtype).eps
        self.centred = isinstance(norm, nn.LayerNorm)

    def forward(self, x: Tensor) -> Tensor:
        if self.centred:
            x = x - x.sum(dim=-1, keepdim=True) / x.shape[-1]
        y = x * torch.rsqrt((x * x).sum(dim=-1, keepdim=True) / x.shape[-1] + self.eps) * self.weight
        return y if self.bias is None else y + self.bias


def settle(x: Tensor) -> Tensor:
    """``x``, which the compiler then computes once, and not again in each loop that reads it."""
    return x.as_strided(x.shape, x.stride())


def pack_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of 8 bits, four to each 32 bits: (O, I / 4), as if of fp32, and scales (O,).

    The quarters of a row lie over each other, the first in the lowest bits. A number counts together with those below it,
    as what comes after its point, so that reading one is a shift without a mask; it is rounded with those in view.
    """
    if weight.shape[1] % 4:
        weight = F.pad(weight, (0, -weight.shape[1] % 4))
    scales = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
    packed = torch.zeros(len(weight), weight.shape[1] // 4, dtype=torch.int64, device=weight.device)
    for place, quarter in enumerate((weight / scales[:, None]).chunk(4, dim=1)):
        below = packed / 2.0 ** (8 * place)  # from 0 to 1
        number = (quarter - below).round().clamp(-128, 127).long()
        packed += (number & 255) << (8 * place)
    signed = torch.where(packed < 2**31, packed, packed - 2**32).int()
    return signed.view(torch.float32), scales / 2**24  # fp32 is what compiled code loads fastest


def unpack_int8(packed: Tensor) -> list[Tensor]:
    """The four quarters (O, I / 4), times 2 to the 24th."""
    bits = packed.view(torch.int32)
    return [(bits << shift).float() for shift in (24, 16, 8)] + [bits.float()]
