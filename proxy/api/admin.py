"""What administrators do: accounts, everybody's sessions, the whole queue."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict

from pydantic import BaseModel

from backend_pool.forecasts.outlook import told_of
from proxy.access.accounts import User
from proxy.access.passwords import generate
from proxy.api.me import job_infos, session_info, session_of
from proxy.api.operations import Call
from proxy.base.errors import Conflict
from proxy.base.log_file import tail
from proxy.base.logs import events
from proxy.bodies.models import (
    Done,
    FailedPackLog,
    JobInfo,
    JobList,
    NewUser,
    PasswordMade,
    PasswordReset,
    RefreshInfo,
    SessionList,
    UserChange,
    UserInfo,
    UserList,
    UserMade,
)
from proxy.views.deps import Deps
from proxy.views.jobs import JobView
from user_sessions.directories import host_log

log = events(__name__)


async def users(call: Call) -> BaseModel:
    """All accounts by name."""
    return UserList(users=[user_info(user) for user in await call.deps.access.users.listing()])


async def create_user(call: Call) -> BaseModel:
    """A new account."""
    new = call.given(NewUser)
    password = new.password or generate()
    user = await call.deps.access.users.add(new.name, password, is_admin=new.is_admin)
    log.info("user created", user=user.name, by=call.who.name)
    return UserMade(**user_info(user).model_dump(), password=None if new.password else password)


async def change_user(call: Call) -> BaseModel:
    """Make or unmake an administrator, disable or enable; a disabled user's session and jobs end."""
    change, user_id = call.given(UserChange), call.id("id")
    if user_id == call.who.user_id and (change.disabled or change.is_admin is False):
        raise Conflict("You cannot take your own access away. Let another administrator do it.")
    user = await call.deps.access.users.change(user_id, is_admin=change.is_admin, disabled=change.disabled)
    log.info("user changed", user=user.name, by=call.who.name, disabled=user.disabled, is_admin=user.is_admin)
    if change.disabled:
        await call.deps.jobs.cancel(user_id, None)
        await call.deps.sessions.stop(user_id)
    return user_info(user)


async def reset_password(call: Call) -> BaseModel:
    """A new password; the user is signed out everywhere."""
    password = await call.deps.access.reset_password(call.id("id"), call.given(PasswordReset).password)
    return PasswordMade(password=password)


async def sessions(call: Call) -> BaseModel:
    """All sessions, and what they start from."""
    return await session_list(call.deps)


async def refresh_sessions(call: Call) -> BaseModel:
    """Prepare what sessions start from afresh, after a change of shared custom nodes or models."""
    await call.deps.sessions.refresh(call.who.name)
    log.info("refresh asked for", by=call.who.name)
    return await refresh_info(call.deps)


async def restart_session(call: Call) -> BaseModel:
    """End a user's session and start it anew."""
    user = await call.deps.access.users.get(call.id("id"))
    if user.disabled:
        raise Conflict(f"{user.name} is disabled. Enable the account first.")
    await call.deps.sessions.restart(user.key, user.slug)
    log.info("session restarted by an administrator", user=user.name, by=call.who.name)
    return await session_of(call.deps, user.key)


async def stop_session(call: Call) -> BaseModel:
    """End a user's session."""
    user = await call.deps.access.users.get(call.id("id"))
    await call.deps.sessions.stop(user.key)
    log.info("session stopped by an administrator", user=user.name, by=call.who.name)
    return await session_of(call.deps, user.key)


async def jobs(call: Call) -> BaseModel:
    """Everybody's active jobs: running ones, then waiting ones in their expected order."""
    found, active = await call.deps.views.queue(call.limit(100, 500))
    return JobList(jobs=jobs_of_all(call.deps, found), active=active)


def jobs_of_all(deps: Deps, views: Sequence[JobView]) -> list[JobInfo]:
    """Users' jobs in words for an administrator."""
    infos = job_infos(deps, views)
    return [info.model_copy(update={"reason": info.reason and told_of(info.reason)}) for info in infos]


async def cancel_job(call: Call) -> BaseModel:
    """Cancel anybody's job."""
    job = await call.deps.views.one(call.id("id"), None)
    await call.deps.jobs.cancel(job.user_id, [job.prompt_id])
    log.info("job cancelled by an administrator", job=job.prompt_id, by=call.who.name)
    return Done()


async def session_list(deps: Deps) -> SessionList:
    """All sessions with their memory, the latest refresh, and what could not be loaded."""
    return SessionList(
        sessions=[session_info(view) for view in await deps.sessions.listing(memory=True)],
        refresh=await refresh_info(deps),
        failed_packs=[FailedPackLog(**asdict(node)) for node in deps.sessions.report.failed_nodes],
        broken=deps.sessions.report.broken or None,
    )


async def refresh_info(deps: Deps) -> RefreshInfo:
    """As the API shows it; with what the session host said when it failed."""
    refresh = deps.sessions.report.refresh
    said = await asyncio.to_thread(tail, host_log(deps.settings.data_dir)) if refresh.state == "failed" else ""
    return RefreshInfo(
        state=refresh.state,
        began_ms=refresh.began_ms,
        ended_ms=refresh.ended_ms,
        error=refresh.error or None,
        log=said or None,
        by=refresh.by or None,
    )


def user_info(user: User) -> UserInfo:
    """As the API shows it."""
    return UserInfo(
        id=user.key, name=user.name, is_admin=user.is_admin, disabled=user.disabled, created_ms=user.created_ms
    )
