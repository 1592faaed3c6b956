"""The one exception tree, split by what the caller can do about it.

ClusterError
├── CallerError              the request is at fault; `status` is its HTTP status, nothing was changed
│   ├── BadInput (400)       ├── NotAuthenticated (401)   ├── Forbidden (403)   ├── NotFound (404)
│   └── Conflict (409)       ├── TooLarge (413)           └── TooManyRequests (429)
├── Unavailable (503)        nothing is wrong with the request: try again later
│   ├── DatabaseUnavailable  ├── DiskFull (507)           └── Warming
└── ConfigError              the operator must change something; the command exits with code 2

Messages are shown to people: they say what happened and what to do next. Libraries' own errors are mapped to these at
the boundary where they arise.
"""

from typing import Any, ClassVar


class ClusterError(Exception):
    """Root of everything this project raises on purpose."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "internal_error"

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def body(self) -> dict[str, Any]:
        """The JSON error shape, ComfyUI's own: clients crash when `error` is not an object (client demands E1)."""
        return error_body(self.kind, self.message, self.details)


def error_body(kind: str, message: str, details: str = "", **extra_info: Any) -> dict[str, Any]:
    """`{"error": {"type", "message", "details", "extra_info"}}` as in ComfyUI's server.py."""
    return {"error": {"type": kind, "message": message, "details": details, "extra_info": extra_info}}


class CallerError(ClusterError):
    """The caller can mend it."""

    status = 400
    kind = "bad_request"


class BadInput(CallerError):
    """Malformed or meaningless input."""


class NotAuthenticated(CallerError):
    """No valid login or token came with the request."""

    status = 401
    kind = "not_authenticated"


class Forbidden(CallerError):
    """Known, but not allowed."""

    status = 403
    kind = "forbidden"


class NotFound(CallerError):
    """No such thing, or not the caller's."""

    status = 404
    kind = "not_found"


class Conflict(CallerError):
    """The thing exists already or is in a state that does not allow this."""

    status = 409
    kind = "conflict"


class TooLarge(CallerError):
    """The body is over its limit."""

    status = 413
    kind = "too_large"


class TooManyRequests(CallerError):
    """Slow down."""

    status = 429
    kind = "too_many_requests"


class Unavailable(ClusterError):
    """Try again later."""

    status = 503
    kind = "unavailable"


class DatabaseUnavailable(Unavailable):
    """The database is locked, gone or refuses. `details` are the driver's words, which name hosts: for logs alone."""

    kind = "database_unavailable"

    def body(self) -> dict[str, Any]:
        """Without the details."""
        return error_body(self.kind, self.message)


class Warming(Unavailable):
    """What is asked for is being prepared, which may take minutes: nothing failed, ask again."""

    kind = "warming"


class DiskFull(Unavailable):
    """No room to store what was sent or made."""

    status = 507
    kind = "disk_full"


class ConfigError(ClusterError):
    """The operator must change something before this can start."""

    kind = "config_error"
