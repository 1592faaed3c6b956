"""The doctor on sessions' confinement: each layer and how to get it, and which backends a session could reach."""

from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import urlsplit

from backend_pool.model import Backend
from proxy.base.errors import ConfigError
from proxy.base.settings import Settings
from proxy.doctor.finding import Finding, note
from proxy.doctor.host import SeenHost
from user_sessions.layers import Layer
from user_sessions.policy import foreseen, open_ports, policy_of, python_of
from user_sessions.runtime_options import runtime_options
from user_sessions.runtimes import COMFYUI, readable_paths

PORTS = {"http": 80, "https": 443}


def sandbox(settings: Settings, host: SeenHost | None = None) -> Iterator[Finding]:
    """One line per layer: those in force where a host runs, else those that the settings would have."""
    layers, network, runtime = _in_force(host) if host else _foreseen(settings)
    for layer in layers:
        if layer.active:
            yield Finding("sandbox", f"{layer.name}: {layer.detail}")
        else:
            yield note("sandbox", f"no {layer.name}: {layer.detail}")
    if settings.session_network == "auto" and runtime == COMFYUI and not network:
        yield note("sandbox", "custom nodes have no network: it cannot be kept to some ports here (session_network)")


def _in_force(host: SeenHost) -> tuple[Sequence[Layer], bool, str]:
    return host.layers, bool(host.ports), host.runtime


def _foreseen(settings: Settings) -> tuple[Sequence[Layer], bool, str]:
    policy = policy_of(settings, settings.runtime)
    try:
        options = runtime_options(settings, settings.runtime)
        policy = policy.with_readable(readable_paths(settings.runtime, options))
    except ConfigError:  # the line of the runtime says so
        options = {}
    found = foreseen(policy, settings.data_dir, python_of(options))
    return found, policy.confinement.network, settings.runtime


def within_reach(settings: Settings, backends: Iterable[Backend], host: SeenHost | None = None) -> list[Finding]:
    """Backends whose port sessions may connect to: they trust whoever connects, past the queue and its accounts."""
    ports = host.ports if host else open_ports(policy_of(settings, settings.runtime).confinement)
    return [
        note(
            "sandbox",
            f"sessions can connect to backend {backend.name} past the queue, on port {port}: move it, or take that "
            "port out of session_network_ports",
        )
        for backend in backends
        if (port := _port(backend.url)) in ports
    ]


def _port(url: str) -> int | None:
    parts = urlsplit(url)
    return parts.port or PORTS.get(parts.scheme)
