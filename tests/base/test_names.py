"""Names that go into paths, sockets and URLs."""

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.base.names import new_id, new_secret, slug

LONGEST = 24 + 1 + 8


@pytest.mark.parametrize(
    ("name", "readable"),
    [
        ("ann", "ann"),
        ("Ann Lee", "ann-lee"),
        ("../../etc", "etc"),
        ("李雷", "user"),
        ("a" * 60, "a" * 24),
        ("x" * 23 + " y", "x" * 23),
    ],
)
def test_slugs_are_readable(name: str, readable: str) -> None:
    assert re.fullmatch(re.escape(readable) + "-[0-9a-f]{8}", slug(name))


@given(st.text(max_size=80))
def test_slugs_are_safe_whatever_the_name(name: str) -> None:
    made = slug(name)
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*-[0-9a-f]{8}", made)
    assert len(made) <= LONGEST
    assert made == slug(name)


def test_names_that_look_alike_have_different_slugs() -> None:
    assert len({slug(name) for name in ("ann", "Ann", "ann!", "ann ", "änn")}) == 5


def test_ids_are_canonical_and_secrets_are_url_safe() -> None:
    made = new_id()
    assert str(uuid.UUID(made)) == made
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", new_secret())
    assert new_secret() != new_secret()
