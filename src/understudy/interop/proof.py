"""What every export goes through: written beside its place, read again, compared with the run, and only then renamed.

Not here: what is in the files.
"""

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

    from understudy.run import Run

EXACT = 1e-4
"""How far logits in fp32 may be from ours, for logits up to 1 (and in proportion above)."""


@contextlib.contextmanager
def whole_folder(out: Path, option: str = "--out") -> Iterator[Path]:
    """A folder to write into that becomes ``out`` when all went well, and is gone when it did not.

    Args:
        option: that chooses another.

    Raises:
        ValueError: ``out`` is there already, or the disk cannot be written.
    """
    from safetensors import SafetensorError

    if out.exists():
        raise ValueError(f"{out} is there already; remove it, or choose another with {option}")
    partial = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        partial.rename(out)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{out} could not be written ({error}); nothing of it was kept") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@dataclass(frozen=True)
class Proof:
    """A few prompts (1, T) with what the run makes of them: logits (T, V), or the score of the whole."""

    prompts: list[Tensor]
    expected: list[Tensor]

    def compare(self, answer: Callable[[Tensor], Tensor], tolerance: float, reader: str) -> float:
        """The largest difference between what ``answer`` makes of the prompts and what is expected.

        Raises:
            RuntimeError: it is larger than ``tolerance`` allows, which is a defect of the export.
        """
        import torch

        largest = 0.0
        for prompt, expected in zip(self.prompts, self.expected):
            with torch.no_grad():
                difference = (answer(prompt).float() - expected).abs().max().item()
            allowed = tolerance * max(1.0, expected.abs().max().item())
            if not difference <= allowed:
                raise RuntimeError(
                    f"what {reader} reads from the export differs from the run by {difference:.2g} in a logit, where "
                    f"{allowed:.2g} is allowed; nothing was kept"
                )
            largest = max(largest, difference)
        return largest


def take_proof(run: Run) -> Proof:
    """What the run makes of three prompts of ordinary tokens, of different lengths.

    Raises:
        ValueError: it makes no numbers of them, so that nothing could be compared.
    """
    import torch

    special = set(run.tokenizer.special_tokens.values())
    ordinary = torch.tensor([id for id in range(run.tokenizer.vocab_size) if id not in special])
    random = torch.Generator().manual_seed(0)
    context = run.config.model.context_length
    prompts = [
        ordinary[torch.randint(len(ordinary), (1, length), generator=random)]
        for length in sorted({1, min(7, context), min(48, context)})
    ]
    expected = [answer_of(run)(prompt) for prompt in prompts]
    if not all(answer.isfinite().all() for answer in expected):
        raise ValueError(
            f"the run {run.path} gives logits that are not finite: training diverged; export an earlier step of it with "
            "--checkpoint"
        )
    return Proof(prompts, expected)


def answer_of(run: Run) -> Callable[[Tensor], Tensor]:
    """What a run says to a prompt (1, T): logits (T, V) of the tokens there are, or the score of the whole."""
    import torch

    def answer(prompt: Tensor) -> Tensor:
        with torch.no_grad():
            if gives_scores(run):
                return run.model.score(run.model.hidden(prompt))[0, -1:]  # type: ignore[operator]
            return run.model(prompt)[0, :, : run.tokenizer.vocab_size].float()

    return answer
