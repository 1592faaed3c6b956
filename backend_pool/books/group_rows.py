"""The rows of groups and of who is in which: rules and changes. Transactions' bodies, for the command line too."""

import math
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, func, select

from backend_pool.backends.labels import cleaned
from backend_pool.books.tables import Group, GroupMember, QuotaPeriod
from proxy.base.clock import now_ms
from proxy.base.errors import BadInput, Conflict, NotFound

NAME_LENGTH: Final = 64
NO_GROUP: Final = "none"
"""What is said in place of a group's name, and no group may be called therefore."""
MOST: Final[Mapping[str, float]] = {
    "weight": 1000,
    "running_limit": 1000,
    "queue_limit": 1_000_000,
    "run_limit_s": 30 * 86_400,
    "quota_s": 1e9,
    "quota_warn_percent": 100,
    "priority_limit": 1000,
}
FIELDS: Final = frozenset(MOST) | {"labels", "quota_period"}


def add(session: Session, name: str, fields: Mapping[str, Any]) -> Group:
    """A new group. Raises BadInput, or Conflict for a taken name."""
    name = clean_name(name)
    if find(session, name) is not None:
        raise Conflict(f"There is a group named {name} already.")
    group = Group(name=name, created_ms=now_ms())
    _set(group, fields)
    session.add(group)
    try:
        session.flush()
    except IntegrityError as error:  # two servers on one PostgreSQL, the same name at the same moment
        raise Conflict(f"There is a group named {name} already.") from error
    return group


def change(session: Session, group: Group, fields: Mapping[str, Any]) -> Group:
    """Set some fields; None takes a limit back to the setting's. Raises BadInput."""
    _set(group, fields)
    session.add(group)
    return group


def everything(session: Session) -> list[Group]:
    """All groups by name."""
    return list(session.exec(select(Group).order_by(func.lower(Group.name), col(Group.id))).all())


def get(session: Session, group_id: int) -> Group:
    """That group. Raises NotFound."""
    group = session.get(Group, group_id)
    if group is None:
        raise NotFound("There is no such group.")
    return group


def find(session: Session, name: str) -> Group | None:
    """The group of that name, whatever its case."""
    wanted = name.strip().casefold()
    return next((group for group in everything(session) if group.name.casefold() == wanted), None)


def named(session: Session, which: str) -> Group:
    """By name, else by id. Raises NotFound."""
    group = find(session, which)
    if group is None and which.isascii() and which.isdecimal():
        group = session.get(Group, min(int(which), 2**63 - 1))
    if group is None:
        raise NotFound(f"There is no group {which!r}. `group list` shows them.")
    return group


def assign(session: Session, user_id: int, group_id: int | None) -> None:
    """Put a user into a group, out of any other; None: into none."""
    row = session.get(GroupMember, user_id)
    if group_id is None:
        if row is not None:
            session.delete(row)
        return
    get(session, group_id)
    row = row or GroupMember(user_id=user_id, group_id=group_id)
    row.group_id = group_id
    session.add(row)


def members(session: Session) -> dict[int, int]:
    """Group by user."""
    return dict(session.exec(select(GroupMember.user_id, GroupMember.group_id)).all())


def remove(session: Session, group: Group) -> None:
    """Its users are in no group then, its reservations end; the ledger keeps its name."""
    session.delete(group)


def clean_name(name: str) -> str:
    """The name in its stored form. Raises BadInput."""
    name = name.strip()
    if not name or len(name) > NAME_LENGTH or not name.isprintable():
        raise BadInput(f"A group's name has 1 to {NAME_LENGTH} printable characters.")
    if name.isdecimal() or name.casefold() == NO_GROUP:
        raise BadInput(f"A group cannot be called {name}: numbers stand for ids, `{NO_GROUP}` for no group.")
    return name


def _set(group: Group, fields: Mapping[str, Any]) -> None:
    for key, value in fields.items():
        if key not in FIELDS:
            raise BadInput(f"A group has no {key}.")
        setattr(group, key, _clean(key, value))


def _clean(key: str, value: Any) -> object:
    if key == "labels":
        return cleaned(value or [])
    if key == "quota_period":
        if value not in {period.value for period in QuotaPeriod}:
            raise BadInput(f"The period of a quota is {' or '.join(QuotaPeriod)}.")
        return QuotaPeriod(value)
    if value is None:
        if key in {"weight", "quota_warn_percent", "priority_limit"}:
            raise BadInput(f"{key} must be a number.")
        return None
    whole = key in {"running_limit", "queue_limit", "quota_warn_percent", "priority_limit"}
    least = 0 if key == "priority_limit" else 1 if whole else 0.001
    if not math.isfinite(value) or not least <= value <= MOST[key]:
        raise BadInput(f"{key} must be a number from {least} to {MOST[key]:.0f}.")
    return int(value) if whole else float(value)
