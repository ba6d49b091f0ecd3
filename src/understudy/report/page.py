"""A page of one file: a template of this folder, filled, with the style that all pages share.

The page loads nothing from elsewhere, and all texts are escaped. Not here: the content (report.py, story.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from understudy.files import check_output_path, now, write_text


def page_path(out: Path, name: str) -> Path:
    """The file to write: ``out``, or the file ``name`` in the folder ``out``.

    Raises:
        ValueError: it exists and is no regular file.
    """
    out = out / name if out.is_dir() and not out.is_symlink() else out
    check_output_path(out)
    return out


def write_page(template: str, content: Mapping[str, Any], out: Path) -> Path:
    """Fill ``template`` with ``content``, ``style`` and ``written`` (the time), and write it to the file ``out``.

    Raises:
        ValueError: the page cannot be written.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # the charts come in our order
    page = environment.from_string(_read(template)).render(
        content, style=Markup(_read("style.css")), written=now().replace("T", " ").removesuffix("Z") + " UTC"
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, page)
    except OSError as error:
        raise ValueError(f"the page {out} cannot be written ({error.strerror}); choose another --out") from error
    return out


def _read(name: str) -> str:
    return (resources.files("understudy.report") / name).read_text(encoding="utf-8")
