"""Every way to present a token is found, and nothing of it is left in what goes on."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Scope

from proxy.access.credentials import IN_ADDRESS, Credential, extract
from proxy.base.errors import BadInput

T = "cct_aB3-._~x"
Pairs = list[tuple[bytes, bytes]]


def scope(path: str = "/prompt", query: str = "", headers: Pairs | None = None, raw: bytes | None = None) -> Scope:
    return {
        "type": "http",
        "path": path,
        "raw_path": path.encode() if raw is None else raw,
        "query_string": query.encode(),
        "headers": headers or [],
    }


def basic(text: str) -> bytes:
    return b"Basic " + base64.b64encode(text.encode())


@pytest.mark.parametrize(
    ("name", "value", "tokens"),
    [
        (b"authorization", f"Bearer {T}".encode(), [T]),
        (b"authorization", f"bearer   {T} ".encode(), [T]),
        (b"authorization", T.encode(), [T]),
        (b"authorization", basic(f"anyone:{T}"), [T, "anyone"]),
        (b"authorization", basic(f"{T}:"), [T]),
        (b"authorization", basic(T), [T]),
        (b"authorization", basic(f"{T}:not a token"), [T]),
        (b"x-api-key", T.encode(), [T]),
        (b"authorization", b"", []),
        (b"authorization", b"Bearer", ["Bearer"]),
        (b"authorization", b"Bearer not a token", []),
        (b"authorization", b"Basic !!!", []),
        (b"authorization", b"Basic " + base64.b64encode(b"\xff\xfe:x"), []),
        (b"authorization", b"Digest username=x", []),
        (b"authorization", b"\xff\x00", []),
        (b"authorization", b"x" * 5000, []),
    ],
)
def test_headers(name: bytes, value: bytes, tokens: list[str]) -> None:
    found = extract(scope(headers=[(b"accept", b"*/*"), (name, value), (b"x-other", b"kept")]))
    assert [credential.value for credential in found.credentials] == tokens
    assert found.scope["headers"] == [(b"accept", b"*/*"), (b"x-other", b"kept")]


@pytest.mark.parametrize(
    ("query", "tokens", "left"),
    [
        (f"token={T}", [T], ""),
        (f"a=1&token={T}&b=%2F%20x", [T], "a=1&b=%2F%20x"),
        (f"token={T}&token=second", [T, "second"], ""),
        (f"%74oken={T}", [T], ""),
        ("token=cct%5Fa", ["cct_a"], ""),
        ("token=", [], ""),
        ("token", [], ""),
        ("token=not+a+token", [], ""),
        ("tokens=x&mytoken=y", [], "tokens=x&mytoken=y"),
        ("filename=a%2Fb.png&rand=0.1", [], "filename=a%2Fb.png&rand=0.1"),
    ],
)
def test_query(query: str, tokens: list[str], left: str) -> None:
    found = extract(scope("/view", query))
    assert [credential.value for credential in found.credentials] == tokens
    assert found.scope["query_string"] == left.encode()
    assert found.scope["path"] == "/view"


@pytest.mark.parametrize(
    ("path", "raw", "left", "raw_left"),
    [
        (f"/t/{T}/prompt", f"/t/{T}/prompt", "/prompt", "/prompt"),
        (f"/t/{T}/", f"/t/{T}/", "/", "/"),
        (f"/t/{T}", f"/t/{T}", "/", "/"),
        (f"/t/{T}/api/userdata/a/b", f"/t/{T}/api/userdata/a%2Fb", "/api/userdata/a/b", "/api/userdata/a%2Fb"),
        (f"/t/{T}//x", f"/t/{T}//x", "//x", "//x"),
        (f"/t/{T}/Grüße", f"/t/{T}/Gr%C3%BC%C3%9Fe", "/Grüße", "/Gr%C3%BC%C3%9Fe"),
        (f"/t/{T}/t/second/x", f"/t/{T}/t/second/x", "/t/second/x", "/t/second/x"),
    ],
)
def test_path(path: str, raw: str, left: str, raw_left: str) -> None:
    found = extract(scope(path, raw=raw.encode()))
    assert found.credentials == (Credential("token", T),)
    assert (found.scope["path"], found.scope["raw_path"]) == (left, raw_left.encode())
    assert found.scope[IN_ADDRESS] is True


@pytest.mark.parametrize("path", ["/t", "/t/", "/t//x", "/t/a b/x", "/tt/x/y", "/api/t/x/y", "/"])
def test_other_paths_stay(path: str) -> None:
    request = scope(path)
    found = extract(request)
    assert found.credentials == () and found.scope is request


def test_an_escaped_slash_after_the_token_is_refused() -> None:
    with pytest.raises(BadInput, match="malformed"):
        extract(scope(f"/t/{T}/x", raw=f"/t/{T}%2Fx".encode()))


def test_cookie_comes_last_and_stays_for_the_relay_to_strip() -> None:
    headers = [(b"cookie", b"a=b; comfy_cluster_login=id.sig; c=d"), (b"x-api-key", T.encode())]
    found = extract(scope(headers=headers))
    assert found.credentials == (Credential("token", T), Credential("cookie", "id.sig"))
    assert found.scope["headers"] == headers[:1]


@pytest.mark.parametrize(
    "cookie", [b"", b"comfy_cluster_login", b"comfy_cluster_login=", b"xcomfy_cluster_login=a", b";;="]
)
def test_no_cookie(cookie: bytes) -> None:
    assert extract(scope(headers=[(b"cookie", cookie)])).credentials == ()


def test_the_referer_goes_when_the_address_had_a_token() -> None:
    headers = [(b"referer", f"http://h/t/{T}/".encode()), (b"accept", b"*/*")]
    assert extract(scope(f"/t/{T}/view", headers=headers)).scope["headers"] == [(b"accept", b"*/*")]
    assert extract(scope("/view", f"token={T}", headers)).scope["headers"] == [(b"accept", b"*/*")]
    assert extract(scope("/view", headers=headers)).scope["headers"] == headers


def test_a_plain_request_is_not_copied() -> None:
    request = scope(headers=[(b"cookie", b"comfy_cluster_login=x")])
    assert extract(request).scope is request


def test_the_given_scope_is_not_changed() -> None:
    request = scope(f"/t/{T}/x", f"token={T}", [(b"authorization", T.encode())])
    before: dict[str, Any] = {**request, "headers": list(request["headers"])}
    extract(request)
    assert request == before


@given(st.binary(max_size=60), st.binary(max_size=60), st.text(max_size=30))
def test_nothing_raises_and_no_token_stays(header: bytes, query: bytes, path: str) -> None:
    request: Scope = {
        **scope("/" + path.replace("t/", ""), headers=[(b"authorization", header)]),
        "query_string": query,
    }
    cleaned = extract(request).scope
    assert not any(name == b"authorization" for name, _ in cleaned["headers"])
    assert extract(cleaned).credentials == ()
