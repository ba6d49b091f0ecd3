"""Conversations as a trainer reads them: one split of a prepared folder, or of a single file, record by record.

Rendering them is tokenizer/chat.py's work.
"""

from __future__ import annotations

from pathlib import Path

from understudy.data.chat.conversation_formats import tidy_conversation
from understudy.data.chat.prepared import Prepared, open_prepared

Conversations = Prepared
"""Each record has `messages`, with an answer to train on, and the other fields of its line."""


def open_conversations(path: Path, split: str) -> Conversations:
    """One split of a folder that `understudy prepare --kind conversations` made, or of one .jsonl file in the same
    schema, of which 1 in 20 conversations, and one at least, are for validation.

    Raises:
        ValueError: no such folder, file or split, or one that holds something else; a line of the file that cannot
            be trained on.
    """
    return open_prepared(path, split, "conversations", tidy_conversation)
