"""The command `comfy-cluster`. Every verb works on the data directory, most of them while the server runs.

Exit codes: 0 done, 1 it failed, 2 the command or its settings are wrong (do not restart). Never a stack trace.
"""

import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from proxy.base import logs
from proxy.base.errors import ClusterError, ConfigError
from proxy.verbs.agent import agent
from proxy.verbs.data import Common, database, settings_of
from proxy.verbs.groups import group_app, user_group
from proxy.verbs.options import ComfyUIPython, ConfigOption, DataDirOption, Gpus, LogFormat, Runtime, SessionComfyUI
from proxy.verbs.pack import pack_app
from proxy.verbs.pool import backend_app, session_app
from proxy.verbs.reservations import reservation_app
from proxy.verbs.usage import usage

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Many people share a few GPUs through the ComfyUI WebUI.",
)
UserName = Annotated[str, typer.Argument(metavar="NAME", help="The user's name.")]
user_app = typer.Typer(no_args_is_help=True, help="Accounts.")
token_app = typer.Typer(no_args_is_help=True, help="API tokens.")
app.add_typer(user_app, name="user")
app.add_typer(token_app, name="token")
app.add_typer(group_app, name="group")
app.add_typer(reservation_app, name="reservation")
app.add_typer(backend_app, name="backend")
app.add_typer(session_app, name="session")
app.add_typer(pack_app, name="worker-pack")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"comfy-cluster {metadata.version('comfyui-cluster-proxy')}")
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options that every verb takes."""
    context.obj = Common(config, data_dir)


@app.command()
def up(  # noqa: PLR0917 - one parameter per flag
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one.")] = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    backend: Annotated[list[str] | None, typer.Option(help="URL of a ComfyUI to run jobs on; repeatable.")] = None,
    engines: Annotated[int | None, typer.Option(help="Embedded engines to start (no GPU needed).")] = None,
    gpus: Gpus = None,
    runtime: Runtime = None,
    comfyui: SessionComfyUI = None,
    comfyui_python: ComfyUIPython = None,
    log_format: LogFormat = None,
) -> None:
    """Start the server with all it needs; Ctrl-C or SIGTERM stops it and what it started."""
    settings = settings_of(
        context,
        config=config,
        data_dir=data_dir,
        host=host,
        port=port,
        backends=backend or None,
        engines=engines,
        gpus=gpus,
        runtime=runtime,
        comfyui=comfyui,
        comfyui_python=comfyui_python,
        log_format=log_format,
    )
    # Imported here: the other verbs answer at once without loading the server.
    from proxy.up import run_server
    from user_sessions.runtime_options import runtime_options

    logs.configure(settings.log_level, settings.log_format)
    runtime_options(settings, settings.runtime)  # what sessions cannot run is said before anything is made
    with database(settings, create=True) as db:
        run_server(settings, db)


@app.command()
def demo(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="Port to listen on; the next free one when it is taken.")] = 8188,
    engines: Annotated[int, typer.Option(help="Embedded engines to start.")] = 2,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "warning",
) -> None:
    """Start a server to look at, on this machine only, with three logins; keeps its data in .demo, or --data-dir."""
    from proxy.demo import demo_settings, run_demo

    shared: Common = context.obj
    settings = demo_settings(shared.data_dir or Path(".demo"), port, engines, log_level, shared.config)
    logs.configure(settings.log_level, settings.log_format)
    with database(settings, create=True) as db:
        run_demo(settings, db)


app.command()(agent)


@user_app.command("add")
def user_add(
    context: typer.Context,
    name: UserName,
    admin: Annotated[bool, typer.Option("--admin", help="May manage everything.")] = False,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")] = False,
) -> None:
    """Create an account; without --password-stdin a password is generated and printed."""
    from proxy.access.accounts import add_now
    from proxy.access.passwords import generate

    password = _read_password() if password_stdin else generate()
    with database(settings_of(context), create=True) as db:
        user = add_now(db, name, password, is_admin=admin)
    typer.echo(f"User {user.name} created." if password_stdin else f"User {user.name} created. Password: {password}")


@user_app.command("list")
def user_list(context: typer.Context) -> None:
    """All accounts: name, directory, notes (admin, disabled)."""
    from proxy.access.accounts import everyone

    with database(settings_of(context)) as db:
        for user in db.read_now(everyone):
            notes = [note for note, holds in (("admin", user.is_admin), ("disabled", user.disabled)) if holds]
            typer.echo("\t".join([user.name, user.slug, ",".join(notes)]))


@user_app.command("password")
def user_password(context: typer.Context, name: UserName) -> None:
    """Set a new password, read from stdin, and end the user's logins."""
    from proxy.access.access import set_password_now

    password = _read_password()
    with database(settings_of(context)) as db:
        set_password_now(db, name, password)
    typer.echo(f"Password of {name} changed.")


@token_app.command("create")
def token_create(
    context: typer.Context,
    user: Annotated[str, typer.Argument(metavar="USER", help="Whom it acts as.")],
    name: Annotated[str, typer.Option(help="What it is for.")] = "cli",
) -> None:
    """Make an API token and print it, and nothing else; it cannot be shown again."""
    from proxy.access.tokens import create_now

    with database(settings_of(context)) as db:
        typer.echo(create_now(db, user, name))


user_app.command("group")(user_group)
app.command("usage")(usage)


@app.command()
def doctor(  # noqa: PLR0917 - one parameter per flag
    context: typer.Context,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    gpus: Gpus = None,
    runtime: Runtime = None,
    comfyui: SessionComfyUI = None,
    comfyui_python: ComfyUIPython = None,
) -> None:
    """Check what this machine offers and what stands in the way; exit code 1 when something must be done."""
    from proxy.doctor.checks import examine

    settings = settings_of(
        context,
        config=config,
        data_dir=data_dir,
        gpus=gpus,
        runtime=runtime,
        comfyui=comfyui,
        comfyui_python=comfyui_python,
    )
    findings = examine(settings, config or context.obj.config)
    for finding in findings:
        typer.echo(f"{finding.mark}  {finding.what}: {finding.detail}")
    raise typer.Exit(1 if any(finding.bad for finding in findings) else 0)


@app.command()
def relay(
    server: Annotated[str, typer.Option(help="URL of the cluster proxy.")],
    token: Annotated[
        str,
        typer.Option(envvar="COMFY_CLUSTER_TOKEN", help="API token to add to every request; rather in the variable."),
    ],
    listen: Annotated[str, typer.Option(help="HOST:PORT to serve clients on.")] = "127.0.0.1:8188",
    allow_network: Annotated[bool, typer.Option(help="Let other machines use it, and with it your account.")] = False,
) -> None:
    """Serve clients that cannot send a token: what comes in here goes to the server with the token added."""
    from proxy.verbs.relay import run_relay

    logs.configure("info", "text")
    run_relay(listen, server, token, allow_network=allow_network)


@app.command("session-host")
def session_host(context: typer.Context, data_dir: DataDirOption = None) -> None:
    """Run the session host as a service of its own, which restarts and upgrades of the proxy leave alone."""
    import os

    from user_sessions.host_process import HostProcess

    settings = settings_of(context, data_dir=data_dir)
    with database(settings, create=True):
        command = HostProcess(settings).command()
    os.execv(command[0], command)  # noqa: S606 - our own program, no shell


@app.command()
def bench(  # noqa: PLR0917 - one parameter per flag
    jobs: Annotated[int, typer.Option(min=1, help="Jobs measured each way.")] = 100,
    backend: Annotated[str | None, typer.Option(help="URL of a ComfyUI to measure with; default: an engine.")] = None,
    forward_seconds: Annotated[float, typer.Option(min=0, help="Length of the forwarding part per proxy.")] = 12.0,
    pack: Annotated[bool, typer.Option("--pack", help="Also through an engine with the worker pack.")] = False,
    load: Annotated[
        bool, typer.Option("--load", help="Instead: many users on many engines, each way of placing.")
    ] = False,
    placement: Annotated[
        bool, typer.Option("--placement", help="Instead: the rules of the queue on a virtual clock, and their cost.")
    ] = False,
    users: Annotated[int, typer.Option(min=8, help="Users of the load.")] = 30,
    engines: Annotated[int, typer.Option(min=1, help="Engines of the load.")] = 8,
    load_jobs: Annotated[int, typer.Option(min=50, help="Jobs of the load.")] = 600,
    seed: Annotated[int, typer.Option(help="The same load again for the same number.")] = 1,
    queued: Annotated[int, typer.Option(min=0, help="Jobs of the user behind whom another comes; 0: without.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures of the load as JSON alone.")] = False,
) -> None:
    """Measure what a job and a forwarded request cost here, as ratios within one run. Starts its own server."""
    from proxy.bench.measure import run_bench, run_load
    from proxy.bench.placement import report
    from proxy.bench.plan import Load

    if placement:
        typer.echo(report())
        return
    if load:
        run_load(Load(users, users // 6, engines, load_jobs, seed), queued=queued, as_json=as_json)
        return
    run_bench(jobs=jobs, backend=backend, forward_seconds=forward_seconds, pack=pack)


def main() -> NoReturn:
    """Entry point: errors of ours become one line and an exit code."""
    try:
        app()
    except ConfigError as error:
        _say(error)
        sys.exit(2)
    except ClusterError as error:
        _say(error)
        sys.exit(1)
    except OSError as error:  # a full disk, a file of somebody else
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)
    sys.exit(0)


def _read_password() -> str:
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise ConfigError("No password came on standard input.")
    return password


def _say(error: ClusterError) -> None:
    details = f" ({error.details})" if error.details else ""
    typer.echo(f"Error: {error.message}{details}", err=True)
