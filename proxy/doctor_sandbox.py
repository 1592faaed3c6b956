"""The doctor on sessions' confinement: each layer and how to get it, and which backends a session could reach."""

from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from backend_pool.model import Backend
from proxy.base.errors import ConfigError
from proxy.base.settings import Settings
from proxy.finding import Finding, note
from user_sessions.policy import Policy, foreseen, policy_of, python_of
from user_sessions.runtime_options import runtime_options
from user_sessions.runtimes import readable_paths

PORTS = {"http": 80, "https": 443}


def sandbox(settings: Settings) -> Iterator[Finding]:
    """One line per layer."""
    policy = policy_of(settings, settings.runtime)
    try:
        options = runtime_options(settings, settings.runtime)
        policy = policy.with_readable(readable_paths(settings.runtime, options))
    except ConfigError:  # the line of the runtime says so
        options = {}
    for layer in foreseen(policy, settings.data_dir, python_of(options)):
        if layer.active:
            yield Finding("sandbox", f"{layer.name}: {layer.detail}")
        else:
            yield note("sandbox", f"no {layer.name}: {layer.detail}")
    if settings.session_network == "auto" and settings.runtime == "comfyui" and not policy.confinement.network:
        yield note("sandbox", "custom nodes have no network: it cannot be kept to some ports here (session_network)")


def within_reach(settings: Settings, backends: Iterable[Backend]) -> list[Finding]:
    """Backends whose port sessions may connect to: they trust whoever connects, past the queue and its accounts."""
    ports = _open_ports(policy_of(settings, settings.runtime))
    return [
        note(
            "sandbox",
            f"sessions can connect to backend {backend.name} past the queue, on port {port}: move it, or take that "
            "port out of session_network_ports",
        )
        for backend in backends
        if (port := _port(backend.url)) in ports
    ]


def _open_ports(policy: Policy) -> frozenset[int]:
    confinement = policy.confinement
    return frozenset(confinement.ports if confinement.network and confinement.sandbox else ())


def _port(url: str) -> int | None:
    parts = urlsplit(url)
    return parts.port or PORTS.get(parts.scheme)
