"""Pages about training text: what a cleaning kept and dropped (`prepare`), and a look at text (`data look`).

They fill cleaning.html and data_look.html beside this file, by page.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.console import bytes_text, show_table
from understudy.data.quality.cleaning import PAGE, QUALITY
from understudy.data.quality.look import LENGTHS, DataLook
from understudy.files import read_json
from understudy.report.page import page_path, write_page
from understudy.report.wording import percent


def cleaning_page(folder: Path | str) -> Path | None:
    """Write the page of a data folder whose text was cleaned; None for another folder, or if it was written before."""
    if isinstance(folder, str):  # in an object store, where nothing is cleaned
        return None
    page = folder / PAGE
    if not (folder / QUALITY).is_file() or page.is_file():
        return None
    content = read_json(folder / QUALITY)
    tally = content["tally"]
    read, size = tally["documents"], tally["bytes"]

    def rows(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "id": f"{number}", "reason": reason, "documents": f"{count['documents']:,}", "bytes": bytes_text(count["bytes"]),
                "share": percent(count["documents"] / max(1, read)), "width": 100 * count["documents"] / max(1, read),
                "examples": count["examples"],
            }
            for number, (reason, count) in enumerate(_sorted(counts))
        ]  # fmt: skip

    settings = content["settings"]
    chosen = [
        ("filters", ", ".join(settings["filters"])), ("deduplication", ", ".join(settings["dedup"])),
        ("kept out", ", ".join(name for name, _ in settings["decontaminate"])),
        ("libraries", ", ".join(f"{name} {version}" for name, version in content["versions"].items())),
    ]  # fmt: skip
    cards = [
        ("read", f"{read:,}", f"documents, {bytes_text(size)}"),
        ("kept", percent(tally["kept_documents"] / max(1, read)),
         f"{tally['kept_documents']:,} documents, {bytes_text(tally['kept_bytes'])}"),
        ("dropped", f"{read - tally['kept_documents']:,}",
         f"documents, {bytes_text(sum(count['bytes'] for count in tally['dropped'].values()))}"),
    ]  # fmt: skip
    if tally["validation_documents"]:
        cards.append(("validation", f"{tally['validation_documents']:,}", "documents, left as they are"))
    return write_page(
        "cleaning.html",
        {
            "name": folder.resolve().name, "cards": cards, "settings": [row for row in chosen if row[1]],
            "dropped": rows(tally["dropped"]), "changed": rows(tally["changed"]),
        },
        page,
    )  # fmt: skip


def _sorted(counts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(counts.items(), key=lambda item: -item[1]["documents"])


def print_quality(quality: Mapping[str, Any]) -> None:
    """Print the table of what was kept, dropped and changed, of a manifest."""
    read = quality["read"]["documents"]

    def row(name: str, documents: int, size: int) -> list[str]:
        return [name, f"{documents:,}", percent(documents / max(1, read)), bytes_text(size)]

    rows = [row("read", documents=read, size=quality["read"]["bytes"])]
    dropped = sorted(quality["dropped"].items(), key=lambda item: -item[1][0])
    rows += [row(f"dropped: {reason}", *counts) for reason, counts in dropped]
    rows += [row(f"changed: {step}", *counts) for step, counts in quality["changed"].items()]
    rows.append(row("kept", quality["kept"]["documents"], quality["kept"]["bytes"]))
    show_table("cleaning of the training text", ("", "documents", "share", "size"), rows)


def look_page(look: DataLook, out: Path) -> Path:
    """Write the page of a look at text to a file, or to data-look.html in a folder.

    Raises:
        ValueError: it cannot be written.
    """
    most = max(look.histogram.values())
    lengths = [
        {
            "name": f"{power:,} to {2 * power - 1:,}",
            "documents": f"{n:,}",
            "share": percent(n / look.documents),
            "width": 100 * n / most,
        }
        for power, n in look.histogram.items()
    ]
    languages = [
        {"name": code, "documents": f"{n:,}", "share": percent(n / look.sampled), "width": 100 * n / look.sampled}
        for code, n in list((look.languages or {}).items())[:20]
    ]
    cards = [
        ("documents", f"{look.documents:,}", f"in {look.files:,} file{'s' if look.files != 1 else ''}"),
        ("text", bytes_text(look.bytes), f"{look.characters:,} characters"),
        ("tokens per byte", f"{look.tokens_per_byte:.3f}",
         f"about {look.tokens_per_byte * look.bytes:,.0f} tokens; {look.tokenizer}"),
        ("exact copies", percent(look.exact_copies / look.documents),
         f"{look.exact_copies:,} documents, {bytes_text(look.copied_bytes)}"),
    ]  # fmt: skip
    if look.near_copies is not None:
        cards.append(
            ("near copies", percent(look.near_copies / max(1, look.compared)),
             f"{look.near_copies:,} of the first {look.compared:,} different documents")
        )  # fmt: skip
    shares = [(_share_name(share), f"{length:,}") for share, length in zip(LENGTHS, look.lengths)]
    notes = [(kind, reason, f"{n:,}") for kind, counts in look.notes.items() for reason, n in counts.items()]
    if look.empty_documents:
        notes.append(("dropped", "empty documents", f"{look.empty_documents:,}"))
    return write_page(
        "data_look.html",
        {
            "name": look.path, "cards": cards, "lengths": lengths, "shares": shares, "languages": languages,
            "sampled": f"{look.sampled:,}", "missing": look.languages is None or look.near_copies is None,
            "copies": look.copy_examples, "samples": look.samples, "notes": notes,
        },
        page_path(out, "data-look.html"),
    )  # fmt: skip


def _share_name(share: float) -> str:
    return {0.0: "shortest", 0.5: "median", 1.0: "longest"}.get(share, f"{share:.0%} are shorter than")


def print_look(look: DataLook) -> None:
    """Print the numbers of a look."""
    rows: list[Sequence[str]] = [
        ("documents", f"{look.documents:,}"), ("characters", f"{look.characters:,}"), ("size", bytes_text(look.bytes)),
        ("characters of a document", f"{look.lengths[0]:,} to {look.lengths[-1]:,}, median {look.lengths[3]:,}"),
        ("tokens per byte", f"{look.tokens_per_byte:.3f} ({look.tokenizer})"),
        ("exact copies", f"{look.exact_copies:,} ({percent(look.exact_copies / look.documents)})"),
    ]  # fmt: skip
    if look.near_copies is not None:
        rows.append(("near copies", f"{look.near_copies:,} of the first {look.compared:,} different documents"))
    if look.languages is not None:
        named = ", ".join(f"{code} {percent(n / look.sampled)}" for code, n in list(look.languages.items())[:6])
        rows.append((f"languages of {look.sampled:,} documents", named))
    if look.languages is None or look.near_copies is None:
        rows.append(("not looked at", "languages and near copies: pip install 'understudy[quality]'"))
    if look.empty_documents:
        rows.append(("empty documents", f"{look.empty_documents:,}"))
    rows += [(f"{kind}: {reason}", f"{n:,}") for kind, counts in look.notes.items() for reason, n in counts.items()]
    show_table(look.path, ("", ""), rows)
