"""The verbs about a backend's life: label, drain, activate, disable, note, trust, restart.

They change rows; a running server looks at them every few seconds and does the rest.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.base.clock import now_ms
from proxy.base.errors import ConfigError
from proxy.duration import seconds_of
from proxy.verbs.data import database, settings_of

if TYPE_CHECKING:
    from backend_pool.backends.change import Change
    from backend_pool.model import Backend

Which = Annotated[str, typer.Argument(metavar="NAME_OR_ID", help="As `backend list` shows it.")]
Note = Annotated[str | None, typer.Option(help="Why, for whoever reads the list or the admin page; '' takes it away.")]


def add_to(app: typer.Typer) -> None:
    """The verbs, as part of `backend`."""
    for name, verb in VERBS.items():
        app.command(name)(verb)


def drain(
    context: typer.Context,
    which: Which,
    within: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Take its job away after this long, as 90s, 10m or 2h; it runs elsewhere."),
    ] = None,
    note: Note = None,
) -> None:
    """Give it no new jobs; the one it runs goes on to its end, or to the deadline."""
    by_ms = None if within is None else now_ms() + round(seconds_of(within) * 1000)
    from backend_pool.backends.change import Change
    from backend_pool.model import BackendMode

    row = _change(context, which, Change(mode=BackendMode.DRAINING, drain_by_ms=by_ms, note=note))
    typer.echo(f"Backend {row.name} is draining.")


def activate(context: typer.Context, which: Which, note: Note = "") -> None:
    """Give it jobs again."""
    from backend_pool.backends.change import Change
    from backend_pool.model import BackendMode

    row = _change(context, which, Change(mode=BackendMode.ACTIVE, note=note))
    typer.echo(f"Backend {row.name} is active.")


def disable(context: typer.Context, which: Which, note: Note = None) -> None:
    """Give it no jobs until it is activated, whatever happens."""
    from backend_pool.backends.change import Change
    from backend_pool.model import BackendMode

    row = _change(context, which, Change(mode=BackendMode.DISABLED, note=note))
    typer.echo(f"Backend {row.name} is disabled.")


def label(
    context: typer.Context,
    which: Which,
    add: Annotated[list[str] | None, typer.Argument(metavar="LABEL", help="As fast or gpu=a100.")] = None,
    remove: Annotated[list[str] | None, typer.Option(metavar="LABEL", help="Repeatable; of a pair, KEY does.")] = None,
    only: Annotated[bool, typer.Option("--only", help="Take all others away.")] = False,
) -> None:
    """Give it labels, which groups and jobs can ask for; prints those it has now."""
    from backend_pool.backends.change import Change

    labels = () if only else None
    row = _change(context, which, Change(labels=labels, add=tuple(add or ()), remove=tuple(remove or ())))
    typer.echo(" ".join(row.labels))


def note(
    context: typer.Context, which: Which, text: Annotated[str, typer.Argument(metavar="TEXT", help="'' takes it away.")]
) -> None:
    """Say something of it to whoever reads the list or the admin page."""
    from backend_pool.backends.change import Change

    row = _change(context, which, Change(note=text))
    typer.echo(f"Backend {row.name}: {row.note}" if row.note else f"Backend {row.name} has no note.")


def trust(context: typer.Context, which: Which) -> None:
    """Take it out of quarantine without waiting for a trial job to succeed."""
    from backend_pool.backends.change import Change

    row = _change(context, which, Change(trust=True))
    typer.echo(f"Backend {row.name} is trusted again.")


def restart(
    context: typer.Context,
    which: Annotated[str | None, typer.Argument(metavar="NAME_OR_ID", help="As `backend list` shows it.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All that can be, one after the other.")] = False,
    labels: Annotated[
        list[str] | None, typer.Option("--label", metavar="LABEL", help="With --all: only those with it; repeatable.")
    ] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Forget the restarts that have not begun.")] = False,
) -> None:
    """Begin its process anew once its job has ended; with --all, wait until each is up again before the next."""
    from backend_pool.backends.restart_rows import RestartRows

    if [which is not None, all_, cancel].count(True) != 1 or (labels and not all_):
        raise ConfigError("Name one backend, or give --all (with --label or without), or --cancel.")
    with database(settings_of(context)) as db:
        rows = RestartRows(db)
        if cancel:
            found, words = rows.withdraw_now(), "is not restarted"
        elif which is not None:
            found, words = [rows.ask_now(which)], "is restarted once its job has ended"
        else:
            found, words = rows.ask_all_now(labels or ()), "is restarted when its turn comes"
    for row in found:
        typer.echo(f"Backend {row.name} {words}.")


def _change(context: typer.Context, which: str, change: "Change") -> "Backend":
    from backend_pool.backends.registry import Registry

    with database(settings_of(context)) as db:
        return Registry(db).change_now(which, change)


VERBS: dict[str, Callable[..., None]] = {
    "label": label,
    "drain": drain,
    "activate": activate,
    "disable": disable,
    "note": note,
    "trust": trust,
    "restart": restart,
}
