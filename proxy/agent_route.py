"""Where agents of GPU machines report: one route that takes their heartbeats, for worker tokens alone."""

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from backend_pool.managed.agent_wire import PATH, AgentBeat
from backend_pool.managed.agents import Agents
from backend_pool.worker_beat import problem
from proxy.api_errors import error_response, unexpected
from proxy.base.errors import BadInput, ClusterError, NotAuthenticated
from proxy.base.settings import Settings
from proxy.request_body import read_body
from proxy.worker_route import SCHEME

BODY_LIMIT = 256 * 1024


def agent_route(agents: Agents, settings: Settings) -> Route:
    """POST of a heartbeat; the answer tells what the server knows of each instance."""

    async def beat(request: Request) -> Response:
        try:
            given = request.headers.get("authorization", "")
            if not given.lower().startswith(SCHEME):
                raise NotAuthenticated("An agent sends a worker's token (Authorization: Bearer ...).")
            body = await read_body(request, BODY_LIMIT, settings.upstream_timeout_s)
            peer = request.client.host if request.client else None
            own_port = (request.scope.get("server") or ("", None))[1]
            answer = await agents.beat(given[len(SCHEME) :].strip(), parsed(body), peer, own_port)
            return JSONResponse(answer.model_dump(), headers={"Cache-Control": "no-store"})
        except ClientDisconnect:
            return Response(status_code=400)
        except ClusterError as error:
            return error_response(request.scope, error)
        except Exception as error:
            return unexpected(request.scope, error)

    return Route(PATH, beat, methods=["POST"])


def parsed(body: bytes) -> AgentBeat:
    """A heartbeat's body. Raises BadInput."""
    try:
        return AgentBeat.model_validate_json(body)
    except ValidationError as error:
        raise BadInput("This is not a heartbeat of an agent.", problem(error)) from None
