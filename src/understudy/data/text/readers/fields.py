"""Files of records: the text of each in a field, or made of several by a template."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any

from understudy.data.inputs import InputFile
from understudy.data.records import RecordError, kind_of, read_records, shown_names
from understudy.data.text.documents import DocumentPiece, note_piece, split_document
from understudy.data.text.readers.base import FieldChoiceError, ReadOptions, plain_lines

UNUSABLE_RECORDS = 1000
"""A file whose first records are all unusable is refused after so many."""
TEMPLATE_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
NO_FIELD = "no field"
ESCAPES = {"\\n": "\n", "\\t": "\t", "\\\\": "\\"}


def read_fields(file: InputFile, options: ReadOptions, ending: str = "") -> Iterator[DocumentPiece]:
    """`ending`: the format of a file whose name does not tell it."""
    if ending:
        file = dataclasses.replace(file, name=file.name + ending)
    names = template_fields(options.template) if options.template else [options.field]
    unusable: list[tuple[RecordError, str]] = []
    used, line_ends, offset = 0, False, 0
    for record in read_records(file, [name.split(".")[0] for name in names], keep_going=True):
        offset = record.offset
        try:
            if record.error is not None:
                raise record.error
            text = (
                fill_template(options.template, record.fields, record.where)
                if options.template
                else text_of(record.fields, options.field, record.where)
            )
        except RecordError as error:
            if used:
                yield note_piece("dropped", error.reason, record.where, offset)
                continue
            unusable.append((error, record.where))
            if len(unusable) == UNUSABLE_RECORDS:
                break
            continue
        for unused, where in unusable:
            yield note_piece("dropped", unused.reason, where, offset)
        used, unusable = used + 1, []
        line_ends = line_ends or "\r" in text
        yield from split_document(plain_lines(text), offset)
    if unusable:
        first = unusable[0][0]
        if not any(error.reason.startswith(NO_FIELD) for error, _ in unusable):
            raise ValueError(str(first))
        hint = "; if its first row is no header, put a row with the names of the columns above it"
        raise FieldChoiceError(f"{first}{hint if file.ending in ('.csv', '.tsv') else ''}")
    for remark in (*file.remarks, *(["line ends made \\n"] if line_ends else [])):
        yield note_piece("changed", remark, file.where, offset)


def text_of(fields: dict[str, Any], name: str, where: str) -> str:
    """The text of a record; a null is an empty document. Lone surrogates, which JSON can spell, are no text.

    Raises:
        RecordError: it has none.
    """
    value = value_of(fields, name, where, "choose one with --field")
    if value is None:
        return ""
    if not isinstance(value, str):
        inner = f": it has {', '.join(f'{name}.{key}' for key in value)}" if isinstance(value, dict) else ""
        raise RecordError(
            f"{NO_FIELD} {name!r} of text",
            f"field {name!r} of {where} is not text but {kind_of(value)}{inner}; choose another with --field",
        )
    return _checked(value, name, where)


def _checked(text: str, name: str, where: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RecordError(
            "half a surrogate pair", f"field {name!r} of {where} has half a surrogate pair and is not UTF-8"
        ) from error
    return text


def value_of(fields: dict[str, Any], name: str, where: str, advice: str) -> Any:
    """The value of a field, or of one inside nested objects and lists where the name has dots (`messages.0.content`).

    Raises:
        RecordError: there is no such field.
    """
    if name in fields:
        return fields[name]
    value: Any = fields
    for part in name.split("."):
        if value is None:
            return None
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            raise RecordError(
                f"{NO_FIELD} {name!r}", f"{where} has no field {name!r}; its fields are {shown_names(fields)}: {advice}"
            )
    return value


@functools.cache
def template_fields(template: str) -> Sequence[str]:
    """The fields that a template names.

    Raises:
        ValueError: it names none, or has a brace that is not of a field.
    """
    names = [match[1] for match in TEMPLATE_PART.finditer(template) if match[1] is not None]
    stray = TEMPLATE_PART.sub("", template)
    if not names or not all(names) or "{" in stray or "}" in stray:
        raise ValueError(
            f"the template {template!r} is no text with fields, such as '{{question}}\\n{{answer}}'; a brace that is "
            "text is written twice"
        )
    return names


def fill_template(template: str, fields: dict[str, Any], where: str) -> str:
    """The text of a template with the values of its fields; texts, numbers, and true or false. A null is empty.

    Raises:
        RecordError: a field is missing, or a list or an object.
    """

    def value(match: re.Match[str]) -> str:
        if (name := match[1]) is None:
            return match[0][0]
        inserted = value_of(fields, name, where, "name another in --template")
        if isinstance(inserted, (dict, list)):
            raise RecordError(
                f"{NO_FIELD} {name!r} of text",
                f"field {name!r} of {where} is not text but {kind_of(inserted)}; name one inside it in --template, as in "
                f"{{{name}.{'0' if isinstance(inserted, list) else next(iter(inserted), 'name')}}}",
            )
        if isinstance(inserted, bool):
            return str(inserted).lower()
        return "" if inserted is None else _checked(str(inserted), name, where)

    parts, end = [], 0
    for match in TEMPLATE_PART.finditer(template):
        parts += [_unescaped(template[end : match.start()]), value(match)]
        end = match.end()
    return "".join((*parts, _unescaped(template[end:])))


def _unescaped(text: str) -> str:
    """A shell gives \\n as two characters."""
    return re.sub(r"\\[nt\\]", lambda match: ESCAPES[match[0]], text)
