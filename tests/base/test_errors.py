"""The exception tree: statuses, and the JSON shape that ComfyUI's clients survive."""

import pytest

from proxy.base import errors
from proxy.base.errors import CallerError, ClusterError, ConfigError, DatabaseUnavailable, Unavailable

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ClusterError)]


@pytest.mark.parametrize("kind", ALL)
def test_each_has_a_status_that_fits_its_branch(kind: type[ClusterError]) -> None:
    if issubclass(kind, CallerError):
        assert 400 <= kind.status < 500
    else:
        assert 500 <= kind.status < 600
    assert sum(issubclass(kind, branch) for branch in (CallerError, Unavailable, ConfigError)) <= 1
    assert kind is ClusterError or kind.__doc__


@pytest.mark.parametrize("kind", ALL)
def test_the_body_is_an_object_in_an_object(kind: type[ClusterError]) -> None:
    body = kind("It happened. Do this.", "more").body()
    details = "" if kind is DatabaseUnavailable else "more"  # the driver's words name hosts
    assert body == {
        "error": {"type": kind.kind, "message": "It happened. Do this.", "details": details, "extra_info": {}}
    }
