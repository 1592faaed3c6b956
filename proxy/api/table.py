"""The JSON API under /cluster/api/v1: one table of operations, from which routes and the OpenAPI document are made."""

from itertools import groupby

from starlette.routing import Route

from proxy.api import admin as api_admin
from proxy.api import job_story as api_job_story
from proxy.api import me as api_me
from proxy.api import offers as api_offers
from proxy.api import workers as api_workers
from proxy.api.books import BOOKS
from proxy.api.job_story import JobStory
from proxy.api.offers import ModelFiles
from proxy.api.openapi import Document
from proxy.api.operations import Endpoint, Operation, Unknown
from proxy.api.pool import POOL
from proxy.bodies.models import (
    Done,
    JobInfo,
    JobList,
    LoginList,
    Me,
    NewToken,
    NewUser,
    PasswordChange,
    PasswordMade,
    PasswordReset,
    PictureList,
    RefreshInfo,
    SessionInfo,
    SessionList,
    TokenList,
    TokenMade,
    UserChange,
    UserInfo,
    UserList,
    UserMade,
)
from proxy.views.deps import Deps

BASE = "/cluster/api/v1"

OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/me", "Who am I", api_me.me, Me),
    Operation("POST", "/me/password", "Change my password", api_me.change_password, Done, PasswordChange),
    Operation("GET", "/session", "My session", api_me.session, SessionInfo),
    Operation("POST", "/session/start", "Start my session", api_me.start_session, SessionInfo),
    Operation("POST", "/session/restart", "Restart my session", api_me.restart_session, SessionInfo),
    Operation("POST", "/session/stop", "Stop my session", api_me.stop_session, SessionInfo),
    Operation("GET", "/jobs", "My active and latest jobs", api_me.jobs, JobList, query=("limit",)),
    Operation("GET", "/jobs/{id}", "One of my jobs, by its prompt id too", api_me.job, JobInfo),
    Operation("POST", "/jobs/{id}/cancel", "Cancel my job", api_me.cancel_job, Done),
    Operation("GET", "/jobs/{id}/log", "The log of my job", api_workers.job_log, api_workers.JobLog),
    Operation("GET", "/pictures", "My finished files", api_me.pictures, PictureList, query=("limit", "before")),
    Operation("GET", "/models", "Models and who has them", api_offers.models, ModelFiles, query=("folder",)),
    Operation("GET", "/tokens", "My API tokens", api_me.tokens, TokenList),
    Operation("POST", "/tokens", "Make an API token", api_me.create_token, TokenMade, NewToken, status=201),
    Operation("DELETE", "/tokens/{id}", "Revoke my token", api_me.revoke_token, Done),
    Operation("GET", "/logins", "Browsers I am signed in with", api_me.logins, LoginList),
    Operation("DELETE", "/logins/{id}", "Sign a browser out", api_me.revoke_login, Done),
    *BOOKS,
    Operation("GET", "/admin/users", "All users", api_admin.users, UserList, admin=True),
    Operation(
        "POST", "/admin/users", "Create a user", api_admin.create_user, UserMade, NewUser, status=201, admin=True
    ),
    Operation("PATCH", "/admin/users/{id}", "Change a user", api_admin.change_user, UserInfo, UserChange, admin=True),
    Operation(
        "POST",
        "/admin/users/{id}/password",
        "Reset a password",
        api_admin.reset_password,
        PasswordMade,
        PasswordReset,
        admin=True,
    ),
    Operation("GET", "/admin/sessions", "All sessions", api_admin.sessions, SessionList, admin=True),
    Operation(
        "POST",
        "/admin/sessions/refresh",
        "Start sessions afresh from changed nodes and models",
        api_admin.refresh_sessions,
        RefreshInfo,
        admin=True,
    ),
    Operation(
        "POST",
        "/admin/users/{id}/session/restart",
        "Restart a user's session",
        api_admin.restart_session,
        SessionInfo,
        admin=True,
    ),
    Operation(
        "POST",
        "/admin/users/{id}/session/stop",
        "Stop a user's session",
        api_admin.stop_session,
        SessionInfo,
        admin=True,
    ),
    *POOL,
    Operation("GET", "/admin/jobs", "The whole queue", api_admin.jobs, JobList, admin=True, query=("limit",)),
    Operation("GET", "/admin/jobs/{id}", "The whole story of a job", api_job_story.job, JobStory, admin=True),
    Operation("POST", "/admin/jobs/{id}/cancel", "Cancel any job", api_admin.cancel_job, Done, admin=True),
)


def routes(deps: Deps) -> list[Route]:
    """Routes of the API; the last one answers every other address below it."""
    by_path = sorted(OPERATIONS, key=lambda operation: operation.path)
    return [
        Route(f"{BASE}/openapi.json", Document(deps, OPERATIONS, BASE)),
        *(Route(BASE + path, Endpoint(deps, list(group))) for path, group in groupby(by_path, lambda op: op.path)),
        Route("/cluster/api/{rest:path}", Unknown()),
    ]
