"""Users: the table, the rules of names, and every change of an account. No HTTP, no cookies.

Functions that take a SQLModel session are transactions' bodies, for the command line too; `Users` are their awaitable
forms. A change that takes access away also drops the user from the access cache, at once in this process.
"""

import unicodedata
from collections.abc import Callable

from sqlalchemy import BigInteger
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, Session, SQLModel, col, func, select

from proxy.access import passwords
from proxy.access.cache import AccessCache
from proxy.base.clock import now_ms
from proxy.base.database import Database
from proxy.base.errors import BadInput, ConfigError, Conflict, NotFound
from proxy.base.logs import events
from proxy.base.names import slug
from proxy.base.settings import Settings

log = events(__name__)

NAME_LENGTH = 64
NAME_SIGNS = "._-@+ "


class User(SQLModel, table=True):
    """One account."""

    __tablename__ = "users"

    id: int | None = Field(default=None, primary_key=True)
    name: str
    name_key: str = Field(unique=True, description="Case-folded name: Ann and ann are one user.")
    slug: str = Field(unique=True, description="Name of the user's directories.")
    password_hash: str
    is_admin: bool = False
    disabled: bool = False
    created_ms: int = Field(sa_type=BigInteger)

    @property
    def key(self) -> int:
        """`id` of a stored row."""
        assert self.id is not None
        return self.id


def clean_name(name: str) -> str:
    """The name in its stored form. Raises BadInput saying which rule it breaks."""
    name = unicodedata.normalize("NFKC", name).strip()
    if not name:
        raise BadInput("The user name is empty.")
    if len(name) > NAME_LENGTH:
        raise BadInput(f"The user name may have at most {NAME_LENGTH} characters.")
    if not all(sign.isalnum() or sign in NAME_SIGNS for sign in name):
        raise BadInput("A user name is made of letters, digits, spaces and the signs . _ - @ +")
    if not any(sign.isalnum() for sign in name):
        raise BadInput("A user name needs at least one letter or digit.")
    return name


def name_key(name: str) -> str:
    """What all ways to write one user's name have in common; whoever looks up or counts by name uses this."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def find(session: Session, name: str) -> User | None:
    """The user of that name, whatever its case."""
    key = name_key(name)
    if len(key) > 4 * NAME_LENGTH or not key.isprintable():  # nobody's; and PostgreSQL refuses NUL
        return None
    return session.exec(select(User).where(User.name_key == key)).one_or_none()


def get(session: Session, user_id: int) -> User:
    """That user. Raises NotFound."""
    user = session.get(User, user_id)
    if user is None:
        raise NotFound("There is no such user.")
    return user


def insert(session: Session, name: str, password_hash: str, *, is_admin: bool = False) -> User:
    """A new user. Raises BadInput for the name, Conflict when it is taken."""
    name = clean_name(name)
    if find(session, name) is not None:
        raise Conflict(f"There is a user named {name} already.")
    user = User(
        name=name,
        name_key=name_key(name),
        slug=slug(name),
        password_hash=password_hash,
        is_admin=is_admin,
        created_ms=now_ms(),
    )
    session.add(user)
    try:
        session.flush()
    except IntegrityError as error:  # two servers on one PostgreSQL, the same name at the same moment
        raise Conflict(f"There is a user named {name} already.") from error
    return user


def change(session: Session, user_id: int, *, is_admin: bool | None = None, disabled: bool | None = None) -> User:
    """Set flags. Raises Conflict rather than leave nobody who can administrate."""
    user = get(session, user_id)
    if user.is_admin and not user.disabled and (is_admin is False or disabled):
        others = select(func.count()).where(User.is_admin, ~col(User.disabled), User.id != user_id)
        if session.exec(others).one() == 0:
            raise Conflict("This is the last active administrator. Make somebody else one first.")
    user.is_admin = user.is_admin if is_admin is None else is_admin
    user.disabled = user.disabled if disabled is None else disabled
    session.add(user)
    return user


def set_hash(session: Session, user_id: int, password_hash: str) -> User:
    """Replace the password."""
    user = get(session, user_id)
    user.password_hash = password_hash
    session.add(user)
    return user


def everyone(session: Session) -> list[User]:
    """All users by name."""
    return list(session.exec(select(User).order_by(User.name_key)).all())


def add_now(db: Database, name: str, password: str, *, is_admin: bool = False) -> User:
    """Create a user, blocking: for the command line."""
    passwords.check_rules(password, clean_name(name))
    password_hash = passwords.hash_now(password)
    return db.write_now(lambda session: insert(session, name, password_hash, is_admin=is_admin))


def ensure_admin(db: Database, settings: Settings) -> str | None:
    """Create the administrator of a first start. Returns the generated password, None when nothing is to be shown."""
    password = settings.admin_password or passwords.generate()
    try:
        if settings.admin_password:
            passwords.check_rules(password, settings.admin_name)
        password_hash = passwords.hash_now(password)

        def work(session: Session) -> bool:
            if session.exec(select(User).where(User.is_admin)).first() is not None:
                return False
            insert(session, settings.admin_name, password_hash, is_admin=True)
            return True

        # The read comes first: on every later start there is nothing to write.
        if db.read_now(lambda session: session.exec(select(User).where(User.is_admin)).first()) is not None:
            return None
        created = db.write_now(work)
    except (BadInput, Conflict) as error:
        raise ConfigError(f"The first administrator cannot be created: {error.message}") from error
    return password if created and not settings.admin_password else None


class Users:
    """Accounts as the running server uses them."""

    def __init__(self, db: Database, hashing: passwords.Passwords, cache: AccessCache) -> None:
        self._db = db
        self._hashing = hashing
        self._cache = cache

    async def by_name(self, name: str) -> User | None:
        """The user of that name, whatever its case."""
        return await self._db.read(lambda session: find(session, name))

    async def get(self, user_id: int) -> User:
        """That user. Raises NotFound."""
        return await self._db.read(lambda session: get(session, user_id))

    async def listing(self) -> list[User]:
        """All users by name."""
        return await self._db.read(everyone)

    async def add(self, name: str, password: str, *, is_admin: bool = False) -> User:
        """Create a user. Raises BadInput or Conflict."""
        passwords.check_rules(password, clean_name(name))
        password_hash = await self._hashing.hash(password)
        return await self._db.write(lambda session: insert(session, name, password_hash, is_admin=is_admin))

    async def change(self, user_id: int, *, is_admin: bool | None = None, disabled: bool | None = None) -> User:
        """Set flags. Raises NotFound, or Conflict for the last administrator."""
        return await self._write(
            user_id, lambda session: change(session, user_id, is_admin=is_admin, disabled=disabled)
        )

    async def set_password(self, user_id: int, password: str) -> User:
        """Replace the password. Logins stay; the caller revokes those that shall end."""
        passwords.check_rules(password, (await self.get(user_id)).name)
        password_hash = await self._hashing.hash(password)
        return await self._write(user_id, lambda session: set_hash(session, user_id, password_hash))

    async def check(self, name: str, password: str) -> User | None:
        """The user if name and password fit and the account is enabled; every failure takes the same time."""
        user = await self.by_name(name)
        fits = await self._hashing.verify(password, user.password_hash if user else None)
        return user if fits and user and not user.disabled else None

    async def _write(self, user_id: int, work: Callable[[Session], User]) -> User:
        user = await self._db.write(work)
        self._cache.forget_user(user_id)
        return user
