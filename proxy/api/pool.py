"""The part of the API's table about backends."""

from functools import partial

from proxy.api import backends as api_backends
from proxy.api import offers as api_offers
from proxy.api.offers import Comparison
from proxy.api.operations import Operation
from proxy.bodies.backends import BackendChange, BackendInfo, BackendList, NewBackend, RestartAll
from proxy.bodies.models import Done

_admin = partial(Operation, admin=True)
ALL = "/admin/backends"
ONE = "/admin/backends/{id}"

POOL: tuple[Operation, ...] = (
    _admin("GET", ALL, "All backends", api_backends.backends, BackendList),
    _admin("POST", ALL, "Add a backend", api_backends.add_backend, BackendInfo, NewBackend, status=201),
    _admin("GET", f"{ALL}/compare", "How backends differ", api_offers.drift, Comparison),
    _admin("POST", f"{ALL}/restart", "Restart backends one by one", api_backends.restart_all, BackendList, RestartAll),
    _admin("DELETE", f"{ALL}/restart", "Forget waiting restarts", api_backends.cancel_restarts, BackendList),
    _admin("PATCH", ONE, "Change a backend", api_backends.change_backend, BackendInfo, BackendChange),
    _admin("DELETE", ONE, "Remove a backend", api_backends.remove_backend, Done),
    _admin("POST", f"{ONE}/refresh", "Read a backend's nodes and models again", api_offers.refresh, BackendInfo),
    _admin("POST", f"{ONE}/free", "Unload a backend's models", api_backends.free_backend, Done),
    _admin("POST", f"{ONE}/restart", "Restart a backend", api_backends.restart_backend, BackendInfo),
    _admin("POST", f"{ONE}/trust", "End a backend's quarantine", api_backends.trust_backend, BackendInfo),
)
