"""The reference model of a stage: the run that it starts from, held beside the policy or read once before training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from understudy.files import write_bytes
from understudy.model import GPT, as_gpt
from understudy.model.lora import without_lora
from understudy.train.init_from import load_reference
from understudy.train.stage import StageContext

REFERENCE_LOGPROBS = "reference.safetensors"
"""File of a run's folder: the log-probability of each completion of each split under the reference model."""


def frozen_reference(context: StageContext) -> GPT:
    """The reference model on the device of the run, in evaluation mode, without gradients.

    Under adapters it is the frozen model, which needs no further memory, unless the embeddings are trained.

    Raises:
        ValueError: the run that this one started from is missing, or has changed.
    """
    lora = context.config.model.lora
    if lora is not None and not lora.embeddings:
        reference = without_lora(as_gpt(context.model))
    else:
        reference = as_gpt(load_reference(context.folder).model)
    return reference.to(context.runtime.device).eval().requires_grad_(False)


def saved_reference_logprobs(
    context: StageContext, fingerprint: Sequence[object], names: Iterable[str],
    compute: Callable[[GPT], dict[str, Tensor]],
) -> dict[str, Tensor]:  # fmt: skip
    """Log-probabilities under the reference model by name, from the run's folder.

    They are computed once by all processes and saved in the run's folder. A resumed run computes them again if its data
    or the size of its validation has changed.

    Args:
        fingerprint: of the data, for which those in the folder hold.
        compute: given the reference model, a tensor for each of ``names``.

    Raises:
        ValueError: they are missing, and so is the run that this one started from.
    """
    path, runtime = context.folder.path / REFERENCE_LOGPROBS, context.runtime
    parts = [context.folder.record()["parent"]["sha256"], context.config.model.context_length, *fingerprint]
    key = hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()
    saved = None
    if path.exists():
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("key") == key:
                saved = {name: file.get_tensor(name) for name in names}
    missing = runtime.any(saved is None)  # in one process, where their disks differ
    if saved is not None and not missing:
        return saved
    model = context.model if context.parent else load_reference(context.folder).model.to(runtime.device)
    logprobs = compute(as_gpt(model))
    if runtime.is_main:
        write_bytes(path, save(logprobs, {"key": key}))
    return logprobs
