"""A user id per user: chosen once, never given twice; who owns what on disk, and what planted links do not reach."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend_pool.files.incoming import arrive, clear_incoming, create_incoming
from backend_pool.files.user_files import UserDirs, landing, resolve
from proxy.base.errors import Unavailable
from proxy.base.file_owner import acting_as, as_owner_of
from user_sessions import uids
from user_sessions.directories import Directories, prepare_user, prune_temp
from user_sessions.ownership import DEPTH
from user_sessions.privileges import closed_to_others
from user_sessions.uid_policy import decide
from user_sessions.uids import SWITCH, TABLE, Range, uid_of

RANGE = Range(2_000_300_000, 100)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT ROOT: NO USER IDS BESIDES OUR OWN")


@pytest.fixture
def data(place: Path) -> Path:
    """A data directory where ids are in force, whose parents may be passed."""
    place.chmod(0o711)
    path = place / "data"
    path.mkdir(mode=0o700)
    assert decide(path, RANGE, []) == []
    return path


@needs_root
def test_an_id_is_chosen_once_and_never_given_twice(data: Path) -> None:
    first = uid_of(data, "ann")
    assert (first, uid_of(data, "bob"), uid_of(data, "ann")) == (RANGE.first, RANGE.first + 1, RANGE.first)
    with (data / TABLE).open("a") as table:
        table.write(f"{RANGE.first + 2} ca")  # a crash cut this line short
    assert uid_of(data, "cara") == RANGE.first + 2
    assert (data / TABLE).read_text().splitlines()[-1] == f"{RANGE.first + 2} cara"
    assert (data / TABLE).stat().st_mode & 0o777 == 0o600


@needs_root
def test_ids_are_found_again_when_the_table_is_lost(data: Path) -> None:
    for slug in ("ann", "bob", "cara"):
        prepare_user(data, slug)
    expected = {slug: uid_of(data, slug) for slug in ("ann", "bob", "cara")}
    (data / TABLE).unlink()
    assert uid_of(data, "new") == RANGE.first + 3
    assert {slug: uid_of(data, slug) for slug in expected} == expected


@needs_root
def test_a_range_that_is_used_up_is_a_setting_to_change(data: Path) -> None:
    uids.switch(data, Range(RANGE.first, 1))
    assert uid_of(data, "ann") == RANGE.first
    with pytest.raises(Unavailable, match="session_uid_count"):
        uid_of(data, "bob")


def test_without_the_switch_all_share_one_id(tmp_path: Path) -> None:
    assert uid_of(tmp_path, "ann") is None and not (tmp_path / TABLE).exists()
    assert decide(tmp_path, None, []) == ["switched off by the setting `session_uids`"]
    assert prepare_user(tmp_path, "ann").output.stat().st_uid == os.geteuid()


def test_who_does_not_run_as_root_has_one_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert decide(tmp_path, RANGE, []) == ["the server does not run as root"]


@needs_root
def test_what_others_cannot_read_is_named_with_its_cure(place: Path) -> None:
    data = place / "data"
    data.mkdir()
    library = place / "library"
    library.mkdir(mode=0o750)
    (library / "models").mkdir()
    place.chmod(0o700)
    (found,) = decide(data, RANGE, [])
    assert found == f"other user ids cannot pass {place}: chmod o+x {place}"
    assert not (data / SWITCH).exists()
    place.chmod(0o711)
    assert decide(data, RANGE, [library / "models"]) == [f"other user ids cannot pass {library}: chmod o+x {library}"]
    assert "chmod o+rx" in closed_to_others(library, (), read=True)
    assert closed_to_others(place / "nothing", (), read=True) == ""


@needs_root
def test_a_user_owns_the_directories_but_not_the_home(data: Path) -> None:
    directories = prepare_user(data, "ann")
    uid = uid_of(data, "ann")
    for path in directories.all():
        found = path.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (uid, uid, 0o700)
    home = directories.input.parent.stat()
    assert (home.st_uid, home.st_gid, home.st_mode & 0o777) == (0, uid, 0o710)
    assert data.stat().st_mode & 0o777 == (data / "users").stat().st_mode & 0o777 == 0o711


@needs_root
def test_another_id_can_neither_list_nor_enter(data: Path) -> None:
    ann, bob = prepare_user(data, "ann"), prepare_user(data, "bob")
    (ann.output / "a.png").write_text("a picture")
    with as_owner_of(bob.output):
        assert (bob.output.parent / "output").is_dir()
        for folder in (data, data / "users", ann.output, ann.output.parent):
            with pytest.raises(PermissionError):
                list(folder.iterdir())
        with pytest.raises(PermissionError):
            (ann.output / "a.png").read_text()
    assert (ann.output / "a.png").read_text() == "a picture"


@needs_root
def test_files_change_hands_when_ids_are_switched_on_and_back(place: Path) -> None:
    place.chmod(0o711)
    data = place / "data"
    data.mkdir()
    directories = prepare_user(data, "ann")
    nested = directories.output / "a" / "b" / "c.png"
    nested.parent.mkdir(parents=True)
    nested.write_text("x")
    (directories.output / "link").symlink_to(place / "outside")
    (place / "outside").write_text("not Ann's")
    assert decide(data, RANGE, []) == []
    prepare_user(data, "ann")
    assert {nested.stat().st_uid, nested.parent.stat().st_uid, nested.stat().st_gid} == {RANGE.first}
    assert (place / "outside").stat().st_uid == 0
    decide(data, None, [])
    prepare_user(data, "ann")
    assert {nested.stat().st_uid, directories.output.stat().st_uid, nested.parent.stat().st_gid} == {0}
    assert directories.output.parent.stat().st_mode & 0o777 == 0o700


@needs_root
def test_what_has_a_second_name_elsewhere_is_not_given_away(place: Path) -> None:
    place.chmod(0o711)
    data = place / "data"
    data.mkdir()
    directories = prepare_user(data, "ann")
    secret = data / "secret.key"
    secret.write_text("a key")
    secret.chmod(0o600)
    os.link(secret, directories.input / "mine.png")
    deep = directories.temp
    for _ in range(DEPTH + 5):
        deep = deep / "d"
        deep.mkdir()
    decide(data, RANGE, [])
    prepare_user(data, "ann")
    assert secret.stat().st_uid == 0
    assert deep.stat().st_uid == 0 and (directories.temp / "d").stat().st_uid == RANGE.first


def user_dirs(directories: Directories) -> UserDirs:
    """As jobs see them."""
    return UserDirs(directories.input, directories.output, directories.temp)


@needs_root
def test_files_of_jobs_belong_to_their_user(data: Path) -> None:
    directories = prepare_user(data, "ann")
    folder = landing(directories.output, "a/b")
    partial, out = create_incoming(directories.output, "job")
    with out:
        out.write(b"picture")
    assert arrive(partial, folder / "x.png", durable=True)
    clear_incoming(directories.output, "job")
    for path in (folder, folder.parent, folder / "x.png"):
        assert path.stat().st_uid == RANGE.first
    assert resolve(user_dirs(directories), "a/b/x.png [output]") == (folder / "x.png").resolve()
    (directories.temp / "old").touch()
    os.utime(directories.temp / "old", (1, 1))
    assert prune_temp(directories) == 1


@needs_root
@pytest.mark.parametrize("target", ["secret.key", "users/bob/output/b.png"])
def test_links_a_user_planted_lead_nowhere(data: Path, target: str) -> None:
    """As on a kernel without Landlock, where a session can make symbolic links."""
    directories, bob = prepare_user(data, "ann"), prepare_user(data, "bob")
    (data / "secret.key").write_text("a key")
    (data / "secret.key").chmod(0o600)
    (bob.output / "b.png").write_text("Bob's")
    before = (data / target).read_text()
    with as_owner_of(directories.output):
        (directories.input / "link.png").symlink_to(data / target)
        (directories.output / "folder").symlink_to((data / target).parent)
        (directories.output / ".incoming").symlink_to((data / target).parent)
    assert resolve(user_dirs(directories), "link.png") is None
    with pytest.raises(Exception, match=r"leads out|could not be stored"):
        landing(directories.output, "folder/x")
    with pytest.raises(Exception, match="could not be stored"):
        create_incoming(directories.output, Path(target).name.removesuffix(".part"))
    assert (data / target).read_text() == before
    assert sorted(path.name for path in bob.output.iterdir()) == ["b.png"]


@needs_root
def test_a_thread_is_itself_again_afterwards(data: Path) -> None:
    directories = prepare_user(data, "ann")
    with pytest.raises(RuntimeError), as_owner_of(directories.user), as_owner_of(directories.user):
        raise RuntimeError
    (data / "mine").touch()
    assert (data / "mine").stat().st_uid == 0
    with acting_as(RANGE.first, RANGE.first):
        assert subprocess.run(["id", "-u"], capture_output=True, check=True).stdout == b"0\n"  # files only


@needs_root
def test_groups_of_root_are_laid_down_for_the_time_and_in_this_thread_alone(data: Path) -> None:
    """A group of the server's opens nothing to a user; other threads, and this one afterwards, keep theirs."""
    theirs = data / "groups.txt"
    theirs.write_text("for a group of the server's")
    os.chown(theirs, 0, 4242)
    theirs.chmod(0o640)

    def act() -> None:
        before = os.getgroups()
        with acting_as(RANGE.first, RANGE.first):
            assert os.getgroups() == []
            with pytest.raises(PermissionError):
                theirs.read_text()
            assert other.submit(os.getgroups).result() == before == [4242]
        assert os.getgroups() == before
        assert theirs.read_text()

    groups = os.getgroups()
    with ThreadPoolExecutor(1) as other:
        other.submit(int).result()  # its thread is there before
        os.setgroups([4242])
        try:
            act()
        finally:
            os.setgroups(groups)
