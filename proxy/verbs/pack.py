"""The verbs of the worker pack: put it into a ComfyUI, take it out, and the tokens that workers register with.

`install`, `uninstall` and `status` work on a ComfyUI's directory and need neither a server nor its data: that may be on
another machine. The others work on the data directory.
"""

from pathlib import Path
from typing import Annotated

import typer

from proxy.base.errors import ConfigError
from proxy.verbs.data import database, settings_of

pack_app = typer.Typer(no_args_is_help=True, help="The worker pack: backends that register themselves.")

ComfyOption = Annotated[Path, typer.Option("--comfyui", help="Directory of the ComfyUI.")]
NodesOption = Annotated[
    Path | None, typer.Option("--custom-nodes", help="Its custom_nodes directory, when that is elsewhere.")
]


@pack_app.command("install")
def pack_install(  # noqa: PLR0917 - one parameter per flag
    comfyui: ComfyOption,
    server: Annotated[str | None, typer.Option(help="URL of the cluster proxy.")] = None,
    token: Annotated[
        str | None, typer.Option(envvar="COMFY_CLUSTER_TOKEN", help="Worker token; rather in the variable.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="How it is called; default: the machine's name.")] = None,
    advertise: Annotated[
        str | None, typer.Option(help="URL at which the proxy reaches it; default: where its heartbeats come from.")
    ] = None,
    shared_data: Annotated[
        Path | None, typer.Option("--shared-data", help="The server's `users` directory as mounted here.")
    ] = None,
    open_: Annotated[
        bool | None, typer.Option("--open/--closed", help="Whether its own pages answer while no job runs.")
    ] = None,
    custom_nodes: NodesOption = None,
) -> None:
    """Put the pack into a ComfyUI, or bring it up to date; what is not given stays as it was."""
    from backend_pool.workers.install import FOLDER, Wishes, comfyui_version, install

    version = comfyui_version(comfyui)
    folder = custom_nodes or comfyui / "custom_nodes"
    config = install(folder, Wishes(server, token, name, advertise, shared_data, open_))
    typer.echo(f"The worker pack is in {folder / FOLDER} (ComfyUI {version}).")
    typer.echo(f"Restart that ComfyUI: it registers with {config.server} as {config.name}.")


@pack_app.command("uninstall")
def pack_uninstall(comfyui: ComfyOption, custom_nodes: NodesOption = None) -> None:
    """Take the pack out of a ComfyUI; it stays a stock one after its next start."""
    from backend_pool.workers.install import uninstall

    folder = custom_nodes or comfyui / "custom_nodes"
    if not uninstall(folder):
        raise ConfigError(f"There is no worker pack in {folder}.")
    typer.echo("The worker pack is removed. Restart that ComfyUI.")


@pack_app.command("status")
def pack_status(comfyui: ComfyOption, custom_nodes: NodesOption = None) -> None:
    """What is installed in a ComfyUI; exit code 1 when something must be done."""
    from backend_pool.workers.install import comfyui_version, installed, is_current

    try:
        unknown, said = None, comfyui_version(comfyui)
    except ConfigError as error:
        unknown, said = error, str(error)
    found = installed(custom_nodes or comfyui / "custom_nodes")
    if unknown is not None and found is None:
        raise unknown
    typer.echo(f"comfyui\t{said}")
    if found is None:
        typer.echo("pack\tnot installed")
        raise typer.Exit(1)
    typer.echo(f"pack\t{found.version}" + ("" if is_current(found) else "\tof another version: install it again"))
    if found.config is None:
        typer.echo(f"settings\t{found.problem}")
        raise typer.Exit(1)
    config = found.config
    for key in ("server", "name", "worker_id", "advertise", "shared_data"):
        typer.echo(f"{key}\t{getattr(config, key) or '-'}")
    typer.echo(f"pages\t{'open between jobs' if config.open else 'closed'}")
    if unknown is not None:
        typer.echo("state\toff: it does nothing in this ComfyUI. Bring the cluster up to date, or uninstall the pack.")
    raise typer.Exit(0 if is_current(found) and unknown is None else 1)


@pack_app.command("token")
def pack_token(context: typer.Context, name: Annotated[str, typer.Option(help="What it is for.")] = "worker") -> None:
    """Make a worker token and print it, and nothing else. It may register backends, and nothing more."""
    from backend_pool.workers.tokens import create_now

    with database(settings_of(context), create=True) as db:
        typer.echo(create_now(db, name))


@pack_app.command("tokens")
def pack_tokens(context: typer.Context) -> None:
    """Worker tokens that count: id, name, first characters, backends registered with it."""
    from backend_pool.workers.tokens import listing_now

    with database(settings_of(context)) as db:
        for token, backends in listing_now(db):
            typer.echo("\t".join([str(token.id), token.name, f"{token.prefix}...", ", ".join(backends)]))


@pack_app.command("revoke")
def pack_revoke(
    context: typer.Context,
    which: Annotated[str, typer.Argument(metavar="NAME_OR_ID", help="As `worker-pack tokens` shows it.")],
) -> None:
    """Revoke a worker token: its backends leave the pool, and their secrets change."""
    from backend_pool.workers.tokens import revoke_now

    with database(settings_of(context)) as db:
        token, backends = revoke_now(db, which)
    gone = f" Gone with it: {', '.join(backends)}." if backends else ""
    typer.echo(f"Worker token {token.name} revoked.{gone}")
