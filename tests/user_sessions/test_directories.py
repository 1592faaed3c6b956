"""Directories, specs and run directories: what is made, with which mode, and what is refused."""

import errno
import os
import socket
import tempfile
import time
from pathlib import Path

import pytest

from proxy.base.errors import BadInput, ConfigError, DiskFull, Unavailable
from proxy.base.log_file import LOG_BYTES, open_log, tail, trim, trim_log
from proxy.base.names import slug
from tests.user_sessions.studio import make_settings, make_spec
from user_sessions.directories import failures, make_private, prepare_public, prepare_user, prune_temp
from user_sessions.run_dir import SOCKET_BYTES, clear, fits, host_socket, run_dir, session_socket
from user_sessions.runtime import SessionSpec


def test_a_users_directories_are_private_and_made_once(tmp_path: Path) -> None:
    directories = prepare_user(tmp_path, "ann")
    assert prepare_user(tmp_path, "ann") == directories
    for path in (*directories.all(), directories.input.parent):
        assert path.stat().st_mode & 0o777 == 0o700


def test_modes_that_drifted_are_put_right(tmp_path: Path) -> None:
    directories = prepare_user(tmp_path, "ann")
    directories.output.chmod(0o777)
    prepare_user(tmp_path, "ann")
    assert directories.output.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("part", ["", "input", "user"])
def test_a_link_in_place_of_a_directory_is_refused(tmp_path: Path, part: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "data" / "users" / "ann" / part
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable, match="not a plain directory"):
        prepare_user(tmp_path / "data", "ann")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "public").write_text("")
    with pytest.raises(Unavailable, match="public"):
        prepare_public(tmp_path)
    with pytest.raises(Unavailable, match="not a plain directory"):
        make_private(tmp_path / "public")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_called_that(number: int) -> None:
    with pytest.raises(DiskFull, match="Free some space"), failures(Path("/data")):
        raise OSError(number, os.strerror(number))


def test_only_old_previews_are_pruned(tmp_path: Path) -> None:
    directories = prepare_user(tmp_path, "ann")
    old, new, nested = (directories.temp / name for name in ("old.png", "new.png", "deep/er/old.png"))
    nested.parent.mkdir(parents=True)
    outside = tmp_path / "outside"
    for path in (old, new, nested, outside):
        path.write_text("x")
    (directories.temp / "link").symlink_to(outside)
    long_ago = time.time() - 1000
    for path in (old, nested, outside):
        os.utime(path, (long_ago, long_ago))
    assert prune_temp(directories, 500) == 2
    assert sorted(path.name for path in directories.temp.iterdir()) == ["link", "new.png"]
    assert outside.exists()


def test_a_spec_survives_the_journey_and_hides_its_secret(place: Path) -> None:
    spec = make_spec(make_settings(place), "ann")
    assert SessionSpec.from_json(spec.to_json()) == spec
    assert spec.secret not in repr(spec)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("session_id", ""),
        ("user", None),
        ("socket", "a/b"),
        ("public", "/a/../b"),
        ("log", "/a\0b"),
        ("directories", []),
        ("directories", {"input": "/a"}),
        ("max_upload_mb", True),
        ("max_upload_mb", "9"),
    ],
)
def test_a_damaged_spec_is_refused_by_name(place: Path, field: str, value: object) -> None:
    good = make_spec(make_settings(place), "ann").to_json()
    with pytest.raises(BadInput):
        SessionSpec.from_json(good | {field: value})


def test_the_run_directory_is_in_the_data_where_sockets_fit(place: Path) -> None:
    settings = make_settings(place)
    assert run_dir(settings) == place / "data" / "run"
    longest = slug("x" * 100)
    with socket.socket(socket.AF_UNIX) as listener:
        path = session_socket(run_dir(settings), longest)
        path.parent.mkdir()
        listener.bind(str(path))


def test_a_long_data_directory_gets_short_sockets_of_its_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    settings = make_settings(place, data_dir=place / ("d" * 60) / "data")
    run = run_dir(settings)
    assert run.parent == place and fits(run) and run.stat().st_mode & 0o777 == 0o700
    assert run_dir(settings) == run
    assert run_dir(make_settings(place, data_dir=place / ("e" * 60) / "data")) != run
    run.rmdir()
    run.symlink_to(place)
    with pytest.raises(Unavailable, match="not a plain directory"):
        run_dir(settings)


def test_only_a_temporary_run_directory_out_of_use_is_cleared(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    long = place / ("d" * 60) / "data"
    settings = make_settings(place, data_dir=long)
    run = run_dir(settings)
    for left in (host_socket(run), run / "engine-1.json"):
        left.touch()
        clear(settings)
        assert left.exists()
        left.unlink()
    (run / "ann").mkdir()
    (run / "ann" / "session.sock").touch()
    clear(settings)
    assert not run.exists()
    clear(settings)  # again: nothing to do
    for known in (make_settings(place), make_settings(place, data_dir=long, run_dir=place / "known")):
        run = run_dir(known)
        clear(known)
        assert run.exists()


def test_a_run_directory_that_is_too_long_is_a_setting_to_change(place: Path) -> None:
    with pytest.raises(ConfigError, match="run_dir"):
        run_dir(make_settings(place, run_dir=place / ("r" * SOCKET_BYTES)))


def test_a_log_keeps_its_newest_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "session.log"
    fd = open_log(path)
    try:
        os.write(fd, b"".join(b"line %04d\n" % number for number in range(1000)))
        assert not trim_log(fd, 10_000, 100)
        assert trim_log(fd, 9_999, 100)
        os.write(fd, b"after\n")
    finally:
        os.close(fd)
    lines = path.read_text().splitlines()
    assert lines[0].startswith("... older lines") and lines[1] == "line 0991" and lines[-1] == "after"
    assert path.stat().st_mode & 0o777 == 0o600
    assert tail(path, 20) == "line 0999\nafter"
    assert tail(tmp_path / "none") == ""


def test_a_log_is_trimmed_before_its_writer_starts(tmp_path: Path) -> None:
    path = tmp_path / "host.log"
    trim(path)
    assert path.read_bytes() == b""
    path.write_bytes(b"a line\n" * (LOG_BYTES // 7 + 1))
    trim(path)
    assert path.stat().st_size < LOG_BYTES
    assert path.read_text().startswith("... older lines") and path.read_text().endswith("a line\n")


def test_a_log_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("private")
    (tmp_path / "log").symlink_to(tmp_path / "real")
    with pytest.raises(OSError):
        open_log(tmp_path / "log")
    assert tail(tmp_path / "log") == ""
