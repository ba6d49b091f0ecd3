"""One small file of every kind of text, made here. Each holds the words of TALE."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TALE = "The miller walks to the mill at night.\nA größer wheel turns — slowly.\n"
LINES = TALE.splitlines()
ROWS = [{"text": line, "n": i, "deep": {"en": line}} for i, line in enumerate(LINES)]


def zst(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content, asbytes=True)


def zipped(members: Mapping[str, bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members: Mapping[str, bytes | str], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def parquet(rows: list[dict[str, object]] = ROWS) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def arrow(rows: list[dict[str, object]] = ROWS) -> bytes:
    buffer = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def pdf(lines: list[str], pages: int = 1) -> bytes:
    """A PDF file with the lines on each page, ASCII alone."""
    escaped = [re.sub(r"([()\\\\])", r"\\\1", line) for line in lines]
    shown = "".join(f"({line}) Tj 0 -14 Td " for line in escaped)
    stream = f"BT /F1 12 Tf 72 720 Td {shown}ET".encode()
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(pages))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {pages} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i in range(pages):
        objects += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * i} 0 R >>".encode(),
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        ]
    out, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    end = b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
    return out + end % (len(objects) + 1, table, len(objects) + 1, len(out))


WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def docx(paragraphs: list[str], head: str = "") -> bytes:
    body = "".join(f'<w:p><w:r><w:t xml:space="preserve">{text}</w:t></w:r></w:p>' for text in paragraphs)
    xml = (
        f'<?xml version="1.0" encoding="UTF-8"?>{head}<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
    )
    return zipped({"[Content_Types].xml": "<Types/>", "word/document.xml": xml})


def epub(chapters: list[str], head: str = "", extra: Mapping[str, str] | None = None) -> bytes:
    items = "".join(
        f'<item id="c{i}" href="c%20{i}.xhtml" media-type="application/xhtml+xml"/>' for i in range(len(chapters))
    )
    spine = "".join(f'<itemref idref="c{i}"/>' for i in range(len(chapters)))
    pages = {
        f"OEBPS/c {i}.xhtml": f"<html><head><title>x</title></head><body>{text}</body></html>"
        for i, text in enumerate(chapters)
    }
    container = '<container><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
    package = f'<?xml version="1.0"?>{head}<package><manifest>{items}</manifest><spine>{spine}</spine></package>'
    return zipped({"mimetype": "application/epub+zip", "META-INF/container.xml": container, "OEBPS/book.opf": package,
                   **pages, **(extra or {})})  # fmt: skip


PAGE = (
    "<!DOCTYPE html><html><head><title>The mill</title><script>var menu = 1;</script></head><body><nav><a href='/'>Home</a>"
    "<a href='/b'>Buy flour</a></nav><article><h1>The mill</h1>"
    + "".join(
        f"<p>{line} It was told again and again in every village along the river, year after year.</p>"
        for line in LINES
    )
    + "</article><footer>All rights reserved</footer></body></html>"
)
SRT = "".join(f"{i}\r\n00:00:0{i},000 --> 00:00:0{i},900\r\n<i>{line}</i>\r\n\r\n" for i, line in enumerate(LINES, 1))
VTT = "WEBVTT\n\nSTYLE\n::cue {color: red}\n\nNOTE made by hand\n\n" + "".join(
    f"00:0{i}.000 --> 00:0{i}.900 align:start\n{line}\n{line}\n\n" for i, line in enumerate(LINES, 1)
)
OPUS = '<?xml version="1.0" encoding="utf-8"?>\n<document id="1">' + "".join(
    f'<s id="{i}"><time id="T{i}S" value="00:00:01,000"/>' + " ".join(f"<w>{w}</w>" for w in line.split()) + "</s>"
    for i, line in enumerate(LINES)
) + "</document>"  # fmt: skip
TMX = '<?xml version="1.0"?><tmx version="1.4"><body>' + "".join(
    f'<tu><tuv xml:lang="en"><seg>{line}</seg></tuv><tuv xml:lang="de"><seg>Zeile {i}</seg></tuv></tu>'
    for i, line in enumerate(LINES)
) + "</body></tmx>"  # fmt: skip
MBOX = "".join(
    f"From miller@mill.example Thu Jan  1 00:00:0{i} 2026\nSubject: Line {i}\nContent-Type: text/plain; charset=utf-8\n"
    f"Content-Transfer-Encoding: 8bit\n\n{line}\n>From there on.\n\n"
    for i, line in enumerate(LINES)
)


def warc(kind: str, media: str, pages: list[str]) -> bytes:
    out = (
        b"WARC/1.0\r\nWARC-Type: warcinfo\r\nContent-Type: application/warc-fields\r\nContent-Length: 0\r\n\r\n\r\n\r\n"
    )
    for i, page in enumerate(pages):
        body = page.encode()
        if kind == "response":
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {media}; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
            body, media_of_record = head.encode() + body, "application/http; msgtype=response"
        else:
            media_of_record = media
        out += (
            f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{i}>\r\nWARC-Target-URI: http://mill.example/{i}\r\n"
            f"WARC-Date: 2026-01-01T00:00:00Z\r\nContent-Type: {media_of_record}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body + b"\r\n\r\n"  # fmt: skip
    return out


def as_jsonl() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def csv_of(delimiter: str, encoding: str = "utf-8") -> bytes:
    return (
        "n,text\n".replace(",", delimiter) + "".join(f"{i}{delimiter}{line}\n" for i, line in enumerate(LINES))
    ).encode(encoding)


ASCII_LINES = ["The miller walks to the mill at night.", "A wheel turns slowly."]
FILES: dict[str, tuple[str, Callable[[], bytes], int]] = {
    # the name of the file: its kind, its content, and the number of its documents
    "a.rst": ("plain text", TALE.encode, 1),
    "b.tex": ("plain text", TALE.encode, 1),
    "c.org": ("plain text", TALE.encode, 1),
    "d.log": ("plain text", TALE.encode, 1),
    "e.py": ("plain text", TALE.encode, 1),
    "NOTES": ("plain text", TALE.encode, 1),
    "f.txt": ("plain text", lambda: TALE.replace("\n", "\r\n").encode("utf-16"), 1),
    "g.txt": ("plain text", lambda: TALE.encode("cp1252"), 1),
    "h.txt.gz": ("plain text", lambda: gzip.compress(TALE.encode()), 1),
    "i.txt.bz2": ("plain text", lambda: bz2.compress(TALE.encode()), 1),
    "j.txt.xz": ("plain text", lambda: b"".join(lzma.compress((line + "\n").encode()) for line in LINES), 1),
    "k.txt.zst": ("plain text", lambda: zst(TALE.encode()), 1),
    "packed": ("plain text", lambda: gzip.compress(TALE.encode()), 1),
    "l.zip": ("zip", lambda: zipped({"a.txt": TALE, "b/c.jsonl": as_jsonl(), "d.parquet": parquet(), "p.png": b"\x89\0"}), 5),
    "m.tar": ("tar", lambda: tarred({"a.txt": TALE, "b.jsonl.gz": gzip.compress(as_jsonl()), "c.zip": zipped({"x": TALE})}), 4),
    "n.tar.gz": ("tar", lambda: tarred({"a.txt": TALE, "b.docx": docx(LINES)}, "w:gz"), 2),
    "o.tgz": ("tar", lambda: tarred({"a.txt": TALE}, "w:gz"), 1),
    "p.tar.zst": ("tar", lambda: zst(tarred({"a.txt": TALE})), 1),
    "q.jsonl": ("JSON lines", as_jsonl, 2),
    "r.ndjson.zst": ("JSON lines", lambda: zst(as_jsonl()), 2),
    "s.json": ("JSON", lambda: json.dumps(ROWS, indent=1).encode(), 2),
    "t.csv": ("CSV", lambda: csv_of(","), 2),
    "u.csv": ("CSV", lambda: csv_of(";", "cp1252"), 2),
    "v.tsv": ("TSV", lambda: csv_of("\t"), 2),
    "w.parquet": ("Parquet", parquet, 2),
    "x.arrow": ("Arrow", arrow, 2),
    "tables": ("Parquet", parquet, 2),
    "y.html": ("HTML", PAGE.encode, 1),
    "z.pdf": ("PDF", lambda: pdf(ASCII_LINES, 2), 1),
    "za.docx": ("DOCX", lambda: docx(LINES), 1),
    "zb.epub": ("EPUB", lambda: epub([f"<p>{line}</p>" for line in LINES]), 1),
    "zc.srt": ("subtitles", SRT.encode, 1),
    "zd.vtt": ("subtitles", VTT.encode, 1),
    "ze.xml": ("OPUS", OPUS.encode, 1),
    "zf.warc.gz": ("WARC", lambda: gzip.compress(warc("response", "text/html", [PAGE, PAGE])), 2),
    "zg.wet": ("WARC", lambda: warc("conversion", "text/plain", LINES), 2),
    "zh.mbox": ("mailbox", MBOX.encode, 2),
    "zi.eml": ("mail", lambda: f"Subject: Lines\nContent-Type: text/plain; charset=utf-8\n\n{TALE}".encode(), 1),
}  # fmt: skip


def write_all(folder: Path) -> None:
    for name, (_, content, _) in FILES.items():
        (folder / name).write_bytes(content())
