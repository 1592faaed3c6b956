"""Who sends a request: cookies and tokens, revocation, disabled users, throttling; on a real database."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.types import Message

from proxy.access import access as access_module
from proxy.access import auth
from proxy.access.access import NAME_FACTOR, Access
from proxy.access.auth import no_referrer
from proxy.access.cache import AccessCache, Identity
from proxy.access.credentials import extract
from proxy.access.logins import Login
from proxy.access.throttle import Throttled
from proxy.access.tokens import Token, create_now
from proxy.base.database import Database
from proxy.base.errors import BadInput, NotAuthenticated, NotFound
from tests.proxy.access_fixture import PASSWORD, opened, request


@pytest.fixture
async def access(tmp_path: Path) -> AsyncIterator[Access]:
    async with opened(tmp_path) as (built, _):
        yield built


async def sign_in(access: Access, name: str = "ann", address: str = "10.0.0.1") -> str:
    return await access.sign_in(name, PASSWORD, request(address=address), "Firefox")


async def who(access: Access, **given: str) -> Identity | None:
    return (await access.authenticator.identify(request(**given)))[0]


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


async def test_wrong_passwords_are_throttled_by_name_and_address(tmp_path: Path) -> None:
    async with opened(tmp_path, login_attempts=3, login_address_attempts=3) as (access, _):
        await access.users.add("Ann", PASSWORD)
        await access.users.add("Bob", PASSWORD)
        for name in ("ANN ", "ann", "\uff21nn"):  # full-width A: one name in the table, one count here
            with pytest.raises(NotAuthenticated):
                await access.sign_in(name, "wrong", request(address="10.0.2.1"), "")
        with pytest.raises(Throttled):
            await sign_in(access, "ann", "10.0.2.1")
        await sign_in(access, "ann", "10.0.2.2")
        for name in ("bob", "x", "y"):
            with pytest.raises(NotAuthenticated):
                await access.sign_in(name, "wrong", request(address="10.0.3.1"), "")
        with pytest.raises(Throttled) as caught:
            await sign_in(access, "bob", "10.0.3.1")
        assert 0 < caught.value.retry_after_s <= 300
        await sign_in(access, "bob", "10.0.4.1")


async def test_guesses_from_everywhere_end_and_keep_nobody_out_who_was_here_before(tmp_path: Path) -> None:
    async with opened(tmp_path, login_attempts=1) as (access, _):
        ann = await access.users.add("Ann", PASSWORD)
        cookie = await sign_in(access, "ann", "10.0.0.7")
        for number in range(NAME_FACTOR):
            with pytest.raises(NotAuthenticated):
                await access.sign_in("ann", "wrong", request(address=f"10.0.1.{number}"), "")
        with pytest.raises(Throttled):
            await sign_in(access, "ann", "10.0.2.1")
        await sign_in(access, "\uff21NN", "10.0.0.7")
        identity = await who(access, cookie=cookie)
        assert identity is not None and identity.user_id == ann.key
        await access.change_password(identity, PASSWORD, "brand new one")
        with pytest.raises(NotAuthenticated):
            await access.sign_in("ann", PASSWORD, request(address="10.0.0.7"), "")
        with pytest.raises(Throttled):  # known or not, a place has its own limit
            await access.sign_in("ann", "brand new one", request(address="10.0.0.7"), "")


async def test_known_places_are_bounded(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_module, "PLACES", 2)
    await access.users.add("Ann", PASSWORD)
    for number in range(4):
        await sign_in(access, address=f"10.0.0.{number}")
    assert [place.partition("\n")[2] for place in access._known_places] == ["10.0.0.2", "10.0.0.3"]


async def test_good_logins_are_never_throttled(tmp_path: Path) -> None:
    async with opened(tmp_path, login_attempts=2) as (access, _):
        await access.users.add("Ann", PASSWORD)
        for _ in range(4):
            await sign_in(access)


async def test_a_class_may_sign_in_at_once_from_one_address(tmp_path: Path) -> None:
    async with opened(tmp_path, login_attempts=3, login_address_attempts=3) as (access, _):
        for number in range(12):
            await access.users.add(f"student{number}", PASSWORD)
        cookies = await asyncio.gather(*(sign_in(access, f"student{number}") for number in range(12)))
        assert len(set(cookies)) == 12


async def test_reconnect_storms_turn_into_429_but_a_good_token_still_passes(
    access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await access.users.add("Ann", PASSWORD)
    _, token = await access.tokens.create(ann.key, "laptop")
    for _ in range(auth.BAD_ANSWERS):
        assert await who(access, token="wrong") is None
    with pytest.raises(Throttled):
        await who(access, token="wrong")
    assert await who(access, token=token) is not None
    assert await who(access, token="wrong", address="10.9.9.9") is None


async def test_an_address_with_endless_different_bad_tokens_keeps_no_good_one_out(access: Access) -> None:
    """One that has not been seen before, too."""
    ann = await access.users.add("Ann", PASSWORD)
    for number in range(700):
        with contextlib.suppress(Throttled):
            assert await who(access, token=f"guess{number}") is None
    with pytest.raises(Throttled):
        await who(access, token="guess")
    _, token = await access.tokens.create(ann.key, "laptop")
    assert await who(access, token=token) is not None


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
