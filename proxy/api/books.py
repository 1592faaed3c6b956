"""The part of the API's table about groups, reservations and usage."""

from functools import partial

from proxy.api import groups as api_groups
from proxy.api import usage as api_usage
from proxy.api.operations import Operation
from proxy.api.usage import OF, QUERY, WORDS
from proxy.bodies.books import (
    GroupChange,
    GroupInfo,
    GroupList,
    NewGroup,
    NewMember,
    NewReservation,
    ReservationInfo,
    ReservationList,
    ShareChange,
    ShareInfo,
    UsageReport,
)
from proxy.bodies.models import Done

_admin = partial(Operation, admin=True)

BOOKS: tuple[Operation, ...] = (
    Operation("GET", "/share", "What I may take of the pool", api_groups.share, ShareInfo),
    Operation("PATCH", "/share", "Choose my jobs' lane", api_groups.change_share, ShareInfo, ShareChange),
    Operation("GET", "/usage", "What I used", api_usage.own_usage, UsageReport, query=QUERY, words=WORDS),
    Operation("GET", "/usage.csv", "What I used, as CSV", api_usage.own_usage_csv, None, query=QUERY, words=WORDS),
    Operation("GET", "/reservations", "Backends that are reserved", api_groups.reservations, ReservationList),
    _admin("GET", "/admin/groups", "All groups", api_groups.groups, GroupList),
    _admin("POST", "/admin/groups", "Create a group", api_groups.create_group, GroupInfo, NewGroup, status=201),
    _admin("PATCH", "/admin/groups/{id}", "Change a group", api_groups.change_group, GroupInfo, GroupChange),
    _admin("DELETE", "/admin/groups/{id}", "Remove a group", api_groups.remove_group, Done),
    _admin("POST", "/admin/groups/{id}/members", "Put a user into a group", api_groups.add_member, Done, NewMember),
    _admin(
        "DELETE", "/admin/groups/{id}/members/{user_id}", "Take a user out of a group", api_groups.remove_member, Done
    ),
    _admin(
        "POST",
        "/admin/reservations",
        "Reserve backends for a group",
        api_groups.create_reservation,
        ReservationInfo,
        NewReservation,
        status=201,
    ),
    _admin("DELETE", "/admin/reservations/{id}", "Remove a reservation", api_groups.remove_reservation, Done),
    _admin("GET", "/admin/usage", "What everybody used", api_usage.usage, UsageReport, query=QUERY, words=WORDS + OF),
    _admin(
        "GET",
        "/admin/usage.csv",
        "What everybody used, as CSV",
        api_usage.usage_csv,
        None,
        query=QUERY,
        words=WORDS + OF,
    ),
)
