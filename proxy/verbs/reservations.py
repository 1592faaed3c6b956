"""The verbs `reservation ...`: when backends are one group's alone.

They change or read rows; a running server reads them every few seconds.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from proxy.base.errors import BadInput
from proxy.verbs.data import database, settings_of
from proxy.verbs.options import WhichGroup

reservation_app = typer.Typer(no_args_is_help=True, help="Backends that are one group's for a while.")


@reservation_app.command("add")
def reservation_add(  # noqa: PLR0917 - one parameter per flag
    context: typer.Context,
    group: WhichGroup,
    begin: Annotated[str, typer.Option("--from", help="ISO 8601 with a zone, such as 2026-03-02T10:00+01:00.")],
    end: Annotated[str, typer.Option("--to", help="The same; not included.")],
    backend: Annotated[list[str] | None, typer.Option("--backend", help="Name or id; repeatable.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="And backends with all of these labels; repeatable.")
    ] = None,
    note: Annotated[str, typer.Option(help="What for.")] = "",
) -> None:
    """Keep backends for a group for a while; refused where one is reserved already."""
    from backend_pool.books.keeper import reserve

    wish: dict[str, Any] = {
        "begin_ms": _moment(begin),
        "end_ms": _moment(end),
        "labels": label or [],
        "note": note.strip(),
    }
    with database(settings_of(context)) as db:
        row = db.write_now(lambda s: reserve(s, group, backend or [], wish))
    typer.echo(f"Reservation {row.id} made.")


@reservation_app.command("list")
def reservation_list(context: typer.Context) -> None:
    """All reservations, the next one first: id, group, from, to (UTC), backends, labels, note."""
    from backend_pool.backends.registry import Registry
    from backend_pool.books import group_rows, reservations

    with database(settings_of(context)) as db:
        rows, groups = db.read_now(lambda s: (reservations.everything(s), group_rows.everything(s)))
        names = {row.id: row.name for row in Registry(db).listing_now()}
    groups_by_id = {group.id: group.name for group in groups}
    for row in rows:
        times = [f"{datetime.fromtimestamp(ms / 1000, UTC):%F %H:%M}" for ms in (row.begin_ms, row.end_ms)]
        where = ",".join(names.get(one, str(one)) for one in row.backends) or "-"
        labels = ",".join(row.labels) or "-"
        typer.echo("\t".join([str(row.id), groups_by_id.get(row.group_id, "-"), *times, where, labels, row.note]))


@reservation_app.command("remove")
def reservation_remove(
    context: typer.Context, which: Annotated[int, typer.Argument(metavar="ID", help="As `reservation list` shows it.")]
) -> None:
    """Take a reservation back, or end it."""
    from backend_pool.books import reservations

    with database(settings_of(context)) as db:
        db.write_now(lambda s: reservations.remove(s, which))
    typer.echo(f"Reservation {which} removed.")


def _moment(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{text!r} is no time. Write it as 2026-03-02T10:00+01:00.") from None
    if moment.tzinfo is None:
        raise BadInput(f"{text!r} does not say its zone: write {text}Z for UTC, or {text}+01:00.")
    return int(moment.timestamp() * 1000)
