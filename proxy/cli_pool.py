"""The verbs about what runs: `backend ...`, the ComfyUI instances of the pool, and `session list`.

They change or read rows. A running server looks at them every few seconds and does the rest.
"""

from datetime import UTC, datetime
from typing import Annotated

import typer

from proxy.base.backend_url import shown_url
from proxy.cli_data import database, settings_of

backend_app = typer.Typer(no_args_is_help=True, help="ComfyUI instances that jobs run on.")
session_app = typer.Typer(no_args_is_help=True, help="Users' ComfyUI processes.")

Which = Annotated[str, typer.Argument(metavar="NAME_OR_ID", help="As `backend list` shows it.")]


@backend_app.command("add")
def backend_add(
    context: typer.Context,
    url: str,
    name: Annotated[str | None, typer.Option(help="How it is called; default: its address.")] = None,
) -> None:
    """Register a ComfyUI; a running server takes it into its pool within seconds."""
    from backend_pool.registry import Registry

    with database(settings_of(context), create=True) as db:
        row = Registry(db).add_now(url, name)
    typer.echo(f"Backend {row.name} added: {shown_url(row.url)}")


@backend_app.command("list")
def backend_list(context: typer.Context) -> None:
    """All registered backends: id, name, URL, mode, source."""
    from backend_pool.registry import Registry

    with database(settings_of(context)) as db:
        for row in Registry(db).listing_now():
            typer.echo("\t".join([str(row.id), row.name, shown_url(row.url), row.mode.value, row.source]))


@backend_app.command("remove")
def backend_remove(context: typer.Context, which: Which) -> None:
    """Forget a backend; a job it runs is carried on elsewhere."""
    from backend_pool.registry import Registry

    with database(settings_of(context)) as db:
        row = Registry(db).remove_now(which)
    typer.echo(f"Backend {row.name} removed.")


@backend_app.command("drain")
def backend_drain(context: typer.Context, which: Which) -> None:
    """Give it no new jobs; the one it runs goes on to its end."""
    _set_mode(context, which, "draining")


@backend_app.command("activate")
def backend_activate(context: typer.Context, which: Which) -> None:
    """Give it jobs again."""
    _set_mode(context, which, "active")


@backend_app.command("disable")
def backend_disable(context: typer.Context, which: Which) -> None:
    """Give it no jobs until it is activated, whatever happens."""
    _set_mode(context, which, "disabled")


@session_app.command("list")
def session_list(context: typer.Context) -> None:
    """Every user's session as it was last stored: user, state, process id, since when (UTC), last error."""
    from sqlmodel import select

    from proxy.accounts import User
    from user_sessions.model import SessionRow

    query = select(User.name, SessionRow).where(User.id == SessionRow.user_id).order_by(User.name_key)
    with database(settings_of(context)) as db:
        for name, row in db.read_now(lambda s: s.exec(query).all()):
            since = "" if row.started_ms is None else f"{datetime.fromtimestamp(row.started_ms / 1000, UTC):%F %T}"
            pid = "" if row.pid is None else str(row.pid)
            typer.echo("\t".join([name, row.state, pid, since, " ".join(row.error.split())]))


def _set_mode(context: typer.Context, which: str, mode: str) -> None:
    from backend_pool.model import BackendMode
    from backend_pool.registry import Registry

    with database(settings_of(context)) as db:
        row = Registry(db).set_mode_now(which, BackendMode(mode))
    typer.echo(f"Backend {row.name} is {row.mode.value}.")
