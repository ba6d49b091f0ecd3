"""The HTTP routes: OpenAI's for models and completions, feedback, health and metrics.

Not here: starting and stopping (server.py), checks of every request (guard.py), the playground (playground/).
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from understudy import __version__
from understudy.feedback.records import Judgement
from understudy.serve.errors import install_error_handlers
from understudy.serve.guard import Guard
from understudy.serve.metrics import ServerMetrics
from understudy.serve.openai.completions import CHAT_PREFIX, ChatCompletion, TextCompletion
from understudy.serve.openai.schemas import ChatRequest, CompletionRequest, FeedbackRequest
from understudy.serve.served import Served, ServedRun


def build_app(served: Served) -> FastAPI:
    """The app that serves these runs. The caller closes the engines and the store.

    FastAPI's documentation pages load scripts from the internet, so there is only the schema at /openapi.json.
    """
    app = FastAPI(title="Understudy", version=__version__, docs_url=None, redoc_url=None)
    metrics = ServerMetrics(served)
    app.add_middleware(Guard, served=served, metrics=metrics)
    install_error_handlers(app)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(run) for run in served.runs.values()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        return _model(served.find(name))

    @app.get("/health")
    async def health() -> JSONResponse:
        healthy = all(run.engine.is_open for run in served.runs.values())
        return JSONResponse({"status": "ok" if healthy else "failed"}, 200 if healthy else 503)

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    @app.post("/v1/chat/completions")
    async def chat_completions(connection: Request, request: ChatRequest) -> Response:
        return await ChatCompletion(served, request, metrics.first_token).respond(connection)

    @app.post("/v1/completions")
    async def completions(connection: Request, request: CompletionRequest) -> Response:
        return await TextCompletion(served, request, metrics.first_token).respond(connection)

    @app.post("/v1/feedback", status_code=201)
    async def feedback(request: FeedbackRequest) -> dict[str, str]:
        fields = request.model_dump() | {"annotator": request.annotator or ""}
        for name in ("answer_id", "other_answer_id"):
            fields[name] = fields[name] and fields[name].removeprefix(CHAT_PREFIX)
        return {"id": await served.save(Judgement(**fields)), "status": "saved"}

    return app


def _model(run: ServedRun) -> dict[str, Any]:
    return {
        "id": run.name, "object": "model", "created": run.created, "owned_by": "understudy", "step": run.step,
        "weights_sha256": run.weights_sha256, "context_length": run.context_length,
    }  # fmt: skip
