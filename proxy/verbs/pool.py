"""The verbs about what runs: `backend ...`, the ComfyUI instances of the pool, and `session ...`.

They change or read rows; a running server looks at them every few seconds and does the rest. `session refresh` talks to
what starts the sessions.
"""

from datetime import UTC, datetime
from typing import Annotated

import typer

from proxy.base.backend_url import shown_url
from proxy.verbs import life as cli_life
from proxy.verbs.data import database, settings_of

backend_app = typer.Typer(no_args_is_help=True, help="ComfyUI instances that jobs run on.")
cli_life.add_to(backend_app)
session_app = typer.Typer(no_args_is_help=True, help="Users' ComfyUI processes.")


@backend_app.command("add")
def backend_add(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="As http://gpu-1:8188.")],
    name: Annotated[str | None, typer.Option(help="How it is called; default: its address.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="As fast or gpu=a100; repeatable.")] = None,
) -> None:
    """Register a ComfyUI; a running server takes it into its pool within seconds."""
    from backend_pool.backends.registry import Registry

    with database(settings_of(context), create=True) as db:
        row = Registry(db).add_now(url, name, label or ())
    typer.echo(f"Backend {row.name} added: {shown_url(row.url)}")


@backend_app.command("list")
def backend_list(context: typer.Context) -> None:
    """All registered backends: id, name, URL, mode, source, level, labels, end of drain (UTC), quarantine, note.

    Whether one is up a running server knows (administration page, API); `doctor` asks each.
    """
    from backend_pool.backends.registry import Registry
    from backend_pool.workers.tokens import levels_now

    with database(settings_of(context)) as db:
        levels = levels_now(db)
        for row in Registry(db).listing_now():
            level = levels.get(row.id or 0, "engine" if row.source == "engine" else "stock")
            begin = [str(row.id), row.name, shown_url(row.url), row.mode.value, row.source, level]
            why = " ".join((row.quarantine or "").split())
            typer.echo("\t".join([*begin, " ".join(row.labels), _time(row.drain_by_ms), why, row.note]))


@backend_app.command("remove")
def backend_remove(context: typer.Context, which: cli_life.Which) -> None:
    """Forget a backend; a job it runs is carried on elsewhere."""
    from backend_pool.backends.registry import Registry

    with database(settings_of(context)) as db:
        row = Registry(db).remove_now(which)
    typer.echo(f"Backend {row.name} removed.")


@backend_app.command("refresh")
def backend_refresh(context: typer.Context, which: cli_life.Which) -> None:
    """Have a running server read its nodes and models again."""
    from backend_pool.backends.registry import Registry

    with database(settings_of(context)) as db:
        row = Registry(db).ask_refresh_now(which)
    typer.echo(f"Backend {row.name} is read again within seconds.")


@backend_app.command("compare")
def backend_compare(
    context: typer.Context,
    full: Annotated[bool, typer.Option("--full", help="Name each node and model, not only how many.")] = False,
) -> None:
    """What each backend lacks that others have, as a server last read it, down ones included."""
    from backend_pool.backends.registry import Registry
    from backend_pool.offers.drift import compare
    from backend_pool.offers.offer import Provider
    from backend_pool.offers.store import OfferStore

    settings = settings_of(context)
    with database(settings) as db:
        rows = Registry(db).listing_now()
    store = OfferStore(settings.data_dir)
    providers = [Provider(row.id or 0, row.name, store.load(row.id or 0, row.url)) for row in rows]
    for one in compare([provider for provider in providers if provider.offer.info]):
        lacks = f"lacks {len(one.lacks_nodes)} nodes and {len(one.lacks_models)} models"
        typer.echo(f"{one.name}\t{one.nodes} nodes\t{one.models} models\t{lacks}\tdefines {len(one.differs)} otherwise")
        for word, names in (("node", one.lacks_nodes), ("model", one.lacks_models), ("otherwise", one.differs)):
            for name in names if full else ():
                typer.echo(f"\t{word}\t{name}")
    for provider in providers:
        if not provider.offer.info:
            typer.echo(f"{provider.name}\thas not told yet what it offers")


@session_app.command("list")
def session_list(context: typer.Context) -> None:
    """Every user's session as it was last stored: user, state, process id, since when (UTC), last error."""
    from sqlmodel import select

    from proxy.access.accounts import User
    from user_sessions.model import SessionRow

    query = select(User.name, SessionRow).where(User.id == SessionRow.user_id).order_by(User.name_key)
    with database(settings_of(context)) as db:
        for name, row in db.read_now(lambda s: s.exec(query).all()):
            pid = "" if row.pid is None else str(row.pid)
            typer.echo("\t".join([name, row.state, pid, _time(row.started_ms), " ".join(row.error.split())]))


@session_app.command("refresh")
def session_refresh(context: typer.Context) -> None:
    """After a change of shared custom nodes or models: start sessions afresh from now on; running ones move over."""
    import asyncio

    from proxy.verbs.session_refresh import refresh_sessions

    settings = settings_of(context)
    with database(settings):
        typer.echo(asyncio.run(refresh_sessions(settings)))


def _time(time_ms: int | None) -> str:
    return "" if time_ms is None else f"{datetime.fromtimestamp(time_ms / 1000, UTC):%F %T}"
