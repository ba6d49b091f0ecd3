"""A prompt read by a run: probabilities, logit lens and attention of its tokens and of a greedy continuation.

Not here: the numbers themselves (inference/lookinside.py), the picture (look_plot.py), printing (commands/looking.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from understudy.inference.generate import continue_rows, encode_prompt
from understudy.inference.lookinside import Look, describe, look_inside
from understudy.inference.sampling import SamplingSettings
from understudy.run import Run, refuse_reward_model
from understudy.tokenizer.base import token_texts
from understudy.tokenizer.chat import Message, end_ids, render, speaks_chat

ANSWER_TOKENS = 60
SHOWN_TOKENS = 16


@dataclass(frozen=True)
class PromptLook:
    """The look inside a run at a prompt and its continuation.

    Attributes:
        rows: one description per token, by `describe`.
        texts: the text of each token.
        prompt_tokens: number of tokens of the prompt; the later ones are generated.
    """

    run: Run
    look: Look
    rows: list[dict[str, Any]]
    texts: list[str]
    prompt_tokens: int

    def shown(self, count: int | None) -> range:
        """The tokens of the tables: the first generated ones, or without any the last of the prompt. The first token of
        all has no prediction and is never shown."""
        count, end = count or SHOWN_TOKENS, len(self.rows)
        if self.prompt_tokens < end:
            return range(self.prompt_tokens, min(end, self.prompt_tokens + count))
        return range(max(1, end - count), end)

    def position(self, token: int | None) -> int:
        """The position whose attention is shown: the one that predicts ``token``, by default the first generated token.

        Raises:
            ValueError: there is no such token.
        """
        if token is None:
            return min(self.prompt_tokens, len(self.rows)) - 1
        if not 1 <= token <= len(self.rows):
            raise ValueError(
                f"--at is {token}; the text has the tokens 1 to {len(self.rows) - 1}, and {len(self.rows)} comes next"
            )
        return token - 1

    def as_dict(self, position: int) -> dict[str, Any]:
        attention = [
            [[round(w, 4) for w in head[position].tolist()] for head in layer] for layer in self.look.attention
        ]
        return {
            "run": str(self.run.path), "step": self.run.step, "prompt_tokens": self.prompt_tokens,
            "position": position, "tokens": self.rows, "attention": attention,
        }  # fmt: skip


def look_at_prompt(
    run: Run, prompt: str, plain: bool = False, system: str | None = None, max_new_tokens: int | None = None
) -> PromptLook:
    """Read a prompt as the run would answer or continue it, with its greedy continuation.

    Args:
        plain: continue the prompt as text, also if the run has chat tokens.
        system: a system message before the prompt.
        max_new_tokens: length of the continuation; by default 60 for an answer and 0 for text.

    Raises:
        ValueError: a reward model, an empty prompt, one that does not fit, or a system message for text.
    """
    refuse_reward_model(run)
    chat = speaks_chat(run.tokenizer) and not plain
    if system is not None and not chat:
        raise ValueError(
            "--system is for the prompt of an assistant, and this prompt is continued as text; leave it out"
        )
    if not prompt.strip():
        raise ValueError("the prompt is empty; give a text to look at")
    if chat:
        messages: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        tokens = render(run.tokenizer, [*messages, {"role": "user", "content": prompt}], reply=True).tokens
        ends = end_ids(run.tokenizer)
    else:
        tokens, ends = encode_prompt(run.tokenizer, prompt), frozenset()
    context = run.config.model.context_length
    if len(tokens) > context:
        raise ValueError(f"the prompt has {len(tokens):,} tokens, and the context has {context:,}; give a shorter one")
    wanted = max_new_tokens if max_new_tokens is not None else ANSWER_TOKENS if chat else 0
    new_tokens = min(wanted, context - len(tokens))
    prompt_tokens, finished = len(tokens), set[int]()
    steps = continue_rows(
        run.model, [tokens], new_tokens, SamplingSettings(temperature=0), finished, vocab_size=run.tokenizer.vocab_size
    )
    for _, token, _ in steps:
        tokens = [*tokens, token]
        if token in ends:
            finished.add(0)
    look = look_inside(run.model, tokens, vocab_size=run.tokenizer.vocab_size)
    return PromptLook(run, look, describe(look, run.tokenizer), token_texts(run.tokenizer, tokens), prompt_tokens)
