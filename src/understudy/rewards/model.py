"""The scores of reward models, and the hidden states that completions are predicted from.

Shapes: N completions, M tokens of completions, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from understudy.data.chat.packing import pack_prefix_trees
from understudy.data.chat.pair_rows import encode_completion
from understudy.data.loader import Batch
from understudy.model import GPT
from understudy.model.masks import prefix_shared
from understudy.run import Run, load_run
from understudy.runtime import Runtime
from understudy.tokenizer.chat import Message


def document_scores(model: GPT, batch: dict[str, Tensor]) -> Tensor:
    """The scores (N,) of a batch's completions, read at the last token of each."""
    return model.score(completion_hidden_states(model, batch, batch["ends"]))


def check_finite(scores: list[float]) -> list[float]:
    """Return the scores.

    Raises:
        ValueError: a score is not finite.
    """
    if not all(map(math.isfinite, scores)):
        raise ValueError(
            "the reward model's scores are not finite: its training diverged; train one with a lower optim.lr"
        )
    return scores


class RewardModel:
    """A trained reward model on the device of ``runtime``.

    Raises:
        ValueError: no such run, or one without a score head.
    """

    def __init__(self, run: Run | str, runtime: Runtime) -> None:
        self.run = load_run(run) if isinstance(run, str) else run
        self.runtime = runtime
        if not isinstance(self.run.model, GPT) or not self.run.model.config.score_head:
            raise ValueError(f"the run {self.run.path} gives no scores; train one with `understudy reward`")
        self.model = self.run.model.to(runtime.device).eval()

    def conversations(self, conversations: Sequence[Sequence[Message]], batch_size: int = 16) -> list[float]:
        """The score of the last message of each conversation. The first tokens of a conversation that exceeds the context
        are left out.

        Raises:
            ValueError: a conversation does not end with the assistant, or a score is not finite.
        """
        rows = []
        for number, messages in enumerate(conversations, 1):
            if not messages or messages[-1].get("role") != "assistant":
                raise ValueError(f"conversation {number} does not end with an answer; there is nothing to score")
            encoded = encode_completion(self.run.tokenizer, messages[:-1], messages[-1:])
            rows.append((encoded.prompt, encoded.completion))
        return self.score_rows(rows, batch_size)

    @torch.no_grad()
    def score_rows(self, rows: Sequence[tuple[list[int], list[int]]], batch_size: int = 16) -> list[float]:
        """The score of each (prompt, completion) as token ids, from the last ``context_length`` of them.

        Raises:
            ValueError: a score is not finite.
        """
        context = self.model.config.context_length
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i][0]), rows[i]))  # completions of one prompt together
        scores = [0.0] * len(rows)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            packed, places = pack_prefix_trees([_last_tokens(*rows[i], context) for i in batch], context)
            packed["ends"] = torch.stack([place[-1] for place in places])
            with self.runtime.autocast():
                values = document_scores(self.model, {k: v.to(self.runtime.device) for k, v in packed.items()})
            for i, score in zip(batch, values.tolist()):
                scores[i] = score
        return check_finite(scores)


def _last_tokens(prompt: list[int], completion: list[int], limit: int) -> tuple[list[int], list[int]]:
    """The last ``limit`` tokens of both together, at least one of which counts as the prompt."""
    tokens = (prompt + completion)[-limit:]
    split = max(1, len(tokens) - len(completion))
    return tokens[:split], tokens[split:]


def completion_hidden_states(model: GPT, batch: Batch, at: Tensor | None = None) -> Tensor:
    """The hidden states (M, D) that predict the tokens of completions, or those ``at`` other places."""
    at = batch["places"] if at is None else at
    return model.hidden(batch["tokens"], prefix_shared(batch["documents"], batch["branch_ids"], at))
