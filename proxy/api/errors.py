"""Errors on their way out as JSON: ComfyUI's error object, a request id, Retry-After where it helps."""

import json
import secrets
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Scope

from backend_pool.books.quotas import QuotaUsed
from proxy.access.credentials import extract
from proxy.access.throttle import Throttled
from proxy.base.errors import BadInput, CallerError, ClusterError, NotAuthenticated, error_body
from proxy.base.logs import events
from proxy.base.seldom import Seldom

log = events(__name__)

LOGGED_EVERY_S = 60.0
_seldom = Seldom(LOGGED_EVERY_S)
AGAIN_S = 5
"""When to ask again for what is not available now."""

REQUEST_ID = "comfy_cluster.request_id"
"""Key of a scope that has been given an id already."""


class MethodNotAllowed(CallerError):
    """The address exists, but not with this method."""

    status = 405
    kind = "method_not_allowed"


class ErrorJson(JSONResponse):
    """An error may quote what was sent: half a surrogate pair is allowed in JSON and has no bytes of its own."""

    def render(self, content: Any) -> bytes:
        """What cannot be encoded is a question mark."""
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def request_id(scope: Scope) -> str:
    """The id of this request, in its error and in the log."""
    if REQUEST_ID not in scope:
        scope[REQUEST_ID] = secrets.token_hex(6)
    return str(scope[REQUEST_ID])


def error_headers(error: ClusterError, scope: Scope) -> dict[str, str]:
    """Headers that go with an error, in JSON or as a page."""
    headers = {"X-Request-Id": request_id(scope), "Cache-Control": "no-store"}
    if isinstance(error, Throttled | QuotaUsed):
        headers["Retry-After"] = str(error.retry_after_s)
    elif error.status == 503:
        headers["Retry-After"] = str(AGAIN_S)
    if error.status == 408:
        headers["Connection"] = "close"  # the rest of that body may never come
    if isinstance(error, NotAuthenticated):
        # Bearer, not Basic: browsers would open their own password window over the WebUI.
        headers["WWW-Authenticate"] = 'Bearer realm="ComfyUI cluster"'
    return headers


def error_response(scope: Scope, error: ClusterError) -> JSONResponse:
    """The answer to a request that failed with `error`."""
    log_failure(scope, error)
    body = error.body()
    body["error"]["extra_info"]["request_id"] = request_id(scope)
    return ErrorJson(body, error.status, error_headers(error, scope))


def log_failure(scope: Scope, error: ClusterError) -> None:
    """Note an error that is not the caller's, once per kind and minute: a full disk meets every request."""
    if error.status < 500:
        return
    left_out = _seldom.once(error.kind)
    if left_out is None:
        return
    write = log.warning if error.status == 503 else log.error
    write(
        "request could not be served",
        kind=error.kind,
        reason=error.message,
        details=error.details,
        path=_path(scope),
        request=request_id(scope),
        like_it_before=left_out,
    )


def unexpected(scope: Scope, error: Exception) -> JSONResponse:
    """The answer to a request that met a bug; the log has the rest under the same id."""
    log_unexpected(scope, error)
    body = error_body("internal_error", OOPS, "", request_id=request_id(scope))
    return JSONResponse(body, 500, {"X-Request-Id": request_id(scope), "Cache-Control": "no-store"})


def log_unexpected(scope: Scope, error: Exception) -> None:
    """Note a bug with its traceback."""
    log.error("request failed", request=request_id(scope), path=_path(scope), exc_info=error)


def _path(scope: Scope) -> str:
    """Without a token: where nobody could be asked whose it is, the path still has it."""
    try:
        return str(extract(scope).scope["path"])
    except BadInput:
        return "(with an escaped token)"


OOPS = "Something went wrong on the server. Tell your administrator the request id."
