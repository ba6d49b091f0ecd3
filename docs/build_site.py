"""Build the site in build/site from the pages of the repository, without the network.

    make docs

A copy of the pages is laid out as in the repository, so that their links work on the site as they do in a checkout. The
notebooks, and code files that a page links to, become pages too. The build fails at a link that leads nowhere.

A visitor's browser reads the texts of the search and sorts them anew on each page, so only prose is in them.
"""

from __future__ import annotations

import argparse
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**/*.md", "benchmarks/*.md", "benchmarks/pages/*.md")
NOTEBOOKS = "notebooks/*.ipynb"
PICTURES = ("docs/images/*", "docs/site/*", "benchmarks/plots/*")
LINK = re.compile(r"(\]\()((?!https?:|mailto:|#)[^)\s#]+)((?:#[^)\s]*)?\))")
MATH = re.compile(r"\$\$(.+?)\$\$|\$([^\s$](?:[^$\n]*[^\s$])?)\$", re.DOTALL)
UNSEARCHED = "---\nsearch: {exclude: true}\n---\n"
LANGUAGES = {".py": "python", ".yaml": "yaml", ".sh": "sh", ".json": "json", "": "make"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="folder for pages and site (default: build)")
    out = parser.parse_args().out.resolve()
    pages = out / "site-pages"
    shutil.rmtree(pages, ignore_errors=True)
    sources = sorted(path for pattern in PAGES for path in ROOT.glob(pattern))
    linked: set[Path] = set()
    for path in sources:
        _write(pages / path.relative_to(ROOT), _with_links(path.read_text(encoding="utf-8"), path, linked))
    for path in sorted(ROOT.glob(NOTEBOOKS)):
        text, files = _notebook_page(path)
        _write(pages / _page_of(path), _with_links(text, path, linked))
        for name, content in files.items():
            _write_bytes(pages / path.relative_to(ROOT).parent / name, content)
    for path in sorted(linked):
        _write(pages / _page_of(path), _code_page(path))
    for pattern in PICTURES:
        for path in ROOT.glob(pattern):
            target = pages / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "SITE_PAGES": str(pages)}
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--quiet",
        "--strict",
        "--config-file",
        str(ROOT / "docs" / "mkdocs.yml"),
    ]
    status = subprocess.run([*command, "--site-dir", str(out / "site")], check=False, env=environment).returncode
    if status == 0:
        _without_code(out / "site" / "search" / "search_index.json")
    sys.exit(status)


def _without_code(index: Path) -> None:
    """Leave the code and the outputs of notebooks out of the search. Code files are left out by their own pages."""
    found = json.loads(index.read_text(encoding="utf-8"))
    for section in found["docs"]:
        if section["location"].startswith("notebooks/"):
            section["text"] = re.sub(r"<pre>.*?</pre>", "", section["text"], flags=re.DOTALL)
    index.write_text(json.dumps(found, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def _with_links(text: str, page: Path, linked: set[Path]) -> str:
    return LINK.sub(lambda match: _link(match, page, linked), text)


def _link(match: re.Match[str], page: Path, linked: set[Path]) -> str:
    """A link of a page, changed where it leads to a notebook, a code file or a folder."""
    target = (page.parent / match[2]).resolve()
    if target.is_dir():
        index = target / "README.md"
        if index.exists():
            return f"{match[1]}{match[2].rstrip('/')}/README.md{match[3]}"
        linked.add(target)
        return f"{match[1]}{match[2].rstrip('/')}.md{match[3]}"
    if target.match(NOTEBOOKS):
        return f"{match[1]}{match[2]}.md{match[3]}"
    if target.is_file() and target.suffix in LANGUAGES:
        linked.add(target)
        return f"{match[1]}{match[2]}.md{match[3]}"
    return match[0]


def _page_of(path: Path) -> Path:
    return path.relative_to(ROOT).with_name(path.name + ".md")


def _notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """A page with the text, code and outputs of a notebook, and its pictures by their paths from the page's folder."""
    import nbformat
    from nbconvert import MarkdownExporter

    folder, files = f"{path.stem}_files", {}
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts = re.split(r"(```.*?```|`[^`]*`)", cell.source, flags=re.DOTALL)  # code has the odd numbers
            parts[::2] = [MATH.sub(lambda match: _formula(match, folder, files), part) for part in parts[::2]]
            cell.source = "".join(parts)
        else:
            cell.outputs = _without_colours(cell.get("outputs", []))
    resources = {"output_files_dir": folder, "unique_key": path.stem}
    text, resources = MarkdownExporter().from_notebook_node(notebook, resources)
    for match in re.findall(r"!\[png\]\([^)]*_(\d+)_\d+\.png\)", text):
        text = text.replace("![png](", f"![{_alternative(notebook.cells, int(match))}](", 1)
    return text, files | resources["outputs"]


def _without_colours(outputs: list) -> list:
    """The outputs of a cell; what rich printed becomes one block of text, since its colours are for light pages only."""
    kept: list = []
    for output in outputs:
        if not output.get("data", {}).get("text/html", "").startswith("<pre"):
            kept.append(output)
            continue
        text = html.unescape(re.sub("<[^>]+>", "", output.data["text/html"])).rstrip()
        if kept and kept[-1].get("printed"):
            kept[-1].data["text/plain"] += f"\n{text}"
        else:
            output.update(data={"text/plain": text}, printed=True)
            kept.append(output)
    return kept


def _alternative(cells: list, index: int) -> str:
    """The text for a picture of a notebook: the titles in the code that draws it, or else the sentence before it."""
    titles = re.findall(r"title(?:=|\()\"([^\"{}]{4,})\"", cells[index].source)
    before = next(cell.source for cell in reversed(cells[:index]) if cell.cell_type == "markdown")
    sentence = re.split(r"(?<=[.:?])\s+", " ".join(re.sub(r"<[^>]*>|[*`#]", "", before).split()))[-1]
    return f"Plot: {'; '.join(titles) or sentence}".replace("[", "(").replace("]", ")")


def _formula(match: re.Match[str], folder: str, files: dict[str, bytes]) -> str:
    """A picture of a formula, so that the page needs no script. Its baseline is that of the text."""
    from matplotlib import rc_context
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import math_to_image

    tex = " ".join((match[1] or match[2]).split())
    picture = io.BytesIO()
    font = FontProperties(size=14, math_fontfamily="stix")
    with rc_context({"savefig.transparent": True}):
        depth = math_to_image(f"${tex}$", picture, font, dpi=72, format="svg")
    name = f"{folder}/formula_{len(files)}.svg"
    files[name] = picture.getvalue()
    image = f'<img class="formula" src="{name}" alt="{html.escape(tex)}" style="vertical-align: {-depth:.1f}px">'
    return f"\n\n<p>{image}</p>\n\n" if match[1] else image


def _code_page(path: Path) -> str:
    """A page with a code file, or with the files of a folder."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_file():
        code = path.read_text(encoding="utf-8").replace("\n```", "\n\\```")
        return f'{UNSEARCHED}# {path.name}\n\n`{name}`\n\n````{LANGUAGES[path.suffix]} linenums="1"\n{code}````\n'
    files = sorted(file for file in path.rglob("*") if file.suffix in (".py", ".yaml", ".jsonl"))
    rows = "\n".join(f"| `{file.relative_to(path).as_posix()}` | {_summary(file)} |" for file in files)
    return f"# {path.name}/\n\n`{name}`\n\n| file | contents |\n|---|---|\n{rows}\n"


def _summary(file: Path) -> str:
    """The first sentence of a Python file's docstring, or the first comment of a YAML file."""
    text = file.read_text(encoding="utf-8")
    found = re.match(r'"""(.+?)(?:"""|\n\n|\n)', text, re.DOTALL) if file.suffix == ".py" else re.match("# (.+)", text)
    return found[1].strip().replace("|", "\\|") if found else ""


def _write(path: Path, text: str) -> None:
    _write_bytes(path, text.encode())


def _write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


if __name__ == "__main__":
    main()
