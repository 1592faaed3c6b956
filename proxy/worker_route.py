"""Where workers register: one route that takes heartbeats, for worker tokens alone. No account, no cookie."""

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from backend_pool.worker_beat import Beat, problem
from backend_pool.worker_pack.wire import HEARTBEAT_PATH
from backend_pool.workers import Workers
from proxy.api_errors import error_response, unexpected
from proxy.base.errors import BadInput, ClusterError, NotAuthenticated
from proxy.base.settings import Settings
from proxy.request_body import read_body

BODY_LIMIT = 16 * 1024
SCHEME = "bearer "


def worker_route(workers: Workers, settings: Settings) -> Route:
    """POST of a heartbeat; the answer holds the dispatcher's secret for this worker."""

    async def beat(request: Request) -> Response:
        try:
            given = request.headers.get("authorization", "")
            if not given.lower().startswith(SCHEME):
                raise NotAuthenticated("A worker sends its token (Authorization: Bearer ...).")
            body = await read_body(request, BODY_LIMIT, settings.upstream_timeout_s)
            peer = request.client.host if request.client else None
            own_port = (request.scope.get("server") or ("", None))[1]
            answer = await workers.beat(given[len(SCHEME) :].strip(), parsed(body), peer, own_port)
            return JSONResponse(answer, headers={"Cache-Control": "no-store"})
        except ClientDisconnect:
            return Response(status_code=400)
        except ClusterError as error:
            return error_response(request.scope, error)
        except Exception as error:
            return unexpected(request.scope, error)

    return Route(HEARTBEAT_PATH, beat, methods=["POST"])


def parsed(body: bytes) -> Beat:
    """A heartbeat's body. Raises BadInput."""
    try:
        return Beat.model_validate_json(body)
    except ValidationError as error:
        raise BadInput("This is not a heartbeat of a worker pack.", problem(error)) from None
