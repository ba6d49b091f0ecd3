"""Checks of every export: written under a temporary name, read again, compared with the run, then renamed."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.interop.shapes import gives_scores

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.config.model import ModelConfig
    from understudy.run import Run

EXACT = 1e-4
"""Largest difference of fp32 logits from ours, for logits up to 1 and in proportion above."""
TOLERANCE = {"f32": EXACT, "f16": 0.02, "bf16": 0.1, "q8_0": 0.1, "q6_k": 0.3, "q5_k_m": 0.5, "q4_k_m": 0.8}
"""The same by the type of the weights. Rounding stays below it, and a wrong name or layout exceeds it."""


@contextlib.contextmanager
def whole_folder(out: Path, option: str = "--out") -> Iterator[Path]:
    """A temporary folder that is renamed to ``out`` at the end, or deleted after an error.

    Args:
        option: the option that chooses ``out``, for errors.

    Raises:
        ValueError: ``out`` exists, or the disk cannot be written.
    """
    from safetensors import SafetensorError

    if out.exists():
        raise ValueError(f"{out} exists already; remove it, or choose another with {option}")
    partial = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        partial.rename(out)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{out} could not be written ({error}); nothing was left there") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@dataclass(frozen=True)
class ReferenceOutputs:
    """A few prompts (1, T) and the run's outputs for them: logits (T, V), or the score of the sequence."""

    prompts: list[Tensor]
    expected: list[Tensor]

    def compare(self, output: Callable[[Tensor], Tensor], tolerance: float, reader: str) -> float:
        """The largest difference between ``output`` of the prompts and the run's outputs.

        Raises:
            RuntimeError: it exceeds ``tolerance``, which is a defect of the export.
        """
        import torch

        largest = 0.0
        for prompt, expected in zip(self.prompts, self.expected):
            with torch.no_grad():
                theirs = output(prompt).float()[..., : expected.shape[-1]]  # without ids that the tokenizer lacks
                difference = (theirs - expected).abs().max().item()
            allowed = tolerance * max(1.0, expected.abs().max().item())
            if not difference <= allowed:
                raise RuntimeError(
                    f"the export as {reader} reads it differs from the run by {difference:.2g} in a logit, where "
                    f"{allowed:.2g} is allowed; nothing was left there"
                )
            largest = max(largest, difference)
        return largest

    def compare_weights(
        self, config: ModelConfig, weights: dict[str, Tensor], source: Path, tolerance: float, reader: str
    ) -> float:
        """:meth:`compare` with our model of these weights, read from ``source``."""
        from understudy.model import build_model
        from understudy.model.weights import load_weights

        model = build_model(config).eval()
        load_weights(model, weights, source)
        return self.compare(lambda prompt: model(prompt)[0], tolerance, reader)


def reference_outputs(run: Run) -> ReferenceOutputs:
    """The outputs of a run for three prompts of ordinary tokens, of different lengths.

    Raises:
        ValueError: an output is not finite, so that nothing can be compared.
    """
    import torch

    from understudy.model import as_gpt

    special = set(run.tokenizer.special_tokens.values())
    ordinary = torch.tensor([id for id in range(run.tokenizer.vocab_size) if id not in special])
    random = torch.Generator().manual_seed(0)
    context = run.config.model.context_length
    prompts = [
        ordinary[torch.randint(len(ordinary), (1, length), generator=random)]
        for length in sorted({1, min(7, context), min(48, context)})
    ]
    expected: list[Tensor] = []
    with torch.no_grad():
        for prompt in prompts:
            if gives_scores(run):
                expected.append(as_gpt(run.model).score(run.model.hidden(prompt))[0, -1:])
            else:
                expected.append(run.model(prompt)[0, :, : run.tokenizer.vocab_size].float())  # without padding
    if not all(output.isfinite().all() for output in expected):
        raise ValueError(
            f"the run {run.path} gives logits that are not finite, because training diverged; export an earlier step with "
            "--checkpoint"
        )
    return ReferenceOutputs(prompts, expected)
