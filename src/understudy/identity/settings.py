"""Who an assistant is: a name, a maker, facts, and phrases of a language to ask and answer with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from understudy.hamlet.stories import Split

LISTS = ("others", "other makers", "openings")
TOPICS = ("name", "maker", "kind", "wrong name", "wrong maker", "unknown", "claim")
"""Each has questions, and answers under its name with " answer" after it."""
SECTIONS = (*LISTS, *TOPICS, *(f"{topic} answer" for topic in TOPICS))
FIELDS = {"openings": {"question"}, "wrong name": {"other"}, "wrong maker": {"other"}, "claim": {"claim"}}
"""Fields that every phrase of a section must have."""
ANSWER_FIELDS = {"name", "maker", "other", "answer"}
ENGLISH = Path(__file__).with_name("english.txt")


@dataclass(frozen=True)
class Phrases:
    """Phrases of both splits. Those for validation are not in training."""

    train: tuple[str, ...]
    val: tuple[str, ...]

    def of(self, split: Split) -> tuple[str, ...]:
        """Those of a split; of training where none are kept for validation."""
        return self.val if split == "val" and self.val else self.train


@dataclass(frozen=True)
class IdentityFact:
    """An answer, the questions that it answers, and false statements that it corrects."""

    answer: str
    questions: Phrases
    wrong: Phrases


@dataclass(frozen=True)
class IdentitySettings:
    """What is known of an assistant, and the phrases in which it is asked and answers."""

    name: str
    maker: str
    facts: tuple[IdentityFact, ...]
    phrases: dict[str, Phrases]


def read_identity(
    name: str, maker: str, facts: Path | None = None, phrases: Path | None = None
) -> IdentitySettings:  # fmt: skip
    """The settings from a name, a maker and files.

    Args:
        facts: YAML, a list of facts with ``answer``, ``questions``, and ``wrong`` statements if there are some.
        phrases: of another language than English, in the form of english.txt.

    Raises:
        ValueError: an empty name or maker, or a file that does not have this form.
    """
    for option, value in (("name", name), ("maker", maker)):
        if not value.strip():
            raise ValueError(f"the {option} of the assistant is empty; give it with --{option}")
    return IdentitySettings(
        name.strip(), maker.strip(), read_facts(facts) if facts else (), read_phrases(phrases or ENGLISH)
    )


def read_phrases(path: Path) -> dict[str, Phrases]:
    """The phrases of a language by section.

    Raises:
        ValueError: a section that is missing or unknown, or a phrase without a field that it needs.
    """
    sections: dict[str, list[str]] = {}
    section = ""
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            if section not in SECTIONS:
                raise ValueError(f"{path} line {number}: no section [{section}]; there are {', '.join(SECTIONS)}")
            sections.setdefault(section, [])
        elif not section:
            raise ValueError(f"{path} line {number}: a phrase before the first section, such as [name]")
        else:
            _check_fields(section, line, f"{path} line {number}")
            sections[section].append(line)
    if missing := [name for name in SECTIONS if not sections.get(name)]:
        raise ValueError(f"{path} has no phrases in [{missing[0]}]; every section of english.txt is needed")
    return {name: _phrases(lines) for name, lines in sections.items()}


def _check_fields(section: str, phrase: str, where: str) -> None:
    fields = set(re.findall(r"{(.*?)}", phrase))
    needed = FIELDS.get(section, set())
    allowed = ANSWER_FIELDS if section.endswith(" answer") else needed
    if lacking := needed - fields:
        raise ValueError(f"{where}: a phrase of [{section}] needs {{{lacking.pop()}}}")
    if unknown := fields - allowed:
        raise ValueError(f"{where}: {{{sorted(unknown)[0]}}} means nothing in [{section}]")


def _phrases(lines: Sequence[str]) -> Phrases:
    return Phrases(
        tuple(line for line in lines if not line.startswith("~")),
        tuple(line[1:] for line in lines if line.startswith("~")),
    )


def read_facts(path: Path) -> tuple[IdentityFact, ...]:
    """The facts of a YAML file. Of three questions or statements and more, the last is kept for validation.

    Raises:
        ValueError: it is no list of facts.
    """
    try:
        tree = yaml.safe_load(_read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ValueError(
            f"{path} is not YAML{where}; write each question on a line of its own after `- `, in quotes if it has a colon"
        ) from error
    tree = tree.get("facts") if isinstance(tree, dict) else tree
    if not isinstance(tree, list) or not tree:
        raise ValueError(f"{path} is not a list of facts; each begins with `- answer:`")
    return tuple(_fact(entry, f"{path}, fact {number}") for number, entry in enumerate(tree, 1))


def _fact(entry: Any, where: str) -> IdentityFact:
    if not isinstance(entry, dict) or not isinstance(entry.get("answer"), str) or not entry["answer"].strip():
        raise ValueError(f"{where} has no `answer` with a sentence")
    if unknown := entry.keys() - {"answer", "questions", "wrong"}:
        raise ValueError(f"{where} has {sorted(map(str, unknown))[0]!r}; a fact has answer, questions and wrong")
    questions, wrong = (_texts(entry.get(field), field, where) for field in ("questions", "wrong"))
    if not questions:
        raise ValueError(f"{where} has no `questions`, which its answer could follow")
    return IdentityFact(entry["answer"].strip(), _keep_last(questions), _keep_last(wrong))


def _texts(value: Any, field: str, where: str) -> list[str]:
    values = [value] if isinstance(value, str) else value or []
    if not isinstance(values, list) or not all(isinstance(text, str) and text.strip() for text in values):
        raise ValueError(f"{where}: {field} is a sentence or a list of sentences")
    return [text.strip() for text in values]


def _keep_last(texts: Sequence[str]) -> Phrases:
    return Phrases(tuple(texts[:-1]), (texts[-1],)) if len(texts) > 2 else Phrases(tuple(texts), ())


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
