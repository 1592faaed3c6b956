"""What the control pages and the JSON API work with, passed in at composition."""

from dataclasses import dataclass

from backend_pool.backends.pool import Pool
from backend_pool.backends.registry import Registry
from backend_pool.backends.restarts import Restarts
from backend_pool.books.keeper import BooksKeeper
from proxy.access.access import Access
from proxy.base.settings import Settings
from proxy.job_control import Jobs
from proxy.views.jobs import JobViews
from user_sessions.controller import Sessions


@dataclass(frozen=True)
class Deps:
    """Parts of one server."""

    settings: Settings
    access: Access
    sessions: Sessions
    jobs: Jobs
    views: JobViews
    registry: Registry
    pool: Pool
    restarts: Restarts
    books: BooksKeeper
