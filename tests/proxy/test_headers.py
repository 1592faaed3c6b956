"""The header rules, as tables."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.access.origin import Scope, client_address, is_https, same_origin
from proxy.forward import headers
from proxy.forward.headers import foreign_cookies, private_cache_control, response_headers


def scope(*given_headers: tuple[str, str], scheme: str = "http", **more: Any) -> Scope:
    pairs = [(name.encode(), value.encode()) for name, value in given_headers]
    return {"headers": pairs, "scheme": scheme, "client": ("10.0.0.9", 5), "path": "/", "query_string": b""} | more


@pytest.mark.parametrize(
    ("host", "origin", "scheme", "expected"),
    [
        ("studio.example", "https://studio.example", "https", True),
        ("studio.example", "http://studio.example", "https", True),  # websocket-client on wss
        ("studio.example", "https://studio.example", "http", True),  # TLS ends at a proxy that says nothing
        ("studio.example:443", "https://studio.example", "https", True),
        ("studio.example", "https://studio.example:443", "https", True),
        ("STUDIO.example", "https://studio.EXAMPLE", "https", True),
        ("127.0.0.1:8188", "http://127.0.0.1:8188", "http", True),
        ("[::1]:8188", "http://[::1]:8188", "http", True),
        ("127.0.0.1:8188", "http://localhost:8188", "http", False),
        ("127.0.0.1:8188", "http://127.0.0.1:9000", "http", False),
        ("127.0.0.1:8188", "http://127.0.0.1", "http", False),
        ("studio.example", "https://studio.example.evil.example", "https", False),
        ("studio.example", "https://evil.example", "https", False),
        ("studio.example", "https://studio.example@evil.example", "https", False),
        ("studio.example", "https://evil.example@studio.example", "https", False),
        ("studio.example", "null", "https", False),
        ("studio.example", "", "https", False),
        ("studio.example", "file://", "https", False),
        ("studio.example", "chrome-extension://studio.example", "https", False),
        ("studio.example", "https://studio.example:bad", "https", False),
        ("", "https://studio.example", "https", False),
    ],
)
def test_same_origin(host: str, origin: str, scheme: str, expected: bool) -> None:
    assert same_origin(scope(("host", host), ("origin", origin), scheme=scheme), ()) is expected


@pytest.mark.parametrize(
    ("given_headers", "expected"),
    [
        ([], True),  # not a browser
        ([("sec-fetch-site", "same-origin")], True),
        ([("sec-fetch-site", "none")], True),
        ([("sec-fetch-site", "same-site")], False),
        ([("sec-fetch-site", "cross-site")], False),
        # A proxy before us that rewrites Host: the browser's own word counts.
        ([("origin", "https://studio.example"), ("host", "10.0.0.5:8188"), ("sec-fetch-site", "same-origin")], True),
        ([("origin", "https://h"), ("host", "h"), ("sec-fetch-site", "cross-site")], False),
        ([("origin", "https://friend.example"), ("host", "h"), ("sec-fetch-site", "cross-site")], True),
        ([("origin", "https://FRIEND.example"), ("host", "h")], True),
        ([("origin", "https://friend.example.evil"), ("host", "h")], False),
        ([("origin", "http://friend.example"), ("host", "h")], False),
        ([("origin", "https://h"), ("origin", "https://h"), ("host", "h")], False),
        ([("origin", "https://h"), ("host", "h"), ("host", "h")], False),
        ([("origin", "https://h"), ("host", "h"), ("sec-fetch-site", "none"), ("sec-fetch-site", "none")], False),
        ([("origin", "https://h")], False),
    ],
)
def test_same_origin_with_fetch_metadata_and_allowed(given_headers: list[tuple[str, str]], expected: bool) -> None:
    assert same_origin(scope(*given_headers), ["https://friend.example/"]) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"a=1", b"a=1"),
        (b"comfy_cluster_login=x", b""),
        (b"a=1; comfy_cluster_login=x; b=2", b"a=1; b=2"),
        (b"a=1;comfy_cluster_login=x;b=2", b"a=1; b=2"),
        (b"__Host-comfy_cluster_login=x; a=1", b"a=1"),
        (b"__Secure-comfy_cluster_login=x", b""),
        (b" comfy_cluster_login =x; a=1", b"a=1"),
        (b"a=comfy_cluster_login", b"a=comfy_cluster_login"),
        (b"my_comfy_cluster_x=1", b"my_comfy_cluster_x=1"),
        (b"comfy_cluster_valueless", b""),
        (b"", b""),
    ],
)
def test_foreign_cookies(value: bytes, expected: bytes) -> None:
    assert foreign_cookies(value) == expected


@given(st.lists(st.sampled_from([b"comfy_cluster_login=s", b"__Host-comfy_cluster_l=s", b"a=1", b" ", b"=", b"x y"])))
def test_our_cookies_never_survive(parts: list[bytes]) -> None:
    assert b"=s" not in foreign_cookies(b";".join(parts))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", b"private"),
        (b"public, max-age=86400", b"private, max-age=86400"),
        (b"PUBLIC,s-maxage=10 , immutable", b"private, immutable"),
        (b"no-store", b"private, no-store"),
        (b"private", b"private"),
        (b'private="x", no-cache', b"private, no-cache"),
        (b",,", b"private"),
    ],
)
def test_private_cache_control(value: bytes, expected: bytes) -> None:
    assert private_cache_control(value) == expected


def test_several_cache_control_headers_become_one() -> None:
    out = response_headers(
        [(b"Cache-Control", b"public"), (b"cache-control", b"max-age=5"), (b"CDN-Cache-Control", b"public")],
        bodiless=False,
        private=True,
    )
    assert out == [(b"cache-control", b"private, max-age=5"), (b"vary", b"Cookie")]


@pytest.mark.parametrize(
    ("raw", "query", "expected"),
    [(b"/a%2Fb", b"", b"/a%2Fb"), (b"/a", b"x=%20&y", b"/a?x=%20&y"), (None, b"q", b"/caf%C3%A9%20?q")],
)
def test_target(raw: bytes | None, query: bytes, expected: bytes) -> None:
    assert headers.target({"raw_path": raw, "path": "/café ", "query_string": query}) == expected


def test_address_and_scheme() -> None:
    assert client_address(scope()) == "10.0.0.9"
    assert client_address(scope(client=None)) == ""
    assert [is_https(scope(scheme=one)) for one in ("http", "ws", "https", "wss")] == [False, False, True, True]


@pytest.mark.parametrize("raw", [b"relative", b"", b"*", b"/a b", b"/a\r\nX: y", b"/caf\xc3\xa9", b"/\x7f"])
def test_targets_that_cannot_be_forwarded(raw: bytes) -> None:
    with pytest.raises(ValueError):
        headers.target({"raw_path": raw, "path": "", "query_string": b""})
