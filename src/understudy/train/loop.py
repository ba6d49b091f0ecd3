"""The training loop. It gets an objective, optimisers and batches, and knows no stage, task or loss.

`backward()` and `optimizer.step()` stand here and nowhere else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from understudy.runtime import Runtime
from understudy.train.objective import Objective

Batch = dict[str, Tensor]


@dataclass
class TrainingProgress:
    """How far a run is. Saved with each checkpoint; with seed and configuration it decides all later steps."""

    step: int = 0
    tokens: int = 0
    train_seconds: float = 0.0
    best_loss: float | None = None


@dataclass
class Timer:
    """Seconds of training. Reading waits for the device, so that queued work is included."""

    runtime: Runtime
    seconds: float
    _since: float | None = None

    def start(self) -> None:
        self.runtime.synchronize()
        self._since = time.perf_counter()

    def read(self) -> float:
        if self._since is not None:
            self.runtime.synchronize()
            self.seconds += time.perf_counter() - self._since
            self._since = time.perf_counter()
        return self.seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        self.read()
        self._since = None
        try:
            yield
        finally:
            self.start()


def new_scaler(runtime: Runtime) -> torch.amp.GradScaler | None:
    """A scaler of the loss, in fp16; None in other precisions, which need none."""
    return torch.amp.GradScaler(runtime.device.type) if runtime.dtype == torch.float16 else None


class ExponentialMovingAverage:
    """``mean = decay * mean + (1 - decay) * weights`` after each step, which often generalises better than the last
    weights; the decay is smaller at the start."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = dict(model.named_parameters())
        self.means = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after the step with index ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, p in self.parameters.items():
            self.means[name].lerp_(p, 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which the model's weights are the means."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, p in self.parameters.items():
            weights: Tensor = p.detach().clone()
            p.copy_(self.means[name])
            self.means[name].copy_(weights)


class BatchSource(Protocol):
    """The micro-batches of each step, on the CPU. The defaults are those of a pure function of the step."""

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of this process for the step with this index; none to skip the step."""
        ...

    def observe_step(self, step: int, sums: dict[str, Tensor], count: Tensor) -> None:
        """Called after a step with the sums that the objective returned over this process's micro-batches, and with the
        divisor of the loss over all processes."""
        return None

    def can_checkpoint(self, step: int) -> bool:
        """Whether a run saved before this step can be resumed from it."""
        return True

    def pop_metrics(self) -> dict[str, float]:
        """Metrics measured since the last call, by name, the same in every process."""
        return {}

    def state(self) -> dict[str, Any]:
        """State to save with a checkpoint, as JSON."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state`."""
        return None


@dataclass(frozen=True)
class RepeatedBatches(BatchSource):
    """The same micro-batches in every step, for measurements and tests."""

    micro_batches: list[Batch]

    def batches(self, step: int) -> list[Batch]:
        return self.micro_batches


class StepCallback(Protocol):
    """Evaluation, checkpoints and logging between the steps. Its time is not counted as training."""

    def is_due(self, progress: TrainingProgress) -> bool:
        """Whether :meth:`after_step` is to be called after this step, the same in every process. Called after each."""
        ...

    def after_step(self, progress: TrainingProgress, metrics: dict[str, float]) -> bool:
        """Handle the metrics since the last call; returns whether to stop."""
        ...


@dataclass
class Trainer:
    """Trains an objective.

    Args:
        lr_factor: the share of each group's ``peak_lr`` for a step with a given index.
        total_steps: the step to stop at.
        grad_clip: largest gradient norm; 0 is off.
        scaler: of the loss in fp16.
        compiled: the compiled objective, which is called in its place.
    """

    objective: Objective
    optimizers: Sequence[torch.optim.Optimizer]
    source: BatchSource
    lr_factor: Callable[[int], float]
    runtime: Runtime
    progress: TrainingProgress
    total_steps: int
    grad_clip: float = 0.0
    scaler: torch.amp.GradScaler | None = None
    ema: ExponentialMovingAverage | None = None
    compiled: nn.Module | None = None
    _sums: dict[str, Tensor] = field(default_factory=dict)
    _tokens: Tensor | None = None
    _module: nn.Module | None = None

    def run(self, callback: StepCallback | None = None) -> TrainingProgress:
        """Train to the last step, or until ``callback`` says stop."""
        progress, stop = self.progress, self.progress.step >= self.total_steps
        if stop:
            return progress
        module = self._parallel_module()
        timer = Timer(self.runtime, progress.train_seconds)
        timer.start()
        first_batch = self._on_device(self.source.batches(progress.step)[:1])[0]
        with timer.paused():
            self._warm_up(module, first_batch)
        logged = dataclasses.replace(progress)
        while not stop:
            self._step(module)
            stop = progress.step >= self.total_steps
            if (callback is not None and callback.is_due(progress)) or stop:
                progress.train_seconds = timer.read()
                self.read_tokens()
                elapsed, tokens = progress.train_seconds - logged.train_seconds, progress.tokens - logged.tokens
                metrics = self._pop_metrics() | {"tokens_per_second": tokens / elapsed if elapsed > 0 else 0.0}
                if callback is not None:
                    with timer.paused():
                        stop = callback.after_step(progress, metrics) or stop
                logged = dataclasses.replace(progress)
        return progress

    def time_steps(self, seconds: float) -> tuple[float, float]:
        """Take steps for at least so many seconds, and undo them. Returns seconds and tokens of a step.

        The seconds are the median where steps are alike, so that a pause of the machine does not count.

        Only for a run that has taken no step. The first step, which is slower, is not timed, but where an iteration of
        several steps begins with it.
        """
        runtime, progress, source = self.runtime, self.progress, self.source
        random_state, source_state = torch.get_rng_state(), source.state()
        weights = {p: p.detach().cpu().clone() for p in self.objective.parameters() if p.requires_grad}
        module = self._parallel_module()
        alike = source.can_checkpoint(1)  # the steps of an iteration differ
        if alike:
            self._step(module)
        self.read_tokens()
        warm = dataclasses.replace(progress)
        timer = Timer(runtime, 0.0)
        timer.start()
        ends = [0.0]
        while ends[-1] <= seconds or not source.can_checkpoint(progress.step):
            self._step(module)
            ends.append(max(runtime.all_gather(timer.read())))
        self.read_tokens()
        steps, tokens = progress.step - warm.step, progress.tokens - warm.tokens
        with torch.no_grad():
            for parameter, weight in weights.items():
                parameter.copy_(weight)
        for optimizer in self.optimizers:
            optimizer.state.clear()
        if self.ema:
            self.ema = ExponentialMovingAverage(self.objective.model, self.ema.decay)
        if self.scaler:
            self.scaler = new_scaler(runtime)
        source.load_state(source_state)
        source.pop_metrics()
        self._sums.clear()
        self.progress = TrainingProgress(train_seconds=warm.train_seconds)
        torch.set_rng_state(random_state)
        typical = statistics.median(end - start for start, end in pairwise(ends)) if alike else ends[-1] / steps
        return typical, tokens / steps

    def _parallel_module(self) -> nn.Module:
        """The objective, compiled if it can be, and wrapped for several processes; the same one each time."""
        if self._module is None:
            self._module = data_parallel(self.objective if self.compiled is None else self.compiled, self.runtime)
        return self._module

    def _step(self, module: nn.Module) -> None:
        """One optimiser step: forward and backward of every micro-batch, clip, update.

        Nothing here waits for the device, so that the next batches are made while it computes these.
        """
        progress, runtime = self.progress, self.runtime
        micro_batches = self.source.batches(progress.step)
        if not micro_batches:
            progress.step += 1
            return
        runtime.seed_step(progress.step)
        factor = self.lr_factor(progress.step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
        count = self._count(micro_batches)
        loss = torch.zeros((), device=runtime.device)
        step_sums: dict[str, Tensor] = {}
        for number, batch in enumerate(self._on_device(micro_batches), 1):
            with contextlib.nullcontext() if number == len(micro_batches) else without_gradient_sync(module):
                with runtime.autocast():
                    loss_sum, sums = module(batch)
                scaled = loss_sum * (runtime.world_size / count)  # data-parallel gradients are averaged
                (self.scaler.scale(scaled) if self.scaler else scaled).backward()
            loss += loss_sum.detach()
            for name, value in sums.items():
                for totals in (self._sums, step_sums):
                    totals[name] = totals.get(name, 0) + value.detach()
        norm = self._clip_and_update()
        if self.ema:
            self.ema.update(progress.step)
        self._sums["loss"] = self._sums.get("loss", 0) + loss
        self._sums["count"] = self._sums.get("count", 0) + count / runtime.world_size
        self._sums["grad_norm"] = norm
        self.source.observe_step(progress.step, step_sums, count)
        progress.step += 1

    def _count(self, micro_batches: list[Batch]) -> Tensor:
        """The divisor of the loss over all processes, on the device. The tokens go with it in one all-reduce."""
        count = torch.stack([self.objective.count(batch) for batch in micro_batches]).sum()
        tokens = sum(self.objective.tokens(batch) for batch in micro_batches)
        device = self.runtime.device
        if self.runtime.world_size == 1:
            self.progress.tokens += tokens
            return count.to(device, non_blocking=True)
        totals = torch.tensor([float(count), tokens], dtype=torch.float64).to(device, non_blocking=True)
        totals = self.runtime.all_sum(totals)
        self._tokens = totals[1] if self._tokens is None else self._tokens + totals[1]
        return totals[0].float()

    def read_tokens(self) -> None:
        """Bring ``progress.tokens`` up to date. With several processes this waits for the device."""
        if self._tokens is not None:
            self.progress.tokens += int(self._tokens)
            self._tokens = None

    def _clip_and_update(self) -> Tensor:
        """Update the weights; returns the norm of the gradients before clipping."""
        parameters = [p for p in self.objective.parameters() if p.requires_grad]
        if self.scaler:
            for optimizer in self.optimizers:
                self.scaler.unscale_(optimizer)
        limit = self.grad_clip or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit, foreach=True)
        for optimizer in self.optimizers:
            if self.scaler:
                self.scaler.step(optimizer)
            else:
                optimizer.step()
        if self.scaler:
            self.scaler.update()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        return norm

    def _on_device(self, batches: list[Batch]) -> list[Batch]:
        device = self.runtime.device
        if device.type == "cpu":
            return batches
        return [{k: v.pin_memory().to(device, non_blocking=True) for k, v in b.items()} for b in batches]

    def _pop_metrics(self) -> dict[str, float]:
        """Means over the steps since the last call, over all processes."""
        source_metrics = self.source.pop_metrics()
        if not self._sums:
            return source_metrics
        sums = {name: value for name, value in self._sums.items() if name != "grad_norm"}
        totals = dict(zip(sums, self.runtime.all_sum(torch.stack([v.float() for v in sums.values()])).tolist()))
        count = totals.pop("count")
        metrics = {f"train/{name}": value / count for name, value in totals.items()} | source_metrics
        metrics["grad_norm"] = float(self._sums["grad_norm"])
        self._sums.clear()
        return metrics

    def _warm_up(self, module: nn.Module, batch: Batch) -> None:
        """Compile and fill caches while the timer is paused, without a trace in weights, gradients or random state."""
        self.runtime.seed_step(self.progress.step)
        with without_gradient_sync(module), self.runtime.autocast():
            loss, _ = module(batch)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)


def data_parallel(module: nn.Module, runtime: Runtime) -> nn.Module:
    """The module itself, or wrapped so that each backward pass averages gradients over the processes."""
    if runtime.world_size == 1:
        return module
    device_ids = [runtime.device.index] if runtime.device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=device_ids, gradient_as_bucket_view=True)


def without_gradient_sync(module: nn.Module) -> contextlib.AbstractContextManager[object]:
    """A context in which gradients accumulate locally, for all micro-batches but the last."""
    if isinstance(module, DistributedDataParallel):
        return module.no_sync()
    return contextlib.nullcontext()
