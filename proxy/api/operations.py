"""One operation of the JSON API as a value, and how a request reaches it: who, may they, from where, with what body.

Knows nothing of single operations; `table.py` has the table. Every failure leaves as ComfyUI's error object.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from proxy.access.auth import identity
from proxy.access.cache import Identity
from proxy.access.csrf import require_same_origin
from proxy.api.errors import MethodNotAllowed, error_response, unexpected
from proxy.base.errors import BadInput, ClusterError, Forbidden, NotAuthenticated, NotFound
from proxy.request_body import read_body
from proxy.views.deps import Deps

BODY_LIMIT = 64 * 1024
LARGEST_ID = 2**63 - 1
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Call:
    """A request to one operation."""

    deps: Deps
    who: Identity
    request: Request
    body: BaseModel | None

    def given(self, model: type[M]) -> M:
        """The body, which the operation declared to be of that model."""
        assert isinstance(self.body, model)
        return self.body

    def id(self, name: str) -> int:
        """A number in the path. Raises NotFound for anything else."""
        return _number(self.text(name)) or _missing()

    def text(self, name: str) -> str:
        """A word in the path."""
        return str(self.request.path_params[name])

    def limit(self, default: int, most: int) -> int:
        """`?limit=`, bounded."""
        return min(self.number("limit") or default, most)

    def number(self, name: str) -> int | None:
        """A number in the query. Raises BadInput."""
        text = self.request.query_params.get(name)
        if text is None:
            return None
        value = _number(text)
        if not value:
            raise BadInput(f"`{name}` must be a whole number from 1.")
        return value


@dataclass(frozen=True)
class Operation:
    """A row of the API's table."""

    method: str
    path: str
    summary: str
    run: Callable[[Call], Awaitable[BaseModel | Response]]
    answer: type[BaseModel] | None
    """None: CSV, which `run` answers itself."""
    body: type[BaseModel] | None = None
    status: int = 200
    admin: bool = False
    query: tuple[str, ...] = ()
    """Numbers in the query."""
    words: tuple[str, ...] = ()
    """Texts in the query."""


class Endpoint:
    """All operations of one path, as an ASGI application."""

    def __init__(self, deps: Deps, operations: Sequence[Operation]) -> None:
        self._deps = deps
        self._by_method = {operation.method: operation for operation in operations}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._answer(scope, receive)
        except ClientDisconnect:
            return
        except ClusterError as error:
            response = error_response(scope, error)
        except Exception as error:
            response = unexpected(scope, error)
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        require_same_origin(scope, self._deps.settings.allowed_origins)
        scope = await self._deps.access.authenticator.authenticate(scope)
        who = identity(scope)
        if who is None:
            raise NotAuthenticated("Sign in, or send an API token (Authorization: Bearer ...).")
        operation = self._by_method.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if operation is None:
            raise MethodNotAllowed(f"This address knows {', '.join(self._by_method)} only.")
        if operation.admin and not who.is_admin:
            raise Forbidden("This is for administrators.")
        request = Request(scope, receive)
        total_s = self._deps.settings.transfer_timeout_s
        body = _parsed(operation.body, await read_body(request, BODY_LIMIT, total_s)) if operation.body else None
        answer = await operation.run(Call(self._deps, who, request, body))
        return answer if isinstance(answer, Response) else _json(answer, operation.status, request)


class Unknown:
    """Every other address below the API's: 404 as JSON, never a page."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = error_response(scope, NotFound("The API has no such address. See /cluster/api/v1/openapi.json."))
        await response(scope, receive, send)


def _parsed(model: type[BaseModel], body: bytes) -> BaseModel:
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        # Pydantic's own text would repeat the input, and with it a password.
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors())
        raise BadInput("The request's body is not what this operation takes.", problems[:500]) from None


def _json(answer: BaseModel, status: int, request: Request) -> Response:
    content = answer.model_dump_json().encode()
    headers = {"Cache-Control": "private, no-cache", "Vary": "Cookie, Authorization"}
    if request.method in {"GET", "HEAD"}:
        headers["ETag"] = etag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
    else:
        headers["Cache-Control"] = "no-store"
    return Response(content, status, headers, "application/json")


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= LARGEST_ID else 0


def _missing() -> int:
    raise NotFound("There is no such thing.")
