"""The options a runtime is given, made from the settings on the operator's side: what is wrong shows before a start."""

from proxy.base.settings import Settings
from user_sessions.comfyui.install import Install, find_install
from user_sessions.comfyui.options import Options, check_arguments
from user_sessions.runtimes import COMFYUI, FRONTEND_CACHE


def runtime_options(settings: Settings, runtime: str) -> dict[str, str]:
    """For `make_runtime`. Raises ConfigError saying what to set."""
    if runtime == COMFYUI:
        return comfyui_options(settings, find_install(settings.comfyui, settings.comfyui_python)).to_text()
    return {FRONTEND_CACHE: str(settings.data_dir.absolute() / "cache" / "frontend")}


def comfyui_options(settings: Settings, install: Install) -> Options:
    """For that install. Raises ConfigError."""
    arguments = tuple(settings.comfyui_args)
    check_arguments(arguments)
    return Options(
        directory=install.directory,
        python=install.python,
        version=install.version,
        data=settings.data_dir.absolute(),
        arguments=arguments,
        user_nodes=settings.user_custom_nodes,
        import_timeout_s=settings.node_import_timeout_s,
    )
