"""A folder of one of everything: of each kind of text the files, the options, and what `prepare` must make of them.

test_everything.py checks each one, and benchmarks/one_of_everything.py writes the table of them all.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from text_files import ASCII_LINES, FILES, LINES, PAGE, ROWS, TALE, TMX, docx, epub, pdf, tarred, zipped

START = "The Project Gutenberg eBook of Tales\n\n*** START OF THE PROJECT GUTENBERG EBOOK TALES ***\n\n\n"
END = "\n\n*** END OF THE PROJECT GUTENBERG EBOOK TALES ***\n\nThe licence.\n"
STORIES = [f"Story {i} is of a lamp.\n" for i in range(3)]
ALL, EACH = len(TALE), sum(map(len, LINES))
HUGE = 2 << 30


@dataclass(frozen=True)
class Example:
    """Files of one kind.

    Attributes:
        files: their contents by name. A name with a slash is in a folder, and the folder is then the source.
        documents, characters: those that are prepared, of both splits together.
        said: parts of the remarks of the summary.
        library: an optional one that is needed.
        validation: documents of the validation split; None where a share of each document is.
    """

    kind: str
    files: Mapping[str, bytes | Callable[[Path], None]]
    documents: int
    characters: int
    options: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    library: str = ""
    validation: int | None = None

    def write(self, folder: Path) -> str:
        """Write the files, and return the source to name."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(path)
            else:
                path.write_bytes(content)
        first = next(iter(self.files))
        return str(folder / first.split("/")[0])


@dataclass(frozen=True)
class Refusal:
    """A file that must not be read.

    Attributes:
        sentence: a part of the message.
        big: whether it needs much time, or much room on the disk.
    """

    kind: str
    name: str
    content: bytes | Callable[[Path], None]
    sentence: str
    library: str = ""
    big: bool = False


def file_of(name: str) -> dict[str, bytes]:
    return {name: FILES[name][1]()}


def saved_to_disk(rows: list[dict[str, object]]) -> dict[str, bytes]:
    """A folder as `datasets` writes it with save_to_disk."""
    buffer = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return {
        "saved/dataset_dict.json": b'{"splits": ["train"]}',
        "saved/train/data-00000-of-00001.arrow": buffer.getvalue(),
        "saved/train/dataset_info.json": b'{"features": {}}',
        "saved/train/state.json": b'{"_split": "train"}',
    }


def jsonl(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def opus_zip() -> bytes:
    """Aligned texts as OPUS packs them for Moses."""
    german = "".join(f"Zeile {i}.\n" for i in range(len(LINES)))
    return zipped(
        {"Tales.de-en.en": TALE, "Tales.de-en.de": german, "README": "About the data.\n", "LICENSE": "Free.\n"}
    )


PDF_CHARACTERS = 2 * sum(len(line) + 1 for line in ASCII_LINES)
"""Of two pages with the same lines."""
PAGE_CHARACTERS = len("The mill\n") + sum(map(len, re.findall(r"<p>(.*?)</p>", PAGE))) + 1
"""The heading and two paragraphs, each on a line."""


def examples() -> list[Example]:
    """One of every kind."""
    plain = [
        ("plain text without ending", "NOTES"), (".rst", "a.rst"), (".tex", "b.tex"), (".org", "c.org"), (".log", "d.log"),
        ("source code", "e.py"),
    ]  # fmt: skip
    packed = [
        ("gz", "h.txt.gz"),
        ("bz2", "i.txt.bz2"),
        ("xz", "j.txt.xz"),
        ("zst", "k.txt.zst"),
        ("gz without ending", "packed"),
    ]
    records = [
        ("JSON lines", "q.jsonl"), ("JSON lines, zst", "r.ndjson.zst"), ("JSON list", "s.json"), ("CSV", "t.csv"),
        ("TSV", "v.tsv"), ("Parquet", "w.parquet"), ("Arrow", "x.arrow"),
    ]  # fmt: skip
    return [
        *(Example(kind, file_of(name), 1, ALL) for kind, name in plain),
        Example("UTF-16, lines ended by CR LF", file_of("f.txt"), 1, ALL, said=("read as utf-16-le", "line ends made \\n")),
        Example("Latin-1", file_of("g.txt"), 1, ALL, said=("read as cp1252",)),
        Example("book of Project Gutenberg", {"pg1.txt": (START + TALE + END).encode()}, 1, ALL,
                said=("header and licence of Project Gutenberg cut",)),
        Example("<|endoftext|> in a text", {"s.txt": "<|endoftext|>\n".join(STORIES).encode()}, 1,
                sum(map(len, STORIES)) + 2 * len("<|endoftext|>\n"),
                said=("the text spells <|endoftext|> 2 times", "--separator '<|endoftext|>'")),
        Example("the same, as a separator", {"s.txt": "<|endoftext|>\n".join(STORIES).encode()}, 3, sum(len(story.strip()) for story in STORIES),
                ("--separator", "<|endoftext|>")),
        *(Example(f"compressed: {kind}", file_of(name), 1, ALL) for kind, name in packed),
        *(Example(kind, file_of(name), 2, EACH) for kind, name in records),
        Example("CSV with semicolons, Windows-1252", file_of("u.csv"), 2, EACH, said=("read as cp1252: 1",)),
        Example("JSON lines, dotted --field", {"d.jsonl": jsonl(ROWS)}, 2, EACH, ("--field", "deep.en")),
        Example("JSON lines, --template", {"d.jsonl": jsonl(ROWS)}, 2, EACH + 2 * len("Line 0:\n"),
                ("--template", "Line {n}:\\n{deep.en}")),
        Example("folder of save_to_disk", saved_to_disk(ROWS), 2, EACH, said=("files left out, .json: 3",)),
        Example("TMX (OPUS), --field", {"t.tmx": TMX.encode()}, 2, EACH, ("--field", "en")),
        Example("OPUS zip (Moses)", {"o.zip": opus_zip()}, 2, ALL + 2 * len("Zeile 0.\n"), said=("files in archives left out: dataset cards: 2",)),
        Example("OPUS XML", file_of("ze.xml"), 1, ALL),
        Example("SRT", file_of("zc.srt"), 1, ALL, said=("line ends made \\n",)),
        Example("SRT without ending", {"film": FILES["zc.srt"][1]()}, 1, ALL, said=("line ends made \\n",)),
        Example("WebVTT", file_of("zd.vtt"), 1, ALL),
        Example("HTML", {"y.html": PAGE.encode()}, 1, PAGE_CHARACTERS, library="trafilatura"),
        Example("PDF", file_of("z.pdf"), 1, PDF_CHARACTERS, library="pypdf"),
        Example("DOCX", file_of("za.docx"), 1, ALL),
        Example("EPUB", file_of("zb.epub"), 1, ALL + 1),
        Example("WARC", file_of("zf.warc.gz"), 2, 2 * PAGE_CHARACTERS, library="warcio"),
        Example("WET", file_of("zg.wet"), 2, EACH, library="warcio"),
        Example("mbox", file_of("zh.mbox"), 2, 2 * len("Line 0\n\n") + EACH + 2 * len("\nFrom there on.\n")),
        Example("mail", file_of("zi.eml"), 1, len("Lines\n\n") + ALL),
        Example("zip", file_of("l.zip"), 5, ALL + 2 * EACH, said=("files in archives left out: .png: 1",)),
        Example("tar", file_of("m.tar"), 4, 2 * ALL + EACH),
        Example("tar.gz", file_of("n.tar.gz"), 2, 2 * ALL),
        Example("tar.zst", file_of("p.tar.zst"), 1, ALL),
        Example("train, validation and test files",
                {f"s/{name}.txt": (name + TALE).encode() for name in ("train", "validation", "test")}, 2,
                2 * ALL + len("trainvalidation"), said=("files left out, for testing: 1", "files for training: 1, for validation: 1"),
                validation=1),
        Example("dataset card beside the data",
                {"h/README.md": b"---\nlicense: mit\n---\nAbout the data.\n", "h/data.jsonl": jsonl(ROWS)}, 2, EACH,
                said=("files left out, dataset cards: 1",)),
        Example("a picture beside a text", {"p/a.png": b"\x89PNG\0\0", "p/a.txt": TALE.encode()}, 1, ALL,
                said=("files left out, .png: 1",)),
    ]  # fmt: skip


def long_line(path: Path) -> None:
    """A JSON line of 2 GiB, most of which takes no room on the disk."""
    with path.open("wb") as file:
        file.write(b'{"text": "')
        file.truncate(HUGE)


def endless_gzip(path: Path) -> None:
    """Two GiB of one letter."""
    with gzip.open(path, "wb", 9) as file:
        for _ in range(HUGE >> 24):
            file.write(b"a" * (1 << 24))


def zip_bomb(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.txt", "w", force_zip64=True) as file,
    ):
        for _ in range(HUGE >> 24):
            file.write(b"a" * (1 << 24))


def encrypted_pdf(path: Path) -> None:
    import pypdf

    writer = pypdf.PdfWriter(io.BytesIO(pdf(ASCII_LINES)))
    writer.encrypt("secret", "owner", algorithm="RC4-128")
    with path.open("wb") as file:
        writer.write(file)


ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'


def refusals() -> list[Refusal]:
    """Files that must be refused, each in one sentence."""
    return [
        Refusal("encrypted PDF", "a.pdf", encrypted_pdf, "is encrypted", "pypdf"),
        Refusal("zip bomb", "a.zip", zip_bomb, "as a decompression bomb does", big=True),
        Refusal("archive whose paths lead out", "b.tar", tarred({"../x.txt": "x"}), "leads out of the archive"),
        Refusal("gzip without an end", "a.txt.gz", endless_gzip, "as a decompression bomb does", big=True),
        Refusal("XML entities in a DOCX", "a.docx", docx(["&b;"], ENTITIES), "declares XML entities"),
        Refusal("XML entities in an EPUB", "a.epub", epub(["x"], ENTITIES), "declares XML entities"),
        Refusal("CSV without a header", "a.csv", b"1,2\n3,4\n", "has no header"),
        Refusal("JSON line of 2 GiB", "a.jsonl", long_line, "is longer than 128 MiB", big=True),
    ]
