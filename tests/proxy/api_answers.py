"""Errors of the JSON API, checked for their shape."""

from typing import Any

import httpx


def error(answer: httpx.Response) -> dict[str, Any]:
    """The error object, checked for ComfyUI's shape."""
    body = answer.json()
    assert set(body) == {"error"} and set(body["error"]) == {"type", "message", "details", "extra_info"}
    assert body["error"]["extra_info"]["request_id"] == answer.headers["x-request-id"]
    found: dict[str, Any] = body["error"]
    return found
