"""The playground: a page at `/` of the server, made with Gradio, to chat with the runs, judge answers and look inside.

All fonts, scripts and pictures come from the server itself, and a content security policy has the browser refuse others, which
an answer might contain. Not here: the state of a session (session.py), checks of requests (guard.py), drawing (static/).
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
"""Gradio needs inline scripts and eval; no content may come from or go to another server."""
CLOSED = ("upload", "file", "stream", "proxy", "component_server", "monitoring", "vibe", "mcp", "deep_link", "dev")
"""Routes of Gradio that this page does not need."""


def mount(app: FastAPI, served: Served) -> None:
    """Mount the playground at `/`.

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
        # Gradio's own greys have a contrast of 2.6:1 on white; WCAG AA asks for 4.5:1.
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_400",
        input_placeholder_color="*neutral_600", input_placeholder_color_dark="*neutral_400",
    )  # fmt: skip
    gr.mount_gradio_app(
        app, build_page(served), path="/", footer_links=[], run_history=False, ssr_mode=False, mcp_server=False,
        enable_monitoring=False, pwa=False, show_error=False, favicon_path=str(PAGE / "icon.svg"),
        theme=theme, css_paths=[PAGE / "page.css"],
    )  # fmt: skip


class PagePolicy:
    """Middleware that adds the policy to all responses but the API's, and closes routes of Gradio."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        parts = scope["path"].strip("/").split("/")
        if parts[-1:] and any(part.partition("=")[0].removesuffix(".js") in CLOSED for part in parts[:2] if part):
            await ApiError(404, "there is nothing at this path").response()(scope, receive, send)
            return

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        await self.app(scope, receive, with_policy)
