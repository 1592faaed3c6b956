"""Logins: one row per browser that signed in, and the signed cookie that names it.

The cookie carries a random id and nothing else; the row decides (expiry, revocation). Times are milliseconds.
"""

import hashlib
import secrets
from collections.abc import Collection

from itsdangerous import BadSignature, Signer
from sqlalchemy import BigInteger
from sqlmodel import Field, Session, SQLModel, col, or_, select, update

from proxy.access.accounts import User
from proxy.access.cache import AccessCache
from proxy.base.clock import DAY_MS, now_ms
from proxy.base.database import Database
from proxy.base.errors import NotFound
from proxy.base.settings import Settings

COOKIE = "comfy_cluster_login"
# Browsers keep cookies for 400 days at most; the row's own expiry, which slides with use, is what counts.
COOKIE_MAX_AGE_S = 400 * 86_400
AGENT_LENGTH = 120


class Login(SQLModel, table=True):
    """A browser's sign-in."""

    __tablename__ = "logins"

    id: str = Field(primary_key=True, description="Random; the cookie carries it, signed.")
    user_id: int = Field(foreign_key="users.id", index=True)
    created_ms: int = Field(sa_type=BigInteger)
    seen_ms: int = Field(sa_type=BigInteger)
    expires_ms: int = Field(sa_type=BigInteger)
    revoked_ms: int | None = Field(default=None, sa_type=BigInteger)
    address: str = ""
    user_agent: str = ""


def lookup(session: Session, login_id: str) -> tuple[Login, User] | None:
    """A login that still counts, with its user."""
    found = session.exec(
        select(Login, User)
        .where(Login.user_id == User.id)
        .where(Login.id == login_id, col(Login.revoked_ms).is_(None), Login.expires_ms > now_ms())
        .where(~col(User.disabled))
    ).one_or_none()
    return (found[0], found[1]) if found else None


def revoke_rows(session: Session, user_id: int, keep: str | None = None) -> None:
    """End every login of that user but `keep`."""
    query = update(Login).where(col(Login.user_id) == user_id, col(Login.revoked_ms).is_(None))
    if keep is not None:
        query = query.where(col(Login.id) != keep)
    session.exec(query.values(revoked_ms=now_ms()))


class Logins:
    """Sign-ins as the running server uses them."""

    def __init__(self, db: Database, settings: Settings, key: bytes, cache: AccessCache) -> None:
        self._db = db
        self._life_ms = int(settings.login_days * DAY_MS)
        self._signer = Signer(key, salt="comfy-cluster-login", key_derivation="hmac", digest_method=hashlib.sha256)
        self._cache = cache

    async def start(self, user_id: int, address: str, user_agent: str) -> str:
        """Sign `user_id` in; returns the cookie's value. Ended logins of the user are cleared away."""
        now = now_ms()
        login = Login(
            id=secrets.token_urlsafe(24),
            user_id=user_id,
            created_ms=now,
            seen_ms=now,
            expires_ms=now + self._life_ms,
            address=address[:64],
            user_agent="".join(c for c in user_agent if c.isprintable())[:AGENT_LENGTH],
        )

        def work(session: Session) -> None:
            ended = or_(col(Login.expires_ms) < now, col(Login.revoked_ms).is_not(None))
            for old in session.exec(select(Login).where(Login.user_id == user_id, ended)):
                session.delete(old)
            session.add(login)

        await self._db.write(work)
        return self._signer.sign(login.id).decode()

    def id_of(self, cookie: str) -> str | None:
        """The login id of a cookie with a good signature."""
        try:
            return self._signer.unsign(cookie).decode()
        except (BadSignature, UnicodeDecodeError):
            return None

    async def find(self, login_id: str) -> tuple[Login, User] | None:
        """A login that still counts, with its user."""
        return await self._db.read(lambda session: lookup(session, login_id))

    async def of_user(self, user_id: int) -> list[Login]:
        """The user's open logins, last seen first."""

        def work(session: Session) -> list[Login]:
            query = select(Login).where(Login.user_id == user_id, col(Login.revoked_ms).is_(None))
            return list(
                session.exec(query.where(Login.expires_ms > now_ms()).order_by(col(Login.seen_ms).desc())).all()
            )

        return await self._db.read(work)

    async def revoke(self, user_id: int, login_id: str) -> None:
        """End one login of that user. Raises NotFound for another's."""

        def work(session: Session) -> None:
            login = session.get(Login, login_id) if login_id.isprintable() else None
            if login is None or login.user_id != user_id or login.revoked_ms is not None:
                raise NotFound("There is no such login.")
            login.revoked_ms = now_ms()
            session.add(login)

        await self._db.write(work)
        self._cache.forget_user(user_id)

    async def revoke_all(self, user_id: int, keep: str | None = None) -> None:
        """End every login of that user but `keep`."""
        await self._db.write(lambda session: revoke_rows(session, user_id, keep))
        self._cache.forget_user(user_id)

    def touch(self, session: Session, login_ids: Collection[str]) -> None:
        """Note that these logins are in use now, which also postpones their expiry."""
        now = now_ms()
        values = {"seen_ms": now, "expires_ms": now + self._life_ms}
        session.exec(update(Login).where(col(Login.id).in_(login_ids)).values(**values))
