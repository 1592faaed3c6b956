"""API tokens: random URL-safe words, shown once, stored as SHA-256."""

from collections.abc import Collection

from sqlalchemy import BigInteger
from sqlmodel import Field, Session, SQLModel, col, func, select, update

from proxy.access.accounts import User
from proxy.access.accounts import find as find_user
from proxy.access.cache import AccessCache
from proxy.base.clock import now_ms
from proxy.base.database import Database
from proxy.base.errors import BadInput, Conflict, NotFound
from proxy.base.names import hash_of, new_secret

PREFIX = "cct_"
SHOWN = len(PREFIX) + 6
NAME_LENGTH = 64
TOKENS_PER_USER = 100


class Token(SQLModel, table=True):
    """One API token; the token itself is not stored."""

    __tablename__ = "tokens"

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="users.id", index=True)
    name: str
    token_hash: str = Field(unique=True)
    prefix: str = Field(description="The first characters, to recognise it by.")
    created_ms: int = Field(sa_type=BigInteger)
    used_ms: int | None = Field(default=None, sa_type=BigInteger)
    revoked_ms: int | None = Field(default=None, sa_type=BigInteger)

    @property
    def key(self) -> int:
        """`id` of a stored row."""
        assert self.id is not None
        return self.id


def clean_name(name: str) -> str:
    """A token's name in its stored form. Raises BadInput."""
    name = name.strip()
    if not name or len(name) > NAME_LENGTH or not name.isprintable():
        raise BadInput(f"A token needs a name of 1 to {NAME_LENGTH} printable characters.")
    return name


def insert(session: Session, user_id: int, name: str) -> tuple[Token, str]:
    """A new token: its row, and the token, which cannot be had again."""
    name = clean_name(name)
    own = select(func.count()).where(Token.user_id == user_id, col(Token.revoked_ms).is_(None))
    if session.exec(own).one() >= TOKENS_PER_USER:
        raise Conflict(f"You have {TOKENS_PER_USER} tokens, the most allowed. Revoke one that is not needed.")
    secret = PREFIX + new_secret()
    row = Token(user_id=user_id, name=name, token_hash=hash_of(secret), prefix=secret[:SHOWN], created_ms=now_ms())
    session.add(row)
    session.flush()
    return row, secret


def create_now(db: Database, user_name: str, name: str) -> str:
    """A new token for the user of that name, blocking: for the command line. Raises NotFound."""

    def work(session: Session) -> str:
        user = find_user(session, user_name)
        if user is None:
            raise NotFound(f"There is no user named {user_name}.")
        return insert(session, user.key, name)[1]

    return db.write_now(work)


def lookup(session: Session, token_hash: str) -> tuple[Token, User] | None:
    """A token that still counts, with its user."""
    found = session.exec(
        select(Token, User)
        .where(Token.user_id == User.id)
        .where(Token.token_hash == token_hash, col(Token.revoked_ms).is_(None), ~col(User.disabled))
    ).one_or_none()
    return (found[0], found[1]) if found else None


def touch(session: Session, token_ids: Collection[int]) -> None:
    """Note that these tokens are in use now."""
    session.exec(update(Token).where(col(Token.id).in_(token_ids)).values(used_ms=now_ms()))


class Tokens:
    """API tokens as the running server uses them."""

    def __init__(self, db: Database, cache: AccessCache) -> None:
        self._db = db
        self._cache = cache

    async def create(self, user_id: int, name: str) -> tuple[Token, str]:
        """A new token: its row, and the token, which cannot be had again."""
        return await self._db.write(lambda session: insert(session, user_id, name))

    async def find(self, token: str) -> tuple[Token, User] | None:
        """A token that still counts, with its user."""
        token_hash = hash_of(token)
        return await self._db.read(lambda session: lookup(session, token_hash))

    async def of_user(self, user_id: int) -> list[Token]:
        """The user's tokens that count, newest first."""
        query = select(Token).where(Token.user_id == user_id, col(Token.revoked_ms).is_(None))
        return await self._db.read(lambda session: list(session.exec(query.order_by(col(Token.id).desc())).all()))

    async def revoke(self, user_id: int, token_id: int) -> None:
        """End one token of that user. Raises NotFound for another's."""

        def work(session: Session) -> None:
            token = session.get(Token, token_id)
            if token is None or token.user_id != user_id or token.revoked_ms is not None:
                raise NotFound("There is no such token.")
            token.revoked_ms = now_ms()
            session.add(token)

        await self._db.write(work)
        self._cache.forget_user(user_id)

    async def revoke_all(self, user_id: int) -> None:
        """End every token of that user."""
        query = update(Token).where(col(Token.user_id) == user_id, col(Token.revoked_ms).is_(None))
        await self._db.write(lambda session: session.exec(query.values(revoked_ms=now_ms())))
        self._cache.forget_user(user_id)
