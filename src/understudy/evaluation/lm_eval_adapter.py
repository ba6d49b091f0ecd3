"""Our runs as a model of EleutherAI's lm-evaluation-harness, under the name `understudy` (extra `eval`).

    python -m understudy.evaluation.lm_eval_adapter --model understudy --model_args run=NAME --tasks hellaswag

is the command `lm_eval` with all its options. The harness does not discover models of other packages, so the name is
added to its registry first. Not here: tasks, metrics and prompts, which belong to the harness.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from understudy.evaluation.likelihood import Span, continuation, document, score_sequences
from understudy.evaluation.runner import answer_all, prompt_room
from understudy.inference.generate import encode_prompt
from understudy.inference.sampling import SamplingSettings
from understudy.run import load_run
from understudy.runtime import Runtime, choose_device, choose_dtype
from understudy.tokenizer.chat import chat_template, render, speaks_chat

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the harness lm-eval is not installed; install it with `pip install 'understudy[eval]'`"
    ) from error

NAME = "understudy"
CHAT = "\0understudy chat\0"
"""Marks the JSON of a conversation. The harness passes prompts as text, in which a special token is plain text."""
MAX_NEW_TOKENS = 256


class UnderstudyLM(LM):
    """A run as a model of the harness.

    Args:
        run: a name under runs/, or a path.
        checkpoint: best, latest, or a step.
        batch_size: rows in one forward; `auto` is 16.
        device: cpu, cuda, cuda:N or mps; cuda:0, the harness's default, means auto.
        max_batch_size: passed by the harness and not used.
    """

    def __init__(
        self,
        run: str,
        checkpoint: str | int = "best",
        batch_size: int | str = 16,
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        # The harness passes cuda:0 if the user names no device.
        chosen, _ = choose_device("auto" if device in (None, "cuda:0") else device)
        loaded = load_run(str(run), str(checkpoint), str(chosen))
        self.model, self.tokenizer, self.step, self.path = loaded.model, loaded.tokenizer, loaded.step, loaded.path
        self.runtime = Runtime(chosen, choose_dtype(chosen)[0])
        self.batch_size = 16 if str(batch_size).startswith("auto") else int(batch_size)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-probability of each continuation of its context, and whether greedy decoding gives it."""
        return self._score([self._span(*request.args) for request in requests])

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of each whole text, after an end-of-text token."""
        return [logprob for logprob, _ in self._score([document(self.tokenizer, r.args[0]) for r in requests])]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continue each context up to one of its stop strings, greedily unless the task asks for something else."""
        answers = [""] * len(requests)
        groups: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(place)
        for how, places in groups.items():
            stop, max_new_tokens, settings = _generation(json.loads(how))
            room = prompt_room(self.model, max_new_tokens)
            prompts = [self._encode(requests[place].args[0])[-room:] for place in places]  # cut at the beginning
            generated = answer_all(
                self.model,
                self.tokenizer,
                prompts,
                max_new_tokens,
                settings,
                self.runtime,
                self.batch_size,
                stop,
                places,
            )
            for place, answer in zip(places, generated):
                answers[place] = answer
        return answers

    @property
    def tokenizer_name(self) -> str:
        """Names the tokenizer in the harness's caches."""
        return f"{NAME}-{self.tokenizer.sha256}"

    def chat_template(self, _: bool | str = False) -> str:
        return chat_template(self.tokenizer)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as one string, which only this class reads. Its texts cannot be mistaken for special tokens."""
        if not speaks_chat(self.tokenizer):
            raise ValueError(f"the run {self.path} was not finetuned to chat; leave --apply_chat_template out")
        if not add_generation_prompt:
            raise ValueError("a conversation that ends with a begun answer is not supported; leave gen_prefix out")
        return CHAT + json.dumps(chat_history) + CHAT

    def get_model_info(self) -> dict[str, Any]:
        """Facts that the harness saves with its results."""
        return {"understudy_run": str(self.path), "understudy_step": self.step}

    def _span(self, context: str, text: str) -> Span:
        if not context.startswith(CHAT):
            return continuation(self.tokenizer, context, text)
        before = self._encode(context)
        return Span(before + self.tokenizer.encode(text), len(before))

    def _encode(self, context: str) -> list[int]:
        if not context.startswith(CHAT):
            return encode_prompt(self.tokenizer, context)
        messages, _, suffix = context.removeprefix(CHAT).partition(CHAT)
        return render(self.tokenizer, json.loads(messages), reply=True).tokens + self.tokenizer.encode(suffix)

    def _score(self, spans: Sequence[Span]) -> list[tuple[float, bool]]:
        scored = score_sequences(self.model, spans, self.runtime, self.batch_size)
        return [(span.logprob, span.greedy) for span in scored]


def _generation(options: dict[str, Any]) -> tuple[list[str], int, SamplingSettings]:
    """Stop strings, length and sampling from a task's `generation_kwargs`."""
    until = options.get("until") or []
    stop = [text for text in ([until] if isinstance(until, str) else until) if text]
    temperature = float(options.get("temperature") or 0.0) if options.get("do_sample") else 0.0
    settings = SamplingSettings(temperature, options.get("top_k") or None, options.get("top_p"), seed=0)
    return stop, int(options.get("max_gen_toks") or MAX_NEW_TOKENS), settings


def main() -> int:
    """The command `lm_eval`, with our model in its registry."""
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.registry import register_model

    register_model(NAME)(UnderstudyLM)
    try:
        cli_evaluate()
    except ValueError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
