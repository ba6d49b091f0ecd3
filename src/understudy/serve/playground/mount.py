"""The playground: the page at `/` of the server, made with Gradio, to talk with the runs, judge them and look inside.

What it needs comes from the server itself: no font, script or picture is fetched from elsewhere, and a policy sent with
every page has the browser refuse any that an answer might ask for. Not here: what happens when someone says or judges
something (talking.py), whose requests are let through at all (guard.py), how things are drawn (static/).
"""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from understudy.serve.errors import ApiError
from understudy.serve.served import Served

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
"""Gradio needs inline scripts and eval; nothing may come from, or go to, another server."""
CLOSED = ("upload", "file", "stream", "proxy", "component_server", "monitoring", "vibe", "mcp", "deep_link", "dev")
"""Of what Gradio serves beside a page, what this page does not need."""


def mount(app: FastAPI, served: Served) -> None:
    """Have the app show the playground at `/`.

    Raises:
        ValueError: Gradio is not installed.
    """
    try:
        import gradio as gr

        from understudy.serve.playground.page import PAGE, build_page
    except ModuleNotFoundError as error:
        raise ValueError("the playground needs Gradio: pip install 'understudy[ui]'; or serve without it") from error

    @app.api_route("/v1/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    async def nothing(request: Request) -> None:
        others = any(route.matches(request.scope)[0] is Match.PARTIAL for route in app.routes)
        raise HTTPException(405 if others else 404)

    app.add_middleware(PagePolicy)
    system = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]
    theme = gr.themes.Soft(primary_hue="teal", neutral_hue="slate", radius_size="lg", font=system, font_mono=mono).set(
        block_title_background_fill="none", block_title_background_fill_dark="none", block_title_padding="0",
        block_title_text_color="*body_text_color", block_title_text_color_dark="*body_text_color",
        block_title_text_weight="500", block_shadow="none", input_shadow="none",
        input_border_width="1px", input_border_color="*border_color_primary",
        input_border_color_dark="*border_color_primary",
    )  # fmt: skip
    gr.mount_gradio_app(
        app, build_page(served), path="/", footer_links=[], run_history=False, ssr_mode=False, mcp_server=False,
        enable_monitoring=False, pwa=False, show_error=False, favicon_path=str(PAGE / "icon.svg"),
theme=theme, css_paths=[PAGE / "page.css"],
    )  # fmt: skip


class PagePolicy:
    """Sends the policy with everything but the API's answers, and closes what Gradio offers beside the page."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        parts = scope["path"].strip("/").split("/")
        if parts[-1:] and any(part.partition("=")[0].removesuffix(".js") in CLOSED for part in parts[:2] if part):
            await ApiError(404, "there is nothing here").response()(scope, receive, send)
            return

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        await self.app(scope, receive, with_policy)
