"""Where workers register and agents of GPU machines report, with worker tokens alone: no account, no cookie."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from backend_pool.managed.agent_wire import PATH, AgentBeat
from backend_pool.managed.agents import Agents
from backend_pool.worker_pack.wire import HEARTBEAT_PATH
from backend_pool.workers.beat import Beat, problem
from backend_pool.workers.registrations import Workers
from proxy.api.errors import error_response, unexpected
from proxy.base.errors import BadInput, ClusterError, NotAuthenticated
from proxy.base.settings import Settings
from proxy.request_body import read_body

WORKER_BYTES = 16 * 1024
AGENT_BYTES = 256 * 1024
SCHEME = "bearer "

M = TypeVar("M", bound=BaseModel)
Take = Callable[[str, bytes, str | None, int | None], Awaitable[Any]]
"""(token, body, address of the caller, our port) -> what is answered as JSON."""


def worker_route(workers: Workers, settings: Settings) -> Route:
    """POST of a worker pack's heartbeat; the answer holds the dispatcher's secret for this worker."""

    async def take(token: str, body: bytes, peer: str | None, own_port: int | None) -> Any:
        return await workers.beat(token, _parsed(Beat, body, "a worker pack"), peer, own_port)

    return _route(HEARTBEAT_PATH, take, WORKER_BYTES, settings)


def agent_route(agents: Agents, settings: Settings) -> Route:
    """POST of an agent's heartbeat; the answer tells what the server knows of each instance."""

    async def take(token: str, body: bytes, peer: str | None, own_port: int | None) -> Any:
        return (await agents.beat(token, _parsed(AgentBeat, body, "an agent"), peer, own_port)).model_dump()

    return _route(PATH, take, AGENT_BYTES, settings)


def _route(path: str, take: Take, limit: int, settings: Settings) -> Route:
    async def beat(request: Request) -> Response:
        try:
            given = request.headers.get("authorization", "")
            if not given.lower().startswith(SCHEME):
                raise NotAuthenticated("Send a worker's token (Authorization: Bearer ...).")
            body = await read_body(request, limit, settings.upstream_timeout_s)
            peer = request.client.host if request.client else None
            own_port = (request.scope.get("server") or ("", None))[1]
            answer = await take(given[len(SCHEME) :].strip(), body, peer, own_port)
            return JSONResponse(answer, headers={"Cache-Control": "no-store"})
        except ClientDisconnect:
            return Response(status_code=400)
        except ClusterError as error:
            return error_response(request.scope, error)
        except Exception as error:
            return unexpected(request.scope, error)

    return Route(path, beat, methods=["POST"])


def _parsed(kind: type[M], body: bytes, sender: str) -> M:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise BadInput(f"This is not a heartbeat of {sender}.", problem(error)) from None
