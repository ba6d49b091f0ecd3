"""The one training loop. It is handed an objective, optimisers and batches, and knows no stage, task or loss.

`backward()` and `optimizer.step()` stand here and nowhere else.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from understudy.runtime import Runtime
from understudy.train.ema import ExponentialMovingAverage
from understudy.train.objective import Objective
from understudy.train.parallel import data_parallel, gradients_stay_local

Batch = dict[str, Tensor]


@dataclass
class TrainingProgress:
    """How far a run has come. Saved with each checkpoint; with seed and configuration it decides all that follows."""

    step: int = 0
    tokens: int = 0
    train_seconds: float = 0.0
    best_loss: float | None = None


@dataclass
class Stopwatch:
    """Seconds spent training. Reading waits for the device first, so that queued work is counted where it belongs."""

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


class BatchSource(Protocol):
    """Where batches come from."""

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of this process for the step with a given index; none to pass over it."""
        ...

    def after_step(self, step: int, sums: dict[str, Tensor], count: Tensor) -> None:
        """Called after each step with the sums that the objective returned, over this process's micro-batches, and the
        count over all processes that a mean divides by."""
        ...

    def at_rest(self, step: int) -> bool:
        """Whether a run saved before this step could go on from it."""
        ...

    def measured(self) -> dict[str, float]:
        """What was measured on the way since the last call, the same in every process."""
        ...

    def state(self) -> dict[str, Any]:
        """What JSON has to keep of it while at rest."""
        ...

    def load_state(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class StatelessSource:
    """A source that is a pure function of the step, so that it rests always and has nothing to keep."""

    batches: Callable[[int], list[Batch]]

    def after_step(self, step: int, sums: dict[str, Tensor], count: Tensor) -> None:
        pass

    def at_rest(self, step: int) -> bool:
        return True

    def measured(self) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


@dataclass
class Trainer:
    """Everything one run of the loop needs.

    Attributes:
        lr_factor: the share of its peak learning rate that a step uses.
        after_step: called with the progress and, every ``log_every`` steps, what was measured; evaluates, saves and
            logs; time in it is not counted as training. Returns True to stop.
        due: whether ``after_step`` wants to be called after this step.
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
    due: Callable[[TrainingProgress], bool] = lambda progress: False
    after_step: Callable[[TrainingProgress, dict[str, float]], bool] = lambda progress, measured: False
    _sums: dict[str, Tensor] = field(default_factory=dict)

    def run(self) -> TrainingProgress:
        """Train until the last step, or until ``after_step`` says stop."""
        progress, runtime = self.progress, self.runtime
        wrapped = data_parallel(self.objective, runtime)
        watch = Stopwatch(runtime, progress.train_seconds)
        stop = progress.step >= self.total_steps
        watch.start()
        if not stop:
            first = self._on_device(self.source.batches(progress.step))[0]
            with watch.paused():
                self._warm_up(wrapped, first)
        logged_seconds, logged_tokens = progress.train_seconds, progress.tokens
        while not stop:
            self._step(wrapped)
            stop = progress.step >= self.total_steps
            if self.due(progress) or stop:
                progress.train_seconds = watch.read()
                elapsed, tokens = progress.train_seconds - logged_seconds, progress.tokens - logged_tokens
                measured = self._measured() | {"tokens_per_second": tokens / elapsed if elapsed > 0 else 0.0}
                with watch.paused():
                    stop = self.after_step(progress, measured) or stop
                logged_seconds, logged_tokens = progress.train_seconds, progress.tokens
        return progress

    def _step(self, wrapped: torch.nn.Module) -> None:
        """One optimiser step: forward and backward of every micro-batch, clip, update."""
        progress, runtime = self.progress, self.runtime
        micro_batches = self._on_device(self.source.batches(progress.step))
        if not micro_batches:
            progress.step += 1
            return
        runtime.seed_step(progress.step)
        factor = self.lr_factor(progress.step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
        count = runtime.all_sum(torch.stack([self.objective.count(batch) for batch in micro_batches]).sum())
        loss = torch.zeros((), device=runtime.device)
        step_sums: dict[str, Tensor] = {}
        for number, batch in enumerate(micro_batches):
            last = number == len(micro_batches) - 1
            with contextlib.nullcontext() if last else gradients_stay_local(wrapped):
                with runtime.autocast():
                    loss_sum, sums = wrapped(batch)
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
        self.source.after_step(progress.step, step_sums, count)
        progress.step += 1
        progress.tokens += self._tokens(micro_batches)

    def _tokens(self, micro_batches: list[Batch]) -> int:
        """Tokens read in this step by all processes."""
        read = sum(self.objective.tokens(batch) for batch in micro_batches)
        return int(self.runtime.all_sum(read)) if isinstance(read, Tensor) else read * self.runtime.world_size

    def _clip_and_update(self) -> Tensor:
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

    def _measured(self) -> dict[str, float]:
        """Means over the steps since the last call, over all processes."""
        own = self.source.measured()
        if not self._sums:
            return own
        sums = {name: value for name, value in self._sums.items() if name != "grad_norm"}
        totals = dict(zip(sums, self.runtime.all_sum(torch.stack([v.float() for v in sums.values()])).tolist()))
        count = totals.pop("count")
        measured = {f"train/{name}": value / count for name, value in totals.items()} | own
        measured["grad_norm"] = float(self._sums["grad_norm"])
        self._sums.clear()
        return measured

    def _warm_up(self, wrapped: torch.nn.Module, batch: Batch) -> None:
        """Compile and fill caches while the clock stands, leaving no trace in weights, gradients or random state."""
        self.runtime.seed_step(self.progress.step)
        with gradients_stay_local(wrapped), self.runtime.autocast():
            loss, _ = wrapped(batch)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)


def lr_of(optimizers: Sequence[torch.optim.Optimizer]) -> float:
    """The learning rate of the first group, for logs."""
    first: dict[str, Any] = optimizers[0].param_groups[0]
    return float(first["lr"])
