"""The playground: a page at `/` of the server, made with Gradio, to chat with the runs, judge answers and look inside.

The conversation, the pair of answers and the look inside are drawn from JSON by static/*.js, which insert the texts of people
and models as text and never as HTML. All fonts, scripts and pictures come from the server itself, and a content security
policy has the browser refuse others. Not here: the state of a session (session.py), checks of requests (guard.py).
"""

from __future__ import annotations

import html
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from understudy.serve.errors import ApiError
from understudy.serve.guard import credentials
from understudy.serve.playground import session
from understudy.serve.playground.session import (
    AnswerPair,
    GenerationOptions,
    PlaygroundConversation,
    RecentConversations,
)
from understudy.serve.served import Served
from understudy.tokenizer.chat import speaks_chat

PAGE = Path(__file__).parent / "static"
GREETING = "Write a message, and {name} will answer."
TRAINING = (
    "You can judge each answer, and each judgement can train the next model. A correction teaches most: it says what the answer "
    "should have been."
)
NO_CHAT = "None of these models was finetuned to answer.\nFinetune one with `understudy sft`, or use /v1/completions to continue a text."
DUEL_GREETING = "Ask a question, and get two answers without the names of their models.\nChoose the better one; your choice can train the next model."
FORGOTTEN = "The conversation that you had here is no longer on the server."
LOOK_GREETING = "Talk first. Then this page shows the probability of each token of the last answer,\nthe alternatives, and the attention weights."

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
"""Gradio needs inline scripts and eval; no content may come from or go to another server."""
CLOSED = ("upload", "file", "stream", "proxy", "component_server", "monitoring", "vibe", "mcp", "deep_link", "dev")
"""Routes of Gradio that this page does not need."""


def mount(app: FastAPI, served: Served) -> None:
    """Mount the playground at `/`."""

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
        button_secondary_background_fill_hover_dark="*neutral_700",
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


def build_page(served: Served) -> gr.Blocks:
    """The page and its event handlers."""
    names = [name for name, run in served.runs.items() if speaks_chat(run.tokenizer)] or list(served.runs)
    longest = max(run.context_length for run in served.runs.values())
    several = len(served.runs) > 1
    recent = RecentConversations()
    with gr.Blocks(title="Understudy", analytics_enabled=False, fill_width=True) as page:
        conversation, duel = gr.State(PlaygroundConversation()), gr.State(AnswerPair())
        with gr.Row(elem_id="top"):
            gr.HTML(_brand(served), elem_id="brand", js_on_load=None)
            model = gr.Dropdown(
                names, value=names[0], show_label=False, container=False, elem_id="model", visible=several,
                label="Model", interactive=True,
            )  # fmt: skip
            fresh = gr.Button("New", size="sm", elem_id="fresh", variant="secondary")
        with gr.Tabs() as tabs:
            with gr.Tab("Talk", id="talk", elem_id="talk-tab"):
                talk = _drawn("talk", PlaygroundConversation().view(several) | _welcome(served, names[0]))
                box = gr.Textbox(
                    show_label=False, label="Message", placeholder="Say something", lines=1, max_lines=8,
                    submit_btn=True, autofocus=True, elem_id="say",
                )  # fmt: skip
            with gr.Tab("Compare", id="duel", elem_id="duel-tab"):
                fight = _drawn("duel", AnswerPair().view(DUEL_GREETING))
                other = gr.Dropdown(
                    [(f"against {name}", name) for name in names], value=names[-1], visible=several, interactive=True,
                    show_label=False, label="The other model", container=False, elem_id="other",
                )  # fmt: skip
                ask = gr.Textbox(
                    show_label=False, label="Question", placeholder="Ask both", lines=1, max_lines=8, submit_btn=True,
                    elem_id="ask",
                )  # fmt: skip
            with gr.Tab("Look inside", id="look", elem_id="look-tab") as look_tab:
                look = _drawn("look", {"greeting": LOOK_GREETING})
            with gr.Tab("Settings", id="settings", elem_id="settings-tab"):
                name, options = _settings(model, longest)
        # Several events at a time: to the browser an event ends some time after its last update. Only handlers that yield
        # use the queue: an event that joins while the browser closes the queue's stream might never be received.
        pieces: Any = {
            "show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None,
            "trigger_mode": "multiple",
        }  # fmt: skip
        whole: Any = pieces | {"queue": False}

        def shown(conversation: PlaygroundConversation, model: str) -> Any:
            if conversation.closed:
                return gr.skip()
            return conversation.view(several) | ({} if conversation.turns else _welcome(served, model))

        async def talked(
            text: str, place: int | None, conversation: PlaygroundConversation, options: GenerationOptions,
            typed: str | None = None,
        ) -> Frames:  # fmt: skip
            """Updates of the conversation and the box, which is first set to ``typed``, while an answer is generated."""
            restored = None if typed is None else text
            try:
                async for _ in conversation.say(served, text, options, place):
                    recent.keep(conversation)
                    yield shown(conversation, options.model), _box(typed, True)
                    typed = None  # keep text typed meanwhile
            except ApiError as error:
                conversation.problem, typed = error.message, restored
            box = _box(typed, False) if conversation.pending is None else gr.skip()
            yield shown(conversation, options.model), box

        async def say(text: str, conversation: PlaygroundConversation, *options: Any) -> Frames:
            async for frame in talked(text, None, conversation, GenerationOptions(*options), typed=""):
                yield frame

        async def example(event: gr.EventData, conversation: PlaygroundConversation, *options: Any) -> Frames:
            """Ask a question of the empty chat."""
            text = str(_data(event).get("text", ""))
            async for frame in talked(text, None, conversation, GenerationOptions(*options)):
                yield frame

        async def again(event: gr.EventData, conversation: PlaygroundConversation, *options: Any) -> Frames:
            """Answer a message again, after an edit with its new text."""
            data = _data(event)
            turn = _turn(conversation, data)
            text = str(data.get("text", conversation.turns[turn][0])) if turn is not None else ""
            if turn is not None:
                async for frame in talked(text, turn, conversation, GenerationOptions(*options)):
                    yield frame

        async def judge(event: gr.EventData, conversation: PlaygroundConversation, name: str, model: str) -> Any:
            data, conversation.problem = _data(event), ""
            fields = {field: data[field] for field in ("value", "comment", "correction") if field in data}
            try:
                answer = conversation.answer_at(data.get("place"))
                await session.judge(served, answer, name, str(data.get("kind")), **fields)
            except ApiError as error:
                conversation.problem = error.message
            return shown(conversation, model)

        async def inside(conversation: PlaygroundConversation, place: Any = None) -> dict[str, Any]:
            try:
                answer = conversation.answer_at(2 * len(conversation.turns) - 1 if place is None else place)
            except ApiError:
                return {"greeting": LOOK_GREETING}
            return await session.look_view(answer) if answer.tokens else {"greeting": LOOK_GREETING}

        async def inside_this(event: gr.EventData, conversation: PlaygroundConversation) -> tuple[Any, Any]:
            return await inside(conversation, _data(event).get("place")), gr.Tabs(selected="look")

        async def compare(text: str, duel: AnswerPair, other: str, *options: Any) -> Frames:
            pair = [
                GenerationOptions(*options),
                replace(GenerationOptions(*options), model=other if several else options[0]),
            ]
            typed: str | None = ""
            try:
                async for _ in duel.ask(served, text, pair):
                    yield duel.view(DUEL_GREETING), _box(typed, True)
                    typed = None
            except ApiError as error:
                duel.problem, typed = error.message, text
            yield duel.view(DUEL_GREETING), gr.skip() if duel.pending else _box(typed, False)

        async def pick(event: gr.EventData, duel: AnswerPair, name: str) -> dict[str, Any]:
            await duel.pick(served, int(_data(event).get("value", 0)), name)
            return duel.view(DUEL_GREETING)

        def begin(conversation: PlaygroundConversation, model: str) -> tuple[PlaygroundConversation, Any, Any]:
            new = conversation.next()
            recent.keep(new)
            return new, shown(new, model), gr.Tabs(selected="talk")

        async def resume(conversation: PlaygroundConversation, model: str) -> tuple[PlaygroundConversation, Any]:
            """Show a conversation that the visitor left; an answer that is still being generated is stopped."""
            await conversation.stopped()
            conversation.closed = False
            return conversation, shown(conversation, model)

        async def back(conversation: PlaygroundConversation, model: str) -> Any:
            """Undo New."""
            earlier = conversation.earlier
            return (gr.skip(), gr.skip()) if earlier is None or conversation.turns else await resume(earlier, model)

        async def restore(event: gr.EventData, conversation: PlaygroundConversation, model: str) -> Any:
            """Show the conversation that this tab had before it was loaded again."""
            if conversation.turns:
                return gr.skip(), gr.skip()
            if (kept := recent.find(_data(event).get("id"))) is not None:
                return await resume(kept, model)
            conversation.problem = FORGOTTEN
            return gr.skip(), shown(conversation, model)

        box.submit(say, [box, conversation, *options], [talk, box], **pieces)
        box.stop(PlaygroundConversation.stop, [conversation], None, **whole)
        talk.again(again, [conversation, *options], [talk, box], **pieces)
        talk.revise(again, [conversation, *options], [talk, box], **pieces)
        talk.example(example, [conversation, *options], [talk, box], **pieces)
        talk.judge(judge, [conversation, name, model], [talk], **whole)
        talk.back(back, [conversation, model], [conversation, talk], **whole)
        talk.restore(restore, [conversation, model], [conversation, talk], **whole)
        model.change(shown, [conversation, model], [talk], **whole)  # the questions of an empty chat are the model's
        talk.look(inside_this, [conversation], [look, tabs], **whole)
        look_tab.select(inside, [conversation], [look], **whole)
        ask.submit(compare, [ask, duel, other, *options], [fight, ask], **pieces)
        ask.stop(AnswerPair.stop, [duel], None, **whole)
        fight.pick(pick, [duel, name], [fight], **whole | {"trigger_mode": "once"})  # a double click counts once
        fresh.click(begin, [conversation, model], [conversation, talk, tabs], **whole)
        page.load(_visitor, None, [name], **whole)
    return page


Frames = AsyncGenerator[tuple[Any, Any], None]


def _drawn(kind: str, value: dict[str, Any]) -> gr.HTML:
    """A part of the page that static/KIND.js draws from JSON. The template contains nothing of the value."""
    return gr.HTML(
        value, html_template=f'<div class="{kind}"></div><div class="live" role="status"></div>',
        js_on_load="".join((PAGE / f"{name}.js").read_text("utf-8") for name in ("common", kind)),
        apply_default_css=False, elem_id=f"{kind}-view",
    )  # fmt: skip


def _welcome(served: Served, name: str) -> dict[str, Any]:
    """The texts of a chat with a model that has no messages yet."""
    run = served.runs[name]
    if not speaks_chat(run.tokenizer):
        return {"greeting": NO_CHAT}
    greeting, note = GREETING.format(name=name), TRAINING if served.store is not None else ""
    return {"greeting": greeting, "examples": run.suggestions, "note": note}


def _settings(model: gr.Dropdown, longest: int) -> tuple[gr.Textbox, list[Any]]:
    """The visitor's name, and the fields of :class:`GenerationOptions` in their order."""
    name = gr.Textbox(label="Your name", info="Stored with your judgements; optional.", max_length=100)
    system = gr.Textbox(label="System message", info="Instructions on how to answer.", lines=2, max_lines=6)
    with gr.Row():
        temperature = gr.Slider(0, 2, 0.7, step=0.05, label="Temperature", info="0 always selects the likeliest token.")
        top_p = gr.Slider(
            0.05, 1, 1, step=0.05, label="Top-p", info="Keeps the likeliest tokens with this probability; 1 is off."
        )
    with gr.Row():
        top_k = gr.Slider(0, 200, 0, step=1, label="Top-k", info="Keeps this many tokens; 0 is off.")
        max_tokens = gr.Slider(1, longest, min(200, longest), step=1, label="Maximum tokens of an answer")
    seed = gr.Textbox(
        label="Seed", info="A whole number. The same seed and messages give the same answers.", max_length=19
    )
    return name, [model, system, temperature, top_p, top_k, max_tokens, seed]


def _brand(served: Served) -> str:
    runs = ", ".join(f"{run.name} (step {run.step:,})" for run in served.runs.values())
    return f"<h1>Understudy</h1><p>{html.escape(runs)}</p>"


def _box(text: str | None, writing: bool) -> Any:
    """The box, during an answer with a stop button; None keeps its text."""
    buttons: Any = {"submit_btn": not writing, "stop_btn": writing}
    return gr.Textbox(**buttons) if text is None else gr.Textbox(text, **buttons)


def _data(event: gr.EventData) -> dict[str, Any]:
    """The data of a page's event, which a visitor may forge."""
    data = event._data
    return data if isinstance(data, dict) else {}


def _turn(conversation: PlaygroundConversation, data: dict[str, Any]) -> int | None:
    place = data.get("place")
    return place // 2 if isinstance(place, int) and 0 <= place // 2 < len(conversation.turns) else None


def _visitor(request: gr.Request) -> Any:
    """The user name that the browser sent with the key (guard.py); without one the box stays as it is."""
    user, _ = credentials(request.headers.get("authorization", ""))
    return user.decode("utf-8", "replace")[:100] if user else gr.skip()
