"""The caller's own things: session, jobs, pictures, tokens, logins, password. Nobody else's can be reached."""

from collections.abc import Sequence
from typing import Literal
from urllib.parse import quote, urlencode

from pydantic import BaseModel

from backend_pool.model import Job
from proxy.access.logins import Login
from proxy.access.tokens import Token
from proxy.api.operations import Call
from proxy.base.errors import Forbidden
from proxy.bodies.models import (
    Done,
    FailedPack,
    JobInfo,
    JobList,
    LoginInfo,
    LoginList,
    Me,
    NewToken,
    PasswordChange,
    PictureInfo,
    PictureList,
    SessionInfo,
    TokenInfo,
    TokenList,
    TokenMade,
)
from proxy.views.deps import Deps
from proxy.views.jobs import JobView, Picture
from user_sessions.view import SessionView

KINDS: dict[str, Literal["image", "video", "audio"]] = {
    **dict.fromkeys(("png", "jpg", "jpeg", "webp", "gif", "avif"), "image"),
    **dict.fromkeys(("mp4", "webm", "mov", "mkv"), "video"),
    **dict.fromkeys(("mp3", "wav", "flac", "ogg", "opus", "m4a"), "audio"),
}


async def me(call: Call) -> BaseModel:
    """Who the caller is."""
    return Me(id=call.who.user_id, name=call.who.name, is_admin=call.who.is_admin, via=call.who.via)


async def change_password(call: Call) -> BaseModel:
    """The caller's own password; tokens may not: a leaked one would lock its owner out."""
    if call.who.via != "login":
        raise Forbidden("A password is changed after signing in with it, not by token.")
    change = call.given(PasswordChange)
    await call.deps.access.change_password(call.who, change.current, change.new)
    return Done()


async def session(call: Call) -> BaseModel:
    """The caller's session."""
    return await session_of(call.deps, call.who.user_id)


async def start_session(call: Call) -> BaseModel:
    """Start it unless it runs; answers when it does."""
    await call.deps.sessions.ensure(call.who.user_id, call.who.slug)
    return await session_of(call.deps, call.who.user_id)


async def restart_session(call: Call) -> BaseModel:
    """End it and start it anew."""
    await call.deps.sessions.restart(call.who.user_id, call.who.slug)
    return await session_of(call.deps, call.who.user_id)


async def stop_session(call: Call) -> BaseModel:
    """End it; the next visit starts it again."""
    await call.deps.sessions.stop(call.who.user_id)
    return await session_of(call.deps, call.who.user_id)


async def jobs(call: Call) -> BaseModel:
    """Active jobs, the next to run first, then the latest finished ones."""
    views = call.deps.views
    limit = call.limit(50, 200)
    found = await views.of_user(call.who.user_id, limit, limit)
    return JobList(jobs=job_infos(call.deps, found), active=await views.active_count(call.who.user_id))


async def job(call: Call) -> BaseModel:
    """One job, by its prompt id or its number here."""
    view = await call.deps.views.of_name(call.text("id"), call.who.user_id)
    return job_infos(call.deps, [view])[0]


async def cancel_job(call: Call) -> BaseModel:
    """Take a waiting job out, or interrupt a running one."""
    job = await call.deps.views.one(call.id("id"), call.who.user_id)
    await call.deps.jobs.cancel(job.user_id, [job.prompt_id])
    return Done()


async def pictures(call: Call) -> BaseModel:
    """Finished files."""
    found, following = await call.deps.views.pictures(call.who.user_id, call.limit(24, 100), call.number("before"))
    return PictureList(pictures=[picture_info(picture) for picture in found], next=following)


async def tokens(call: Call) -> BaseModel:
    """Tokens that count, newest first."""
    return TokenList(tokens=[token_info(row) for row in await call.deps.access.tokens.of_user(call.who.user_id)])


async def create_token(call: Call) -> BaseModel:
    """Make one; not by token, or a leaked one would outlive its own revocation."""
    if call.who.via != "login":
        raise Forbidden("A token is made after signing in with a password, not by another token.")
    row, token = await call.deps.access.tokens.create(call.who.user_id, call.given(NewToken).name)
    return TokenMade(**token_info(row).model_dump(), token=token)


async def revoke_token(call: Call) -> BaseModel:
    """End one."""
    await call.deps.access.tokens.revoke(call.who.user_id, call.id("id"))
    return Done()


async def logins(call: Call) -> BaseModel:
    """Browsers that are signed in."""
    rows = await call.deps.access.logins.of_user(call.who.user_id)
    return LoginList(logins=[login_info(row, call.who.login_id) for row in rows])


async def revoke_login(call: Call) -> BaseModel:
    """Sign one of them out."""
    await call.deps.access.logins.revoke(call.who.user_id, call.text("id"))
    return Done()


async def session_of(deps: Deps, user_id: int) -> SessionInfo:
    """A user's session; `stopped` for one who never had any."""
    view = await deps.sessions.view_of(user_id)
    info = SessionInfo(user_id=user_id, state="stopped") if view is None else session_info(view)
    failed = [FailedPack(pack=node.pack, error=node.error) for node in deps.sessions.report.failed_nodes]
    return info.model_copy(update={"failed_packs": failed})


def session_info(view: SessionView) -> SessionInfo:
    """As the API shows it: why it failed in one line, and what its log ends with."""
    error, _, log = view.error.partition("\n")
    return SessionInfo(
        user_id=view.user_id,
        state=view.state.value,
        started_ms=view.started_ms,
        active_ms=view.active_ms or None,
        error=error or None,
        log=log or None,
        outdated=view.outdated,
        crashed_ms=view.crashed_ms,
        gave_up=view.gave_up,
        memory=view.memory,
    )


def job_infos(deps: Deps, views: Sequence[JobView]) -> list[JobInfo]:
    """As the API shows them to their user."""
    return [
        JobInfo(
            id=view.job.key,
            title=view.title,
            position=view.outlook.position,
            expected_start_ms=view.outlook.start_ms,
            expected_end_ms=view.outlook.end_ms,
            error=view.error,
            reason=view.outlook.reason or (deps.jobs.reason(view.job.key) if view.job.state == "queued" else None),
            progress=deps.jobs.progress(view.job.user_id, view.job.prompt_id) if view.job.state == "running" else None,
            **view.job.model_dump(include=_JOB_COLUMNS),
        )
        for view in views
    ]


_JOB_COLUMNS = set(JobInfo.model_fields) & set(Job.model_fields)


def picture_info(picture: Picture) -> PictureInfo:
    """As the API shows it."""
    names = {"filename": picture.filename, "subfolder": picture.subfolder, "type": picture.type}
    return PictureInfo(
        job_id=picture.seq,
        prompt_id=picture.prompt_id,
        filename=picture.filename,
        subfolder=picture.subfolder,
        kind=KINDS.get(picture.filename.rpartition(".")[2].lower(), "file"),
        url=f"/view?{urlencode(names, quote_via=quote)}",
        ended_ms=picture.ended_ms,
    )


def token_info(row: Token) -> TokenInfo:
    """As the API shows it."""
    return TokenInfo(id=row.key, name=row.name, prefix=row.prefix, created_ms=row.created_ms, used_ms=row.used_ms)


def login_info(row: Login, current: str | None) -> LoginInfo:
    """As the API shows it."""
    return LoginInfo(
        id=row.id,
        created_ms=row.created_ms,
        seen_ms=row.seen_ms,
        address=row.address,
        user_agent=row.user_agent,
        current=row.id == current,
    )
