"""Groups and reservations over the API, and what the caller may take of the pool."""

from collections.abc import Mapping

from pydantic import BaseModel

from backend_pool.books.quotas import Quota, notice
from backend_pool.books.tables import Group, Reservation
from proxy.api.operations import Call
from proxy.base.clock import now_ms
from proxy.base.errors import NotFound
from proxy.base.logs import events
from proxy.bodies.books import (
    GroupChange,
    GroupInfo,
    GroupList,
    MemberInfo,
    NewGroup,
    NewMember,
    NewReservation,
    QuotaInfo,
    ReservationInfo,
    ReservationList,
    ShareChange,
    ShareInfo,
    milliseconds,
)
from proxy.bodies.models import Done
from proxy.views.deps import Deps

log = events(__name__)


async def share(call: Call) -> BaseModel:
    """The caller's group, limits, lane and quota."""
    return share_info(call.deps, call.who.user_id)


async def change_share(call: Call) -> BaseModel:
    """Have jobs go into another lane from now on, unless they say otherwise."""
    await call.deps.books.groups.choose_lane(call.who.user_id, call.given(ShareChange).lane)
    return share_info(call.deps, call.who.user_id)


async def groups(call: Call) -> BaseModel:
    """All groups with their members and how much of their quotas is used."""
    return GroupList(groups=await group_infos(call.deps))


async def create_group(call: Call) -> BaseModel:
    """A new group."""
    new = call.given(NewGroup)
    group = await call.deps.books.add(new.name, new.model_dump(exclude={"name"}, exclude_unset=True))
    log.info("group created", group=group.name, by=call.who.name)
    return await _info(call, group)


async def change_group(call: Call) -> BaseModel:
    """The fields that are given; in force at once, for waiting jobs too."""
    fields = call.given(GroupChange).model_dump(exclude_unset=True)
    group = await call.deps.books.change(call.id("id"), fields)
    log.info("group changed", group=group.name, by=call.who.name, fields=sorted(fields))
    return await _info(call, group)


async def remove_group(call: Call) -> BaseModel:
    """Its users are in none then, and its reservations end; what it used stays in the ledger."""
    group = await call.deps.books.remove(call.id("id"))
    log.info("group removed", group=group.name, by=call.who.name)
    return Done()


async def add_member(call: Call) -> BaseModel:
    """Put a user into the group, out of any other."""
    name, group_id = call.given(NewMember).user, call.id("id")
    user = await call.deps.access.users.by_name(name)
    if user is None:
        raise NotFound(f"There is no user {name[:80]!r}.")
    await call.deps.books.assign(user.key, group_id)
    log.info("user put into a group", user=user.name, group=call.deps.books.groups.name(group_id), by=call.who.name)
    return Done()


async def remove_member(call: Call) -> BaseModel:
    """Take a user out of the group."""
    user_id, group_id = call.id("user_id"), call.id("id")
    await call.deps.books.leave(user_id, group_id)
    log.info("user taken out of a group", user_id=user_id, group=group_id, by=call.who.name)
    return Done()


async def reservations(call: Call) -> BaseModel:
    """Those that are not past."""
    return ReservationList(reservations=reservation_infos(call.deps))


async def create_reservation(call: Call) -> BaseModel:
    """Keep backends for a group for a while; refused where one of them is reserved already."""
    new = call.given(NewReservation)
    wish: Mapping[str, object] = {
        "begin_ms": milliseconds(new.begin),
        "end_ms": milliseconds(new.end),
        "labels": new.labels,
        "note": new.note.strip(),
    }
    row = await call.deps.books.reserve(new.group, new.backends, wish)
    log.info("reservation made", reservation=row.id, group=new.group, by=call.who.name)
    return _reservation(call.deps, row)


async def remove_reservation(call: Call) -> BaseModel:
    """End it or take it back."""
    row = await call.deps.books.unreserve(call.id("id"))
    log.info("reservation removed", reservation=row.id, by=call.who.name)
    return Done()


def share_info(deps: Deps, user_id: int) -> ShareInfo:
    """As the API shows it."""
    live = deps.books.groups
    own, quota = live.share(user_id), live.quota(user_id)
    return ShareInfo(
        group=own.group,
        weight=own.weight,
        running_limit=own.running_limit,
        queue_limit=own.queue_limit,
        priority_limit=own.priority_limit,
        run_limit_s=own.run_limit_s,
        labels=sorted(own.labels),
        lane=live.lane(user_id),
        quota=None if quota is None else quota_info(deps, quota),
    )


def quota_info(deps: Deps, quota: Quota) -> QuotaInfo:
    """As the API shows it."""
    return QuotaInfo(
        group=quota.group,
        used_s=round(quota.used_s, 1),
        limit_s=quota.limit_s,
        left_s=round(quota.left_s, 1),
        period=quota.period,
        resets_ms=quota.end_ms,
        near=quota.near,
        exhausted=quota.exhausted,
        notice=notice(quota, deps.settings.quota_contact),
    )


async def group_infos(deps: Deps) -> list[GroupInfo]:
    """All groups as the API shows them."""
    rows, members = await deps.books.listing()
    people: dict[int, list[MemberInfo]] = {}
    for user in await deps.access.users.listing():
        people.setdefault(members.get(user.key, 0), []).append(MemberInfo(id=user.key, name=user.name))
    return [_group(deps, row, people.get(row.id or 0, [])) for row in rows]


def reservation_infos(deps: Deps) -> list[ReservationInfo]:
    """Those that are not past, as the API shows them."""
    return [_reservation(deps, row) for row in deps.books.groups.upcoming()]


async def _info(call: Call, group: Group) -> GroupInfo:
    return next(info for info in await group_infos(call.deps) if info.id == group.id)


def _group(deps: Deps, row: Group, members: list[MemberInfo]) -> GroupInfo:
    quota = deps.books.groups.quota_of(row.id)
    return GroupInfo(
        members=members, quota=None if quota is None else quota_info(deps, quota), **row.model_dump(include=_COLUMNS)
    )


_COLUMNS = set(GroupInfo.model_fields) - {"members", "quota"}


def _reservation(deps: Deps, row: Reservation) -> ReservationInfo:
    members = [deps.pool.member(backend_id) for backend_id in row.backends]
    return ReservationInfo(
        id=row.id or 0,
        group_id=row.group_id,
        group=deps.books.groups.name(row.group_id),
        backends=row.backends,
        backend_names=[member.row.name for member in members if member is not None],
        labels=row.labels,
        begin_ms=row.begin_ms,
        end_ms=row.end_ms,
        active=row.begin_ms <= now_ms() < row.end_ms,
        note=row.note,
    )
