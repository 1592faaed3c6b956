"""A user's directories: names, containment, counters, arrival. And the addresses of backends."""

import errno
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_pool.backends.registry import Registry
from backend_pool.files.incoming import arrive, clear_incoming, create_incoming
from backend_pool.files.user_files import (
    UserDirs,
    annotated,
    disk_error,
    free_names,
    landing,
    listing,
    next_counter,
    resolve,
    safe_filename,
    safe_subfolder,
)
from backend_pool.model import BackendMode
from proxy.base.backend_url import clean_url
from proxy.base.errors import BadInput, Conflict, DiskFull, NotFound
from tests.backend_pool.rig import open_database, user_dirs


@pytest.fixture
def dirs(tmp_path: Path) -> UserDirs:
    """With some files, links out, and a shared folder."""
    made = user_dirs(tmp_path, 1)
    (tmp_path / "shared").mkdir()
    (tmp_path / "secret.txt").write_text("no")
    (tmp_path / "shared" / "common.png").touch()
    (made.input / "sub").mkdir()
    for name in ("a.png", "sub/b.png", "two words [x].png", "note.txt", ".hidden.png"):
        (made.input / name).touch()
    (made.output / "made.png").touch()
    (made.input / "link.txt").symlink_to(tmp_path / "secret.txt")
    (made.input / "out").symlink_to(tmp_path)
    (made.input / "loop").symlink_to(made.input / "loop")
    return UserDirs(made.input, made.output, made.temp, tmp_path / "shared")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a.png", "input/a.png"),
        ("sub/b.png", "input/sub/b.png"),
        ("two words [x].png", "input/two words [x].png"),
        ("a.png [input]", "input/a.png"),
        ("made.png [output]", "output/made.png"),
        ("common.png", "shared/common.png"),
        ("sub/../a.png", "input/a.png"),
        ("made.png", None),
        ("common.png [output]", None),
        ("sub", None),
        ("", None),
        ("../../../secret.txt", None),
        ("link.txt", None),
        ("out/secret.txt", None),
        ("loop", None),
        ("/etc/passwd", None),
        ("a.png\n", None),
        ("a\0.png", None),
        ("x" * 300, None),
        ("\ud800.png", None),
    ],
)
def test_a_value_names_the_user_s_own_file_or_none(dirs: UserDirs, value: str, found: str | None) -> None:
    """Links and dots that lead out are not followed."""
    path = resolve(dirs, value)
    assert (path is None) == (found is None)
    assert path is None or (found is not None and str(path).endswith(found))


@given(st.text())
def test_any_value_is_taken_apart(value: str) -> None:
    """Never an error."""
    name, folder = annotated(value)
    assert folder in ("input", "output", "temp")
    assert value in (name, f"{name} [{folder}]")


def test_listings_are_comfyui_s(dirs: UserDirs) -> None:
    """Sorted, top level, by kind; hidden ones and folders left out, shared inputs among them."""
    assert listing(dirs, "input", "image/") == ["a.png", "common.png", "two words [x].png"]
    assert listing(dirs, "output", "") == ["made.png"]
    assert listing(UserDirs(dirs.input / "none", dirs.output, dirs.temp), "input", "") == []


@pytest.mark.parametrize(
    ("subfolder", "safe"),
    [
        ("", ""),
        (".", ""),
        ("a", "a"),
        ("a/b/", "a/b"),
        ("a\\b", "a/b"),
        ("./a", "a"),
        ("..", None),
        ("a/../..", None),
        ("/a", None),
        ("\\a", None),
        ("a\x00", None),
        ("a/../b", None),
    ],
)
def test_subfolders(subfolder: str, safe: str | None) -> None:
    """What a backend or a prompt names, in normal form."""
    assert safe_subfolder(subfolder) == safe


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\0b", "x" * 256, "\udcff", "é" * 128])
def test_bad_filenames(name: str) -> None:
    """Nothing that is a path, nothing a disk refuses."""
    assert safe_filename(name) is None


@given(st.lists(st.integers(1, 99_999), max_size=8), st.text("ab_%.()", max_size=6))
def test_the_counter_is_one_more_than_the_largest(numbers: list[int], prefix: str) -> None:
    """As get_save_image_path counts; other prefixes do not matter, case does not either."""
    names = [f"{prefix}_{number:05}_.png" for number in numbers]
    others = [f"x{prefix}_88888_.png", f"{prefix}_7_.png", "odd"]
    assert next_counter([*(name.upper() for name in names), *others], prefix) == max(numbers, default=0) + 1


@pytest.mark.parametrize(
    ("there", "name", "taken", "best"),
    [
        ([], "a_00009_.png", (), ["a_00001_.png", "a_00002_.png"]),
        (["a_00003_.png"], "a_00001_.png", (), ["a_00004_.png"]),
        (["a_00003_.mp4"], "a_00001_.png", ("a_00004_.png",), ["a_00005_.png"]),
        (["b_00003_.png"], "a_00001.webp", (), ["a_00001.webp"]),
        ([], "plain.png", (), ["plain.png", "plain (1).png"]),
        (["plain.png"], "plain.png", ("plain (1).png",), ["plain (2).png"]),
        (["noext"], "noext", (), ["noext (1)"]),
        ([".dot"], ".dot", (), [".dot (1)"]),
    ],
)
def test_free_names(tmp_path: Path, there: list[str], name: str, taken: tuple[str, ...], best: list[str]) -> None:
    """Counted ones go on counting, others get a number in brackets."""
    for present in there:
        (tmp_path / present).touch()
    names = free_names(tmp_path, name, taken)
    assert [next(names) for _ in best] == best


@pytest.mark.parametrize("links", [True, False])
def test_an_arrival_never_overwrites(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the disk knows no hard links."""
    if not links:

        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
    path, out = create_incoming(tmp_path, "1-0")
    out.write(b"new")
    out.close()
    (tmp_path / "taken.png").write_bytes(b"old")
    assert not arrive(path, tmp_path / "taken.png", durable=True)
    assert arrive(path, tmp_path / "free.png", durable=False)
    assert ((tmp_path / "taken.png").read_bytes(), (tmp_path / "free.png").read_bytes()) == (b"old", b"new")
    clear_incoming(tmp_path, "1-")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["free.png", "taken.png"]


def test_clearing_leaves_other_jobs_alone(tmp_path: Path) -> None:
    """Keys are told apart; the folder goes with the last."""
    for key in ("1-0", "11-0"):
        create_incoming(tmp_path, key)[1].close()
    clear_incoming(tmp_path, "1-")
    assert [entry.name.partition(".")[0] for entry in (tmp_path / ".incoming").iterdir()] == ["11-0"]
    clear_incoming(tmp_path, "11-")
    assert not list(tmp_path.iterdir())


def test_a_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    """A session may make one; a job's file would land anywhere."""
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "nas").symlink_to(tmp_path)
    with pytest.raises(BadInput, match="remove that link"):
        landing(tmp_path / "output", "nas/deep")
    (tmp_path / "output" / "file").touch()
    with pytest.raises(DiskFull, match="Mend the folder"):
        landing(tmp_path / "output", "file/deep")


def test_disk_errors_say_what_to_do() -> None:
    """Room is only the cure where room is the trouble."""
    assert "Free some space" in disk_error(OSError(errno.ENOSPC, "No space left")).message
    assert "Mend the folder" in disk_error(OSError(errno.EACCES, "Permission denied")).message


# -- addresses of backends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_url", "clean"),
    [
        ("10.0.0.5:8188", "http://10.0.0.5:8188"),
        (" http://gpu/ ", "http://gpu"),
        ("https://u:p@gpu:1/base/", "https://u:p@gpu:1/base"),
        ("http://[::1]:8188", "http://[::1]:8188"),
    ],
)
def test_clean_urls(given_url: str, clean: str) -> None:
    """One spelling per backend."""
    assert clean_url(given_url) == clean


@pytest.mark.parametrize(
    "url",
    [
        *("", "http://", "ftp://gpu", "http://gpu:0", "http://gpu:99999", "http://gpu?x=1", "http://[::1"),
        *("not a url", "http://gp u", "http://g\npu", "http://gpu/a b", "http://gpu\x7f", "gpu\x00:1", "a\u00a0b"),
    ],
)
def test_bad_urls(url: str) -> None:
    """The message shows how one looks."""
    with pytest.raises(BadInput, match=re.escape("http://10.0.0.5:8188")):
        clean_url(url)


async def test_the_registry_keeps_names_and_addresses_apart(tmp_path: Path) -> None:
    """Each once; the name of an address holds no password."""
    db = open_database(tmp_path)
    registry = Registry(db)
    first = await registry.add("http://u:secret@gpu:1/")
    assert first.name == "gpu:1"
    for url, name in (("http://u:secret@gpu:1", "other"), ("http://gpu:2", "gpu:1")):
        with pytest.raises(Conflict):
            await registry.add(url, name)
    with pytest.raises(BadInput):
        await registry.add("http://gpu:3", "line\nbreak")
    assert (await registry.ensure("http://gpu:4/", None, "settings")).id == (
        await registry.ensure("gpu:4", "again", "settings")
    ).id
    await registry.keep_only("settings", [])
    assert [row.name for row in await registry.listing()] == ["gpu:1"]
    assert (await registry.set_mode(first.id or 0, BackendMode.DRAINING)).mode is BackendMode.DRAINING
    await registry.remove(first.id or 0)
    with pytest.raises(NotFound):
        await registry.remove(first.id or 0)
    db.close()
