"""Unsafe requests to the control pages and their API must come from our own pages.

Judged by the headers browsers add themselves (Origin, Sec-Fetch-Site), so forms carry no hidden tokens, and the login
form is covered like every other (nobody can be signed in as somebody else from a foreign page).
"""

from collections.abc import Collection

from starlette.types import Scope

from proxy.access.origin import SAFE_METHODS, same_origin
from proxy.base.errors import Forbidden


def require_same_origin(scope: Scope, allowed: Collection[str]) -> None:
    """Raise Forbidden for an unsafe request that another site's page sent."""
    if scope["method"] not in SAFE_METHODS and not same_origin(scope, allowed):
        raise Forbidden("This request came from another site's page. Open the page here and try again.")
