"""Who sends a request: cookies and tokens, revocation, disabled users; on a real database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.types import Message

from proxy.access import auth
from proxy.access.access import Access
from proxy.access.auth import no_referrer
from proxy.access.cache import AccessCache, Identity
from proxy.access.credentials import extract
from proxy.access.logins import Login
from proxy.access.tokens import Token, create_now
from proxy.base.database import Database
from proxy.base.errors import BadInput, NotAuthenticated, NotFound
from tests.proxy.access_fixture import PASSWORD, opened, request
from tests.proxy.signing_in import sign_in, who


@pytest.fixture
async def access(tmp_path: Path) -> AsyncIterator[Access]:
    async with opened(tmp_path) as (built, _):
        yield built


async def test_a_cookie_names_the_user(access: Access) -> None:
    ann = await access.users.add("Ann", PASSWORD)
    cookie = await sign_in(access)
    identity = await who(access, cookie=cookie)
    assert identity == Identity(ann.key, "Ann", ann.slug, False, "login", login_id=access.logins.id_of(cookie))
    assert await who(access) is None


@pytest.mark.parametrize("spoiled", ["{id}.{mark}x", "x{id}.{mark}", "{id}", "{id}.", "..", "ü", "{id}.{id}"])
async def test_a_spoiled_cookie_names_nobody(access: Access, spoiled: str) -> None:
    await access.users.add("Ann", PASSWORD)
    cookie = await sign_in(access)
    login_id, _, mark = cookie.partition(".")
    assert await who(access, cookie=spoiled.format(id=login_id, mark=mark)) is None


async def test_a_cookie_of_another_server_names_nobody(access: Access, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    async with opened(other) as (foreign, _):
        await foreign.users.add("Ann", PASSWORD)
        cookie = await sign_in(foreign)
    assert await who(access, cookie=cookie) is None


async def test_a_token_names_the_user_and_leaves_no_trace(access: Access) -> None:
    ann = await access.users.add("Ann", PASSWORD, is_admin=True)
    row, token = await access.tokens.create(ann.key, "laptop")
    for path, query, header in (
        ("/prompt", "", token),
        ("/prompt", f"a=1&token={token}", ""),
        (f"/t/{token}/prompt", "", ""),
    ):
        identity, scope = await access.authenticator.identify(request(path, query=query, token=header))
        assert identity == Identity(ann.key, "Ann", ann.slug, True, "token", token_id=row.key)
        assert scope["path"] == "/prompt"
        assert token not in repr(scope)


async def test_tokens_are_stored_hashed(access: Access, tmp_path: Path) -> None:
    ann = await access.users.add("Ann", PASSWORD)
    _, token = await access.tokens.create(ann.key, "laptop")
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("cluster.db*"))
    assert token[:10].encode() in stored
    assert token.encode() not in stored


async def test_a_bad_token_beside_a_good_cookie_does_no_harm(access: Access) -> None:
    await access.users.add("Ann", PASSWORD)
    cookie = await sign_in(access)
    assert await who(access, cookie=cookie, token="nonsense") is not None


async def test_revoking_counts_at_once(access: Access) -> None:
    ann = await access.users.add("Ann", PASSWORD)
    cookie, other = await sign_in(access), await sign_in(access)
    row, token = await access.tokens.create(ann.key, "laptop")
    for given in ({"cookie": cookie}, {"cookie": other}, {"token": token}):
        assert await who(access, **given) is not None
    login_id = access.logins.id_of(cookie)
    assert login_id is not None
    await access.logins.revoke(ann.key, login_id)
    assert await who(access, cookie=cookie) is None
    assert await who(access, cookie=other) is not None
    await access.tokens.revoke(ann.key, row.key)
    assert await who(access, token=token) is None
    assert await access.tokens.of_user(ann.key) == []
    assert [login.id for login in await access.logins.of_user(ann.key)] == [access.logins.id_of(other)]


async def test_nobody_revokes_what_is_anothers(access: Access) -> None:
    ann, bob = await access.users.add("Ann", PASSWORD), await access.users.add("Bob", PASSWORD)
    cookie = await sign_in(access)
    row, token = await access.tokens.create(ann.key, "laptop")
    login_id = access.logins.id_of(cookie)
    assert login_id is not None
    with pytest.raises(NotFound):
        await access.logins.revoke(bob.key, login_id)
    with pytest.raises(NotFound):
        await access.tokens.revoke(bob.key, row.key)
    with pytest.raises(NotFound):
        await access.tokens.revoke(ann.key, 999)
    assert await who(access, cookie=cookie) is not None
    assert await who(access, token=token) is not None


async def test_a_disabled_user_is_out_at_once_and_back_when_enabled(access: Access) -> None:
    ann = await access.users.add("Ann", PASSWORD)
    cookie = await sign_in(access)
    _, token = await access.tokens.create(ann.key, "laptop")
    assert await who(access, cookie=cookie) is not None
    await access.users.change(ann.key, disabled=True)
    assert await who(access, cookie=cookie) is None
    assert await who(access, token=token) is None
    await access.users.change(ann.key, disabled=False)
    assert await who(access, cookie=cookie) is not None
    assert await who(access, token=token) is not None


async def test_a_change_by_another_process_counts_after_the_cache_ran_out(access: Access, tmp_path: Path) -> None:
    ann = await access.users.add("Ann", PASSWORD)
    cookie = await sign_in(access)
    async with opened(tmp_path) as (other, _):
        assert await who(other, cookie=cookie) is not None
        await access.users.change(ann.key, disabled=True)
        assert await who(other, cookie=cookie) is not None
        other.authenticator._cache._clock = lambda: 1e12
        assert await who(other, cookie=cookie) is None


async def test_a_look_up_that_began_before_a_revocation_is_not_kept() -> None:
    cache = AccessCache()
    ann = Identity(1, "Ann", "ann", False, "login", login_id="x")
    before = cache.generation
    cache.forget_user(1)
    cache.put("key", ann, before)
    assert cache.get("key") == (False, None)
    cache.put("key", ann, cache.generation)
    assert cache.get("key") == (True, ann)


async def test_the_cache_is_bounded() -> None:
    cache = AccessCache(capacity=2)
    for key in ("a", "b", "c"):
        cache.put(key, None, cache.generation)
    assert [cache.get(key)[0] for key in ("a", "b", "c")] == [False, True, True]


async def test_a_login_ends_without_use_and_slides_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path, login_days=1) as (access, db):
        await access.users.add("Ann", PASSWORD)
        cookie = await sign_in(access)
        row = await _login(access, db, cookie)
        monkeypatch.setattr(auth, "now_ms", lambda: row.seen_ms + 3_600_000)
        monkeypatch.setattr("proxy.access.logins.now_ms", lambda: row.seen_ms + 3_600_000)
        assert await who(access, cookie=cookie) is not None
        await access.authenticator.flush()
        slid = await _login(access, db, cookie)
        assert slid.seen_ms == row.seen_ms + 3_600_000
        assert slid.expires_ms == row.expires_ms + 3_600_000
    async with opened(tmp_path, login_days=1) as (access, db):
        monkeypatch.setattr("proxy.access.logins.now_ms", lambda: slid.expires_ms + 1)
        assert await who(access, cookie=cookie) is None


async def test_the_use_of_a_token_is_noted(tmp_path: Path) -> None:
    async with opened(tmp_path) as (access, db):
        ann = await access.users.add("Ann", PASSWORD)
        row, token = await access.tokens.create(ann.key, "laptop")
        assert await who(access, token=token) is not None
        await access.authenticator.flush()
        used = await db.read(lambda session: session.get(Token, row.key))
        assert used is not None and used.used_ms is not None


async def test_changing_the_password_ends_the_other_logins(access: Access) -> None:
    await access.users.add("Ann", PASSWORD)
    mine, other = await sign_in(access), await sign_in(access)
    identity = await who(access, cookie=mine)
    assert identity is not None and await who(access, cookie=other) is not None
    with pytest.raises(BadInput, match="current password"):
        await access.change_password(identity, "wrong one", "brand new one")
    await access.change_password(identity, PASSWORD, "brand new one")
    assert await who(access, cookie=mine) is not None
    assert await who(access, cookie=other) is None
    with pytest.raises(NotAuthenticated):
        await sign_in(access)


async def test_a_reset_ends_all_logins(access: Access) -> None:
    ann = await access.users.add("Ann", PASSWORD)
    cookie = await sign_in(access)
    password = await access.reset_password(ann.key)
    assert await who(access, cookie=cookie) is None
    assert await access.users.check("ann", password) is not None


async def test_a_token_made_by_the_command_line_works(tmp_path: Path) -> None:
    async with opened(tmp_path) as (access, db):
        await access.users.add("Ann", PASSWORD)
        token = create_now(db, "ANN", "script")
        identity = await who(access, token=token)
        assert identity is not None and identity.name == "Ann"
        with pytest.raises(NotFound):
            create_now(db, "nobody", "script")


@pytest.mark.parametrize("name", ["", "   ", "x" * 65, "a\nb"])
async def test_a_token_needs_a_usable_name(access: Access, name: str) -> None:
    ann = await access.users.add("Ann", PASSWORD)
    with pytest.raises(BadInput):
        await access.tokens.create(ann.key, name)


async def test_no_referrer_is_added_for_tokens_in_the_address_only() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    for path, query in (("/t/abc/view", ""), ("/view", "a=1&token=abc"), ("/view", "a=1")):
        message: Message = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
        await no_referrer(extract(request(path, query=query)).scope, send)(message)
    assert all((b"referrer-policy", b"no-referrer") in message["headers"] for message in sent[:2])
    assert sent[2]["headers"] == [(b"a", b"b")]


async def _login(access: Access, db: Database, cookie: str) -> Login:
    login_id = access.logins.id_of(cookie)
    row = await db.read(lambda session: session.get(Login, login_id))
    assert row is not None
    return row
