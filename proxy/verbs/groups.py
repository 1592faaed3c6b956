"""The verbs `group ...`: who may use how much of the pool.

They change or read rows; a running server reads them every few seconds.
"""

from typing import Annotated, Any

import typer

from proxy.verbs.data import database, settings_of
from proxy.verbs.options import WhichGroup

group_app = typer.Typer(no_args_is_help=True, help="Groups of users: weights, limits, quotas.")

Weight = Annotated[float | None, typer.Option(help="GPU time of its members in proportion to others'; 1 is usual.")]
Running = Annotated[int | None, typer.Option(help="Jobs of one member that may run at once; 0: as the settings say.")]
Queue = Annotated[int | None, typer.Option(help="Jobs of one member that may wait; 0: as the settings say.")]
Priority = Annotated[int | None, typer.Option(help="Highest priority that jobs may ask for.")]
RunLimit = Annotated[float | None, typer.Option(help="Seconds one job may run; 0: as the settings say.")]
Label = Annotated[
    list[str] | None, typer.Option("--label", help="Its jobs run on backends with this label only; repeatable.")
]
QuotaS = Annotated[float | None, typer.Option(help="GPU-seconds that all members may use in a period; 0: no quota.")]
Period = Annotated[str | None, typer.Option(help="Of the quota: day or month, in UTC.")]
Warn = Annotated[int | None, typer.Option(help="Members are told from this percentage of the quota on.")]


@group_app.command("add")
def group_add(  # noqa: PLR0917 - one parameter per flag
    context: typer.Context,
    name: str,
    weight: Weight = None,
    running: Running = None,
    queue: Queue = None,
    priority: Priority = None,
    run_limit_s: RunLimit = None,
    label: Label = None,
    quota_s: QuotaS = None,
    quota_period: Period = None,
    quota_warn_percent: Warn = None,
    user: Annotated[list[str] | None, typer.Option("--user", help="A member; repeatable.")] = None,
) -> None:
    """Create a group."""
    from sqlmodel import Session

    from backend_pool.books import group_rows

    fields = _fields(weight, running, queue, priority, run_limit_s, label, quota_s, quota_period, quota_warn_percent)

    def work(session: Session) -> str:
        group = group_rows.add(session, name, fields)
        for person in user or ():
            group_rows.assign(session, _user(session, person), group.id)
        return group.name

    with database(settings_of(context), create=True) as db:
        typer.echo(f"Group {db.write_now(work)} created.")


@group_app.command("set")
def group_set(  # noqa: PLR0917 - one parameter per flag
    context: typer.Context,
    which: WhichGroup,
    weight: Weight = None,
    running: Running = None,
    queue: Queue = None,
    priority: Priority = None,
    run_limit_s: RunLimit = None,
    label: Label = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Its jobs run anywhere again.")] = False,
    quota_s: QuotaS = None,
    quota_period: Period = None,
    quota_warn_percent: Warn = None,
) -> None:
    """Change a group: the flags that are given; labels replace those it had."""
    from backend_pool.books import group_rows

    fields = _fields(weight, running, queue, priority, run_limit_s, label, quota_s, quota_period, quota_warn_percent)
    if no_labels:
        fields["labels"] = []
    if not fields:
        raise typer.BadParameter("nothing to change: name what shall be otherwise, such as --weight 2")
    with database(settings_of(context)) as db:
        group = db.write_now(lambda s: group_rows.change(s, group_rows.named(s, which), fields))
    typer.echo(f"Group {group.name} changed.")


@group_app.command("list")
def group_list(context: typer.Context) -> None:
    """All groups: id, name, weight, running, queue, priority and run limits, labels, quota, members."""
    from collections import Counter

    from backend_pool.books import group_rows

    with database(settings_of(context)) as db:
        rows, members = db.read_now(lambda s: (group_rows.everything(s), group_rows.members(s)))
    count = Counter(members.values())
    for row in rows:
        quota = "-" if row.quota_s is None else f"{row.quota_s:g} s/{row.quota_period}"
        limits = [_shown(limit) for limit in (row.running_limit, row.queue_limit, row.priority_limit, row.run_limit_s)]
        labels = ",".join(row.labels) or "-"
        typer.echo(
            "\t".join([str(row.id), row.name, f"{row.weight:g}", *limits, labels, quota, str(count[row.id or 0])])
        )


@group_app.command("members")
def group_members(context: typer.Context, which: WhichGroup) -> None:
    """The names of a group's users."""
    from backend_pool.books import group_rows
    from proxy.access.accounts import everyone

    with database(settings_of(context)) as db:
        group, users, members = db.read_now(lambda s: (group_rows.named(s, which), everyone(s), group_rows.members(s)))
    for user in users:
        if members.get(user.key) == group.id:
            typer.echo(user.name)


@group_app.command("remove")
def group_remove(context: typer.Context, which: WhichGroup) -> None:
    """End a group: its users are in none then, its reservations end."""
    from sqlmodel import Session

    from backend_pool.books import group_rows

    def work(session: Session) -> str:
        group = group_rows.named(session, which)
        group_rows.remove(session, group)
        return group.name

    with database(settings_of(context)) as db:
        typer.echo(f"Group {db.write_now(work)} removed.")


def user_group(
    context: typer.Context,
    name: str,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="Name or id; `none` takes the user out of any.")],
) -> None:
    """Put a user into a group, out of any other."""
    from sqlmodel import Session

    from backend_pool.books import group_rows

    def work(session: Session) -> str:
        user_id = _user(session, name)
        found = group_rows.find(session, group)
        if found is None and group.casefold() == group_rows.NO_GROUP:
            group_rows.assign(session, user_id, None)
            return f"User {name} is in no group."
        found = found or group_rows.named(session, group)
        group_rows.assign(session, user_id, found.id)
        return f"User {name} is in the group {found.name}."

    with database(settings_of(context)) as db:
        typer.echo(db.write_now(work))


def _fields(  # noqa: PLR0917 - one parameter per flag
    weight: float | None,
    running: int | None,
    queue: int | None,
    priority: int | None,
    run_limit_s: float | None,
    labels: list[str] | None,
    quota_s: float | None,
    quota_period: str | None,
    quota_warn_percent: int | None,
) -> dict[str, Any]:
    """The flags that were given; 0 takes away what may be none."""
    none_at_zero = {"running_limit": running, "queue_limit": queue, "run_limit_s": run_limit_s, "quota_s": quota_s}
    fields: dict[str, Any] = {key: value or None for key, value in none_at_zero.items() if value is not None}
    others = {
        "weight": weight,
        "priority_limit": priority,
        "labels": labels,
        "quota_period": quota_period,
        "quota_warn_percent": quota_warn_percent,
    }
    return fields | {key: value for key, value in others.items() if value is not None}


def _user(session: Any, name: str) -> int:
    from proxy.access.accounts import find
    from proxy.base.errors import NotFound

    user = find(session, name)
    if user is None:
        raise NotFound(f"There is no user {name!r}.")
    return user.key


def _shown(limit: float | None) -> str:
    return "-" if limit is None else f"{limit:g}"
