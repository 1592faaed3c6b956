"""The verb `usage`: what was used, as a table or as CSV, out of the ledger."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.base.database import Database
from proxy.base.errors import BadInput, NotFound
from proxy.verbs.data import database, settings_of

if TYPE_CHECKING:
    from backend_pool.books.usage import By, Span, Sums

By_ = Annotated[
    str | None, typer.Option(help="user, group, day or backend. Default: user; with --csv one line for each job.")
]


def usage(  # noqa: PLR0917 - one parameter per flag
    context: typer.Context,
    by: By_ = None,
    days: Annotated[int, typer.Option(min=1, max=3660, help="How many days back, today included, in UTC.")] = 30,
    user: Annotated[str | None, typer.Option(help="Of this user only.")] = None,
    group: Annotated[str | None, typer.Option(help="Of jobs of this group only; none: of nobody's group.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV instead of a table.")] = False,
) -> None:
    """What was used, by user, group, day or backend.

    Columns: key, jobs, succeeded, failed, cancelled, then GPU, load, run and wait seconds.
    """
    from backend_pool.books import usage as ledger
    from backend_pool.books.ledger import day_of
    from backend_pool.books.usage import By, Span, group_key
    from proxy.access.accounts import everyone

    if by not in {None, *(one.value for one in By)}:
        raise BadInput(f"--by must be one of {', '.join(one.value for one in By)}.")
    today = datetime.now(UTC)
    first, last = (day_of(int(moment.timestamp() * 1000)) for moment in (today - timedelta(days=days - 1), today))
    with database(settings_of(context)) as db:
        names = {person.key: person.name for person in db.read_now(everyone)}
        span = Span(first, last, _user_id(names, user), None if group is None else group_key(group))
        if as_csv and by is None:
            _write_jobs(db, span, names)
        else:
            chosen = By(by or By.USER)
            _write_sums(db.read_now(lambda s: ledger.sums(s, chosen, span)), chosen, names, as_csv=as_csv)


def _write_jobs(db: Database, span: "Span", names: Mapping[int, str]) -> None:
    import asyncio

    from backend_pool.books import usage as ledger
    from backend_pool.books.tables import LedgerEntry
    from proxy.views.usage_csv import jobs_csv

    async def page(after: int) -> list[LedgerEntry]:
        return db.read_now(lambda s: ledger.entries(s, span, after))

    async def write() -> None:
        async for part in jobs_csv(page, names):
            sys.stdout.write(part)

    asyncio.run(write())


def _write_sums(rows: "list[Sums]", by: "By", names: Mapping[int, str], *, as_csv: bool) -> None:
    from backend_pool.books.usage import shown_day
    from proxy.views.usage_csv import sums_csv

    if by.value == "day":
        rows = [replace(row, key=shown_day(int(row.key))) for row in rows]
    if by.value == "user":
        rows = [replace(row, key=names.get(int(row.key), f"user {row.key}")) for row in rows]
    if as_csv:
        sys.stdout.write(sums_csv(rows))
        return
    for row in rows:
        counts = [str(count) for count in (row.jobs, row.succeeded, row.failed, row.cancelled)]
        times = [f"{ms / 1000:.1f}" for ms in (row.gpu_ms, row.load_ms, row.run_ms, row.wait_ms)]
        typer.echo("\t".join([row.key or "-", *counts, *times]))


def _user_id(names: Mapping[int, str], user: str | None) -> int | None:
    if user is None:
        return None
    for user_id, name in names.items():
        if name.casefold() == user.strip().casefold():
            return user_id
    raise NotFound(f"There is no user {user!r}.")
