"""Wrong passwords and tokens are throttled, by name and by address, and good ones never."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.access import access as access_module
from proxy.access import auth
from proxy.access.access import NAME_FACTOR, Access
from proxy.access.throttle import Throttled
from proxy.base.errors import NotAuthenticated
from tests.proxy.access_fixture import PASSWORD, opened, request
from tests.proxy.signing_in import sign_in, who


@pytest.fixture
async def access(tmp_path: Path) -> AsyncIterator[Access]:
    async with opened(tmp_path) as (built, _):
        yield built


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
