"""Tokens and their log-probabilities in JSON."""

from __future__ import annotations

from understudy.tokenizer import Tokenizer

LEAST_LOGPROB = -9999.0
"""OpenAI's value for log 0, since JSON has no infinity."""


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """A token as text; in OpenAI's form `bytes:\\xe2\\x82` if it is a part of a character."""
    raw = tokenizer.token_bytes(token)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def logprob_number(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)
