"""How tokens and their log-probabilities are written in JSON."""

from __future__ import annotations

from understudy.tokenizer import Tokenizer

LEAST_LOGPROB = -9999.0
"""OpenAI's number for a probability of 0, which JSON has no other for."""


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """A token as text; `bytes:\\xe2\\x82` where it is a part of a character, as OpenAI writes it."""
    raw = tokenizer.token_bytes(token)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def logprob_number(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)
