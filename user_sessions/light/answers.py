"""How a session says no: every error a handler raises becomes ComfyUI's JSON error object with the right status.

Clients crash when `error` is not an object (`{"error": {"type", "message", "details", "extra_info"}}`).
"""

import errno
import json

from aiohttp import ClientPayloadError, hdrs, web

from proxy.base.errors import BadInput, ClusterError, DiskFull, TooLarge, error_body
from proxy.base.logs import events
from user_sessions.light.secret import Handler

log = events(__name__)

PRIVATE = "private, no-cache"

FULL = {errno.ENOSPC, errno.EDQUOT}
BAD_NAME = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ}


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost middleware; also keeps every answer that says nothing else out of shared caches."""
    response = await _answer(request, handler)
    if not response.prepared:
        response.headers.setdefault(hdrs.CACHE_CONTROL, PRIVATE)
    return response


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _http_error(error)
    except ClusterError as error:
        return web.json_response(error.body(), status=error.status)
    except (ClientPayloadError, ConnectionError):  # the sender vanished in the middle: nobody reads this
        return web.json_response(error_body("bad_request", "The request body ended too early."), status=400)
    except OSError as error:
        refused = of_os_error(error)
        if refused is None:
            return _unexpected(request, error)
        log.warning("request refused by the file system", route=_route(request), reason=error.strerror or "")
        return web.json_response(refused.body(), status=refused.status)
    except Exception as error:
        return _unexpected(request, error)


def of_os_error(error: OSError) -> ClusterError | None:
    """What a file system's refusal means to the caller; None when it is no fault we know."""
    if error.errno in FULL:
        return DiskFull("There is no room left to store this. Delete files or ask the operator for space.")
    if error.errno == errno.EFBIG:
        return TooLarge("The file is larger than a session may write.")
    if error.errno in BAD_NAME:
        return BadInput("This file name cannot be used.", error.strerror or "")
    return None


async def json_body(request: web.Request) -> object:
    """The request's JSON. Raises BadInput for what browsers could not read back, such as NaN."""
    try:
        return json.loads(await request.read(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadInput("The request body is not JSON.", str(error)[:200]) from error


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _unexpected(request: web.Request, error: Exception) -> web.Response:
    log.error("request failed", route=_route(request), exc_info=error)
    message = "The session could not answer this. Its log, in the WebUI's terminal, says why."
    return web.json_response(error_body("internal_error", message), status=500)


def _http_error(error: web.HTTPException) -> web.Response:
    kind = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(error.status, "bad_request")
    response = web.json_response(error_body(kind, f"{error.status}: {error.reason}"), status=error.status)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource else "unknown"
