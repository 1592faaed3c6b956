"""Signing in, and who a request is then."""

from proxy.access.access import Access
from proxy.access.cache import Identity
from tests.proxy.access_fixture import PASSWORD, request


async def sign_in(access: Access, name: str = "ann", address: str = "10.0.0.1") -> str:
    return await access.sign_in(name, PASSWORD, request(address=address), "Firefox")


async def who(access: Access, **given: str) -> Identity | None:
    return (await access.authenticator.identify(request(**given)))[0]
