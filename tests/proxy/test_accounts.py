"""Users: names, passwords, the first administrator, and that the last one cannot lock everybody out."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlmodel import SQLModel

from proxy.access import accounts, passwords
from proxy.access.access import set_password_now
from proxy.access.accounts import Users, ensure_admin
from proxy.access.cache import AccessCache
from proxy.access.passwords import Passwords
from proxy.access.secret_key import load_or_create
from proxy.base.database import Database, sqlite_url
from proxy.base.errors import BadInput, ConfigError, Conflict, NotFound, Unavailable
from proxy.base.settings import Settings


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(sqlite_url(tmp_path / "cluster.db"))
    SQLModel.metadata.create_all(database.writer)
    yield database
    database.close()


@pytest.fixture
def users(db: Database) -> Iterator[Users]:
    hashing = Passwords()
    yield Users(db, hashing, AccessCache())
    hashing.close()


@pytest.mark.parametrize(
    ("given", "stored"),
    [("Ann", "Ann"), ("  ann lee ", "ann lee"), ("王小明", "王小明"), ("a.b_c-d@e+f", "a.b_c-d@e+f"), ("Ａnn", "Ann")],
)
def test_good_names(given: str, stored: str) -> None:
    assert accounts.clean_name(given) == stored


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("x" * 65, "at most 64"),
        ("a:b", "letters, digits"),
        ("a/b", "letters, digits"),
        ("<script>", "letters, digits"),
        ("a\nb", "letters, digits"),
        ("a\0b", "letters, digits"),
        ("...", "at least one letter"),
    ],
)
def test_bad_names_say_why(name: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        accounts.clean_name(name)


@pytest.mark.parametrize(
    ("password", "words"),
    [("short", "at least 8"), ("x" * 257, "at most 256"), ("Annabella", "differ"), ("12345678\0", "control")],
)
def test_bad_passwords_say_why(password: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        passwords.check_rules(password, "annabella")


async def test_names_are_one_whatever_their_case(users: Users) -> None:
    ann = await users.add("Ann", "long enough")
    with pytest.raises(Conflict, match="already"):
        await users.add("aNN", "long enough")
    found = await users.by_name("ANN")
    assert found is not None and found.id == ann.id
    assert ann.slug.startswith("ann-")


async def test_only_the_right_password_of_an_enabled_user_fits(users: Users) -> None:
    await users.add("root", "long enough", is_admin=True)
    ann = await users.add("Ann", "long enough")
    assert await users.check("ann", "long enough") is not None
    assert await users.check("ann", "long enoug") is None
    assert await users.check("nobody", "long enough") is None
    assert await users.check("ann", "x" * 1_000_000) is None
    await users.change(ann.key, disabled=True)
    assert await users.check("ann", "long enough") is None
    await users.change(ann.key, disabled=False)
    await users.set_password(ann.key, "another one")
    assert await users.check("ann", "long enough") is None
    assert await users.check("ann", "another one") is not None


async def test_the_last_administrator_stays(users: Users) -> None:
    root = await users.add("root", "long enough", is_admin=True)
    with pytest.raises(Conflict, match="last active administrator"):
        await users.change(root.key, is_admin=False)
    with pytest.raises(Conflict, match="last active administrator"):
        await users.change(root.key, disabled=True)
    ann = await users.add("Ann", "long enough", is_admin=True)
    await users.change(ann.key, disabled=True)
    with pytest.raises(Conflict):
        await users.change(root.key, is_admin=False)
    await users.change(ann.key, disabled=False)
    await users.change(root.key, is_admin=False)
    assert [user.is_admin for user in await users.listing()] == [True, False]


async def test_unknown_users_are_not_found(users: Users) -> None:
    with pytest.raises(NotFound):
        await users.change(99, disabled=True)
    with pytest.raises(NotFound):
        await users.set_password(99, "long enough")


async def test_a_flood_of_checks_is_refused_not_queued(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "WAITING", 0)
    with pytest.raises(Unavailable, match="Too many people"):
        await users.check("ann", "long enough")


def test_the_first_admin_is_made_once(db: Database, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    password = ensure_admin(db, settings)
    assert password is not None
    assert ensure_admin(db, settings) is None
    admin = db.read_now(lambda session: accounts.find(session, "admin"))
    assert admin is not None and admin.is_admin
    assert passwords.verify_now(password, admin.password_hash)


def test_a_given_admin_password_is_used_and_not_printed(db: Database, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, admin_name="boss", admin_password="given password")
    assert ensure_admin(db, settings) is None
    boss = db.read_now(lambda session: accounts.find(session, "boss"))
    assert boss is not None and passwords.verify_now("given password", boss.password_hash)


@pytest.mark.parametrize("bad", [{"admin_name": "a:b"}, {"admin_password": "short"}, {"admin_name": "ann"}])
def test_an_unusable_first_admin_is_the_operators_problem(db: Database, tmp_path: Path, bad: dict[str, str]) -> None:
    accounts.add_now(db, "Ann", "long enough")
    with pytest.raises(ConfigError, match="first administrator"):
        ensure_admin(db, Settings.model_validate({"data_dir": tmp_path, **bad}))


def test_the_command_line_resets_a_password(db: Database) -> None:
    accounts.add_now(db, "Ann", "long enough")
    set_password_now(db, "ANN", "another one")
    ann = db.read_now(lambda session: accounts.find(session, "ann"))
    assert ann is not None and passwords.verify_now("another one", ann.password_hash)
    with pytest.raises(NotFound):
        set_password_now(db, "nobody", "another one")


def test_the_key_file_is_private_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    key = load_or_create(path)
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    assert load_or_create(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret.key"]


@pytest.mark.parametrize("content", ["", "zz", "abcd", "\xff" * 64])
def test_a_damaged_key_file_is_a_clear_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secret.key"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"secret\.key"):
        load_or_create(path)


def test_a_key_in_a_missing_directory_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not usable"):
        load_or_create(tmp_path / "nowhere" / "secret.key")
