"""`comfy-cluster agent`: the verb for a GPU machine, which has neither a database nor accounts."""

from pathlib import Path
from typing import Annotated

import typer

from proxy.base import logs
from proxy.verbs.data import settings_of
from proxy.verbs.options import ComfyUIPython, ConfigOption, DataDirOption, Gpus, LogFormat


def agent(  # noqa: PLR0917 - one parameter per flag
    context: typer.Context,
    server: Annotated[str, typer.Option(help="URL of the cluster proxy.")],
    token: Annotated[
        str,
        typer.Option(envvar="COMFY_CLUSTER_TOKEN", help="Worker token (worker-pack token); rather in the variable."),
    ],
    comfyui: Annotated[Path | None, typer.Option(help="Directory of the ComfyUI to run.")] = None,
    comfyui_python: ComfyUIPython = None,
    gpus: Gpus = None,
    engines: Annotated[int | None, typer.Option(help="Embedded engines instead, to try it without a GPU.")] = None,
    name: Annotated[str | None, typer.Option(help="How this machine is called; default: its name.")] = None,
    advertise: Annotated[
        str | None,
        typer.Option(help="Host at which the proxy reaches this machine; default: where the agent calls from."),
    ] = None,
    listen: Annotated[str, typer.Option(help="Address the ComfyUIs listen on.")] = "0.0.0.0",  # noqa: S104 - a GPU node
    shared_data: Annotated[
        Path | None, typer.Option("--shared-data", help="The server's `users` directory as mounted here.")
    ] = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    log_format: LogFormat = None,
) -> None:
    """Keep one ComfyUI per GPU of this machine for a server on another one; Ctrl-C or SIGTERM ends them."""
    from proxy.agent_process import Machine, run_agent

    settings = settings_of(
        context,
        config=config,
        data_dir=data_dir,
        gpus=gpus,
        engines=engines,
        backend_comfyui=comfyui,
        backend_python=comfyui_python,
        log_format=log_format,
    )
    logs.configure(settings.log_level, settings.log_format)
    run_agent(settings, Machine(server, token, name, advertise, listen, shared_data))
