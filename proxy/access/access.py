"""Everything about who may come in, put together: signing in and out, changing and resetting passwords.

Each action here changes several tables' rows or counts attempts; the single tables know nothing of each other.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from sqlmodel import Session
from starlette.types import Scope

from proxy.access import accounts, passwords
from proxy.access.accounts import User, Users
from proxy.access.auth import Authenticator
from proxy.access.cache import AccessCache, Identity
from proxy.access.logins import Logins, revoke_rows
from proxy.access.passwords import Passwords
from proxy.access.secret_key import load_or_create
from proxy.access.throttle import Throttle, address_key
from proxy.access.tokens import Tokens
from proxy.base.database import Database
from proxy.base.errors import BadInput, NotAuthenticated, NotFound
from proxy.base.logs import events
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks

log = events(__name__)

NAME_FACTOR = 10
"""How many times `login_attempts` one name may see from all addresses together."""
PLACES = 10_000
"""Places of good sign-ins that are remembered; the longest unused one goes."""
WRONG = "wrong passwords"


@dataclass(frozen=True)
class Access:
    """Accounts, logins, tokens and the authenticator of one server."""

    users: Users
    logins: Logins
    tokens: Tokens
    authenticator: Authenticator
    passwords: Passwords
    cache: AccessCache
    _by_address: Throttle
    _by_place: Throttle
    _by_name: Throttle
    _known_places: OrderedDict[str, None] = field(default_factory=OrderedDict)

    async def sign_in(self, name: str, password: str, scope: Scope, user_agent: str) -> str:
        """Check a password; returns the login cookie's value. Raises NotAuthenticated or Throttled."""
        address = address_key(scope)
        key = accounts.name_key(name)[: 4 * accounts.NAME_LENGTH]
        place = f"{key}\n{address}"
        # Guesses from elsewhere must not keep people out: where somebody has signed in before counts for itself.
        everywhere = place if place in self._known_places else key
        # Always in this order: attempts that wait for each other's second turn would wait for ever.
        async with (
            self._by_address.attempt(address, WRONG) as from_address,
            self._by_place.attempt(place, WRONG) as for_place,
            self._by_name.attempt(everywhere, WRONG) as for_name,
        ):
            user = await self.users.check(name, password)
            from_address.fine = for_place.fine = for_name.fine = user is not None
        if user is None:
            log.info("login refused", address=address)
            raise NotAuthenticated("The user name or the password is not right.")
        self._remember(place)
        log.info("login", user=user.name, address=address)
        return await self.logins.start(user.key, address, user_agent)

    async def change_password(self, identity: Identity, old: str, new: str) -> None:
        """A user's own change: needs the old password, ends the user's other logins. Raises BadInput or Throttled."""
        async with self._by_place.attempt(f"\n{identity.user_id}", WRONG) as attempt:
            attempt.fine = await self.users.check(identity.name, old) is not None
        if not attempt.fine:
            raise BadInput("The current password is not right.")
        await self.users.set_password(identity.user_id, new)
        await self.logins.revoke_all(identity.user_id, keep=identity.login_id)
        log.info("password changed", user=identity.name)

    async def reset_password(self, user_id: int, new: str | None = None) -> str:
        """An administrator's change: a new password (generated unless given); all logins of the user end."""
        password = new or passwords.generate()
        user = await self.users.set_password(user_id, password)
        await self.logins.revoke_all(user_id)
        log.info("password reset", user=user.name)
        return password

    def _remember(self, place: str) -> None:
        self._known_places[place] = None
        self._known_places.move_to_end(place)
        if len(self._known_places) > PLACES:
            self._known_places.popitem(last=False)

    async def close(self) -> None:
        """Store what is still to be stored; end the threads."""
        await self.authenticator.flush()
        self.passwords.close()


def open_access(settings: Settings, db: Database, tasks: Tasks) -> Access:
    """Build it; reads `secret.key`, creating it on a first start. Raises ConfigError."""
    key = load_or_create(settings.data_dir / "secret.key")
    cache = AccessCache()
    hashing = Passwords()
    logins = Logins(db, settings, key, cache)
    tokens = Tokens(db, cache)
    return Access(
        users=Users(db, hashing, cache),
        logins=logins,
        tokens=tokens,
        authenticator=Authenticator(db, logins, tokens, cache, tasks),
        passwords=hashing,
        cache=cache,
        _by_address=Throttle(settings.login_address_attempts, settings.login_window_s),
        _by_place=Throttle(settings.login_attempts, settings.login_window_s),
        _by_name=Throttle(NAME_FACTOR * settings.login_attempts, settings.login_window_s),
    )


def set_password_now(db: Database, name: str, password: str) -> User:
    """Replace a password and end the user's logins, blocking: for the command line. Raises NotFound or BadInput."""
    passwords.check_rules(password, name)
    password_hash = passwords.hash_now(password)

    def work(session: Session) -> User:
        user = accounts.find(session, name)
        if user is None:
            raise NotFound(f"There is no user named {name}.")
        revoke_rows(session, user.key)
        return accounts.set_hash(session, user.key, password_hash)

    return db.write_now(work)
