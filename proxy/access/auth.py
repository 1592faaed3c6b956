"""Says who sends a request: the one place where credentials become an identity. On the path of every request.

Reads logins and tokens through a small cache (a few seconds), so that access taken away elsewhere ends that soon, and
at once in this process. Notes their last use rarely and in batches.
"""

from sqlmodel import Session
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Scope, Send

from proxy.access import tokens as token_rows
from proxy.access.accounts import User
from proxy.access.cache import AccessCache, Identity
from proxy.access.credentials import IN_ADDRESS, Credential, extract
from proxy.access.logins import Logins
from proxy.access.throttle import Throttle, address_key
from proxy.access.tokens import Tokens
from proxy.base.clock import monotonic_s, now_ms
from proxy.base.database import Database
from proxy.base.errors import ClusterError
from proxy.base.logs import events
from proxy.base.names import hash_of
from proxy.base.repeated import Repeated
from proxy.base.tasks import Tasks

__all__ = ["Authenticator", "Identity", "identity", "no_referrer"]

log = events(__name__)
often = Repeated(log)

IDENTITY = "comfy_cluster.identity"
"""Key of a scope that has been authenticated: an Identity or None."""
TOUCH_S = 60.0
"""How far the stored last use may lag behind."""
BAD_ANSWERS = 60
"""Bad tokens per address and window before 401 turns into 429: clients that reconnect for ever slow down."""
BAD_WINDOW_S = 300.0


class Authenticator:
    """`identify` for the data plane and the control pages."""

    def __init__(self, db: Database, logins: Logins, tokens: Tokens, cache: AccessCache, tasks: Tasks) -> None:
        self._db = db
        self._logins = logins
        self._tokens = tokens
        self._cache = cache
        self._tasks = tasks
        self._answers = Throttle(BAD_ANSWERS, BAD_WINDOW_S)
        self._used_logins: set[str] = set()
        self._used_tokens: set[int] = set()
        self._flushed_s = monotonic_s()

    async def identify(self, scope: Scope) -> tuple[Identity | None, Scope]:
        """The sender, None when nobody known, and the scope without tokens.

        Raises Throttled for an address that keeps sending bad tokens.
        """
        found = extract(scope)
        bad_token = False
        for credential in found.credentials:
            identity = await self._identity(credential)
            if identity is not None:
                return identity, found.scope
            bad_token |= credential.kind == "token"
        if bad_token:
            self._answers.take(address_key(scope), "requests with a token that is not valid")
        return None, found.scope

    async def authenticate(self, scope: Scope) -> Scope:
        """The cleaned scope with the sender noted in it, see `identity`. Harmless when it was done already."""
        if IDENTITY in scope:
            return scope
        who, cleaned = await self.identify(scope)
        return {**cleaned, IDENTITY: who}

    async def flush(self) -> None:
        """Store the last uses noted so far."""
        logins, tokens = self._used_logins, self._used_tokens
        self._used_logins, self._used_tokens = set(), set()
        self._flushed_s = monotonic_s()
        if not logins and not tokens:
            return
        try:
            await self._db.write(lambda session: self._touch(session, logins, tokens))
        except ClusterError as error:
            often.warning("last uses not stored", reason=error.message)

    def _touch(self, session: Session, logins: set[str], tokens: set[int]) -> None:
        self._logins.touch(session, logins)
        token_rows.touch(session, tokens)

    async def _identity(self, credential: Credential) -> Identity | None:
        # A token is kept by its hash: memory dumps and debuggers show no secret that outlives the request.
        key = hash_of(credential.value) if credential.kind == "token" else credential.value
        known, identity = self._cache.get(key)
        if known:
            return identity
        generation = self._cache.generation
        if credential.kind == "token":
            identity = await self._by_token(credential.value)
        else:
            identity = await self._by_cookie(credential.value)
        self._cache.put(key, identity, generation)
        if monotonic_s() - self._flushed_s > TOUCH_S and (self._used_logins or self._used_tokens):
            self._flushed_s = monotonic_s()
            self._tasks.start("store-last-uses", self.flush())
        return identity

    async def _by_token(self, token: str) -> Identity | None:
        # Always looked up, whatever else its address sends: there is nothing to guess among 256 random bits, and nobody
        # shall keep the others behind one address out.
        found = await self._tokens.find(token)
        if found is None:
            return None
        row, user = found
        if now_ms() - (row.used_ms or 0) > TOUCH_S * 1000:
            self._used_tokens.add(row.key)
        return Identity(user.key, user.name, user.slug, user.is_admin, "token", token_id=row.key)

    async def _by_cookie(self, cookie: str) -> Identity | None:
        login_id = self._logins.id_of(cookie)
        found = await self._logins.find(login_id) if login_id else None
        if found is None:
            return None
        login, user = found
        if now_ms() - login.seen_ms > TOUCH_S * 1000:
            self._used_logins.add(login.id)
        return _of_login(user, login.id)


def identity(scope: Scope) -> Identity | None:
    """The sender of an authenticated scope."""
    who = scope[IDENTITY]
    assert who is None or isinstance(who, Identity)
    return who


def _of_login(user: User, login_id: str) -> Identity:
    return Identity(user.key, user.name, user.slug, user.is_admin, "login", login_id=login_id)


def no_referrer(scope: Scope, send: Send) -> Send:
    """`send` that forbids browsers to pass the address on, when the cleaned `scope` had a token in its address."""
    if IN_ADDRESS not in scope:
        return send

    async def guarded(message: Message) -> None:
        if message["type"] in {"http.response.start", "websocket.http.response.start"}:
            MutableHeaders(scope=message)["Referrer-Policy"] = "no-referrer"
        await send(message)

    return guarded
