"""The site in a real browser: every page fits a phone, and axe finds nothing serious on six of them, light and dark.

    pytest tests/test_site.py --site-pictures FOLDER

also saves pictures. axe is `pip install axe-playwright-python`, or the file axe.min.js that AXE_JS names.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("mkdocs", reason="mkdocs comes with `pip install 'understudy[docs]'`")

ROOT = Path(__file__).parent.parent
PAGES = ("index", "notebooks/02_attention.ipynb", "docs/how-to/models", "docs/reference/settings", "benchmarks/index",
         "docs/internals/index")  # fmt: skip
TABS = {
    "Start": "Understudy", "Tutorial": "Tutorial", "How-to": "How-to", "Reference": "Reference", "Internals": "Internals",
    "Benchmarks": "Benchmarks", "Failures": "Log of failures",
}  # fmt: skip
PHONE, DESK = (360, 740), (1280, 900)
PATIENCE = 120_000  # milliseconds, of which a busy machine can need many


def axe_script() -> str:
    """The text of axe.min.js; the test is skipped without it."""
    package = importlib.util.find_spec("axe_playwright_python")
    folders = [Path(folder) for folder in (package.submodule_search_locations or ())] if package else []
    places = [Path(os.environ.get("AXE_JS", "axe.min.js")), *(folder / "axe.min.js" for folder in folders)]
    for place in places:
        if place.is_file():
            return place.read_text(encoding="utf-8")
    pytest.skip("axe is missing: `pip install axe-playwright-python`, or name axe.min.js in AXE_JS")


NO_SEARCH = "X-No-Search"


class QuietHandler(SimpleHTTPRequestHandler):
    """A server that says nothing, and has no texts of the search for who asks so: each page would sort them anew."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if NO_SEARCH in self.headers and self.path.endswith("/search_index.json"):
            self.send_error(404)
        else:
            super().do_GET()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("build")
    command = [sys.executable, str(ROOT / "docs" / "build_site.py"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / "site"


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by Playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium here; `apt-get install chromium`")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser: Any, size: tuple[int, int], scheme: str = "light", search: bool = False) -> Any:
    headers = {} if search else {NO_SEARCH: "1"}
    viewport = {"width": size[0], "height": size[1]}
    page = browser.new_context(viewport=viewport, color_scheme=scheme, extra_http_headers=headers).new_page()
    page.set_default_timeout(PATIENCE)
    return page


def visit(page: Any, address: str) -> None:
    assert page.goto(address).ok, address
    page.wait_for_function("document.querySelector('.md-search')?.ariaLabel")  # docs/site/extra.js has run


def test_every_page_fits_a_phone(browser: Any, url: str, site: Path) -> None:
    page, wide = open_page(browser, PHONE), {}
    for path in sorted(site.rglob("*.html")):
        visit(page, f"{url}/{path.relative_to(site).as_posix()}")
        more = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if more > 0:
            wide[path.relative_to(site).as_posix()] = more
    page.context.close()
    assert wide == {}, "pixels by which pages are too wide"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_axe_finds_nothing_serious(
    browser: Any, url: str, size: tuple[int, int], scheme: str, request: pytest.FixtureRequest
) -> None:
    pictures, script = request.config.getoption("--site-pictures"), axe_script()
    page, faults = open_page(browser, size, scheme), []
    for name in PAGES:
        visit(page, f"{url}/{name}.html")
        if pictures:
            path = Path(pictures) / f"{name.replace('/', '_')}-{scheme}-{size[0]}.png"
            page.screenshot(path=str(path), full_page=True)
        page.evaluate(script)
        for fault in page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]:
            if fault["impact"] in ("serious", "critical"):
                faults.append((name, fault["id"], [node["html"][:120] for node in fault["nodes"][:3]]))
    page.context.close()
    assert faults == []


def test_sections_are_one_click_away(browser: Any, url: str) -> None:
    page = open_page(browser, DESK)
    visit(page, f"{url}/docs/reference/settings.html")
    for tab, heading in TABS.items():  # each from the page of the one before
        page.locator(".md-tabs").get_by_role("link", name=tab, exact=True).click()
        page.locator("h1", has_text=heading).first.wait_for()
    page.context.close()


def test_a_phone_can_reach_a_page_and_search(browser: Any, url: str) -> None:
    page = open_page(browser, PHONE, search=True)
    visit(page, f"{url}/index.html")
    page.locator(".md-header__button[for='__drawer']").click()
    page.locator(".md-nav--primary").get_by_text("How-to", exact=True).first.click()
    page.locator(".md-nav--primary").get_by_role("link", name="Align", exact=True).click()
    page.locator("h1", has_text="Align").first.wait_for()
    page.locator(".md-header__button[for='__search']").click()
    search_for(page, "LoRA")
    page.context.close()


@pytest.mark.parametrize(("word", "page_found"), [("LoRA", "how-to/train"), ("attention", "notebooks/02_attention")])
def test_the_search_finds(browser: Any, url: str, word: str, page_found: str) -> None:
    page = open_page(browser, DESK, search=True)
    visit(page, f"{url}/index.html")
    page.locator(".md-search__input").click()
    search_for(page, word)
    page.locator(f".md-search-result__item:nth-child(-n+3) a[href*='{page_found}']").first.wait_for()
    page.context.close()


def search_for(page: Any, word: str) -> None:
    """The first result has the word. It is typed, since the theme looks for what keys write, not for what is set."""
    page.locator(".md-search__input").press_sequentially(word)
    first = page.locator(".md-search-result__item").first
    first.filter(has_text=word).wait_for()  # in either case of letters


def test_the_search_has_prose_only(site: Path) -> None:
    """A browser reads all of it on each page that it opens; on a phone that takes seconds for each megabyte."""
    index = site / "search" / "search_index.json"
    sections = json.loads(index.read_text(encoding="utf-8"))["docs"]
    assert index.stat().st_size < 500_000
    assert not [section["location"] for section in sections if re.search(r"\.(py|sh|yaml)\.html", section["location"])]
    lessons = [section["text"] for section in sections if section["location"].startswith("notebooks/0")]
    assert len(lessons) > 50 and not any("<pre" in text for text in lessons)


def test_the_site_loads_no_files_of_others(site: Path) -> None:
    for page in ("index", "docs/how-to/models", "src/understudy/model/gpt.py", "benchmarks/index"):
        html = (site / f"{page}.html").read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"https?:", html)


def test_pictures_have_alternative_texts(site: Path) -> None:
    for path in site.rglob("*.html"):
        for tag in re.findall(r"<img\b[^>]*>", path.read_text(encoding="utf-8")):
            text = re.search(r'alt="([^"]*)"', tag)
            assert text and len(text[1]) > (0 if "formula" in tag else 8), f"{path.name}: {tag[:200]}"
