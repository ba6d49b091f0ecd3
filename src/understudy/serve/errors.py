"""Errors of every status in OpenAI's schema: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from understudy.tokenizer.base import clean

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 504: "timeout_error"}


class ApiError(Exception):
    """An error response; whatever a client may have done wrong raises it. ``code`` None leaves the meaning to the status."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers

    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        param = None if self.param is None else clean(self.param)  # it may be a name that the client made up
        return {"error": {"message": clean(self.message), "type": kind, "param": param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, self.headers)


def install_error_handlers(app: FastAPI) -> None:
    """Install a handler that gives every error of the app the same schema."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return as_api_error(request, error).response()

    for kind in (ApiError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, handle)


def as_api_error(request: Request, error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return validation_error(error)
    if isinstance(error, HTTPException):
        path, message = request.url.path[:200], error.detail
        if error.status_code in (404, 405):
            message = (
                f"{path} does not take {request.method}" if error.status_code == 405 else f"there is nothing at {path}"
            )
        return ApiError(error.status_code, message, headers=error.headers)
    return ApiError(500, "the server failed to handle this request; see its log")


def validation_error(error: RequestValidationError) -> ApiError:
    """The first validation error of a body in one sentence, with OpenAI's status 400."""
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"][1:]]
    parts = [part for n, part in enumerate(parts) if n == 0 or not (part == "str" or "[" in part)]  # members of a union
    place = ".".join(parts)[:200]
    if first["type"] == "json_invalid":
        return ApiError(400, "the body is not JSON", code="invalid_json")
    if first["type"] in ("model_attributes_type", "model_type", "dict_type") and not place:
        return ApiError(400, "the body is not a JSON object sent as application/json", code="invalid_json")
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"the parameter {place} is unknown", place, "unknown_parameter")
    if first["type"] == "missing":
        return ApiError(400, f"{place or 'the body'} is missing", place or None, "missing_parameter")
    message = first["msg"].removeprefix("Value error, ")
    named = place or (subject(message) if first["type"] == "value_error" else None)
    return ApiError(400, f"{place}: {message}" if place else message, named, "invalid_value")


def subject(message: str) -> str:
    """The parameter that an error message begins with."""
    return message.split()[0]
