"""The scores that a reward model gives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from understudy.data.chat.pair_rows import encode_completion
from understudy.data.chat.prefix_tree import pack_prefix_trees
from understudy.data.loader import Batch
from understudy.model import GPT
from understudy.model.masks import prefix_shared
from understudy.run import Run, load_run
from understudy.runtime import Runtime
from understudy.tokenizer.chat import Message


def document_scores(model: GPT, batch: dict[str, Tensor]) -> Tensor:
    """The scores (N,) of a batch's answers, read where each ends."""
    return model.score(completion_hidden_states(model, batch, batch["ends"]))


def check_finite(scores: list[float]) -> list[float]:
    if not all(map(math.isfinite, scores)):
        raise ValueError(
            "the reward model's scores are not finite: its training diverged; train one with a lower optim.lr"
        )
    return scores


class RewardModel:
    """A trained reward model, ready to score.

    Raises:
        ValueError: no such run, or one without a score.
    """

    def __init__(self, run: Run | str, runtime: Runtime) -> None:
        self.run = load_run(run) if isinstance(run, str) else run
        self.runtime = runtime
        if not isinstance(self.run.model, GPT) or not self.run.model.config.score_head:
            raise ValueError(f"the run {self.run.path} gives no scores; train one with `understudy reward`")
        self.model = self.run.model.to(runtime.device).eval()

    def conversations(self, conversations: Sequence[Sequence[Message]], batch_size: int = 16) -> list[float]:
        """The score of each conversation's last answer. The oldest turns of what is too long are left out.

        Raises:
            ValueError: no conversation, one that does not end with the assistant, or one that does not fit.
        """
        rows = []
        for number, messages in enumerate(conversations, 1):
            if not messages or messages[-1].get("role") != "assistant":
                raise ValueError(f"conversation {number} does not end with an answer; there is nothing to score")
            encoded = encode_completion(self.run.tokenizer, messages[:-1], messages[-1:])
            rows.append((encoded.prompt, encoded.completion))
        return self.answers(rows, batch_size)

    @torch.no_grad()
    def answers(self, rows: Sequence[tuple[list[int], list[int]]], batch_size: int = 16) -> list[float]:
        """The score read at the last token of each (prompt, answer), of which the last ``context_length`` are seen.

        Raises:
            ValueError: a score is not finite.
        """
        context = self.model.config.context_length
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i][0]), rows[i]))  # one prompt's are read together
        scores = [0.0] * len(rows)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            laid, places = pack_prefix_trees([_last(*rows[i], context) for i in batch], context)
            laid["ends"] = torch.stack([place[-1] for place in places])
            with self.runtime.autocast():
                found = document_scores(self.model, {k: v.to(self.runtime.device) for k, v in laid.items()})
            for i, score in zip(batch, found.tolist()):
                scores[i] = score
        return check_finite(scores)


def _last(prompt: list[int], answer: list[int], most: int) -> tuple[list[int], list[int]]:
    """The last tokens of both, ``most`` together, the first of them counted to the prompt."""
    both = (prompt + answer)[-most:]
    asked = max(1, len(both) - len(answer))
    return both[:asked], both[asked:]


def completion_hidden_states(model: GPT, batch: Batch, at: Tensor | None = None) -> Tensor:
    """The hidden completion_hidden_states (M, D) from which the tokens of answers are predicted, or those ``at`` other places."""
    at = batch["places"] if at is None else at
    return model.hidden(batch["tokens"], prefix_shared(batch["documents"], batch["branch_ids"], at))
