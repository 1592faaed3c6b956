"""Files in a user's directory are opened without waiting for anybody, and only where they seem to be."""

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.base.user_file_open import create_file, open_file, opened, remove_file

PATIENCE_S = 30.0
"""Far more than an open takes; one that waits for a FIFO's other end never comes back."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A user's directory beside somebody else's."""
    (tmp_path / "root/sub").mkdir(parents=True)
    (tmp_path / "root/sub/a.png").write_bytes(b"mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.png").write_bytes(b"secret")
    return tmp_path / "root"


async def promptly(fifo: Path, act: Callable[[], Any]) -> Any:
    """What an action in a thread answers; one that waits at the FIFO is let go, and fails the test."""
    acting = asyncio.get_running_loop().run_in_executor(None, act)
    done, _ = await asyncio.wait([acting], timeout=PATIENCE_S)
    if not done:
        os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))
        pytest.fail("waited for the other end of a FIFO")
    return acting.result()


@pytest.mark.parametrize("change", [False, True])
async def test_a_fifo_is_refused_at_once(root: Path, change: bool) -> None:
    os.mkfifo(root / "fifo.png")
    with pytest.raises(OSError, match="plain file"):
        await promptly(root / "fifo.png", lambda: open_file(root, root / "fifo.png", change=change))


async def test_a_fifo_in_a_new_files_place_makes_way(root: Path) -> None:
    """Or, where nothing may be replaced, is told of."""
    os.mkfifo(root / "new.png")
    with pytest.raises(FileExistsError):
        await promptly(root / "new.png", lambda: create_file(root, root / "new.png", replace=False))
    with await promptly(root / "new.png", lambda: create_file(root, root / "new.png")) as out:
        out.write(b"x")
    assert (root / "new.png").read_bytes() == b"x"


async def test_only_plain_files_are_opened(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "s"))
        (root / "link.png").symlink_to(root / "sub/a.png")
        (root / "out").symlink_to(root.parent / "other")
        (root / "loop").symlink_to(root / "loop")
        for name in ("s", "sub", "link.png", "out/a.png", "loop/a.png", "none.png", "../other/a.png"):
            with pytest.raises(OSError):
                open_file(root, root / name)
            with pytest.raises(OSError):
                async with opened(root, root / name):
                    pass


def test_links_inside_are_followed_and_others_are_not_written_through(root: Path) -> None:
    (root / "inside").symlink_to(root / "sub")
    with open_file(root, root / "inside/a.png") as content:
        assert content.read() == b"mine"
        assert os.get_blocking(content.fileno())
    (root / "new.png").symlink_to(root.parent / "other/a.png")
    with create_file(root, root / "new.png") as out:
        out.write(b"new")
    assert (root.parent / "other/a.png").read_bytes() == b"secret"
    (root / "away").symlink_to(root.parent / "other")
    with pytest.raises(PermissionError):
        remove_file(root, root / "away/a.png")
    remove_file(root, root / "away")
    remove_file(root, root / "away")
    assert (root.parent / "other/a.png").exists() and not (root / "away").is_symlink()


def test_a_folder_swapped_while_it_is_looked_at_leads_nowhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever is quick enough to come between the look at the names and the walk."""
    real, swapped = os.open, list[Path]()

    def swap(*given: Any, **more: Any) -> int:
        if not swapped:
            swapped.append((root / "sub").rename(root / "was"))
            (root / "sub").symlink_to(root.parent / "other")
        return real(*given, **more)

    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(OSError):
        open_file(root, root / "sub/a.png")
    assert swapped


async def test_a_file_is_closed_when_nobody_waits_for_it(root: Path) -> None:
    """A leaked descriptor is a ResourceWarning, which fails the suite."""

    async def read() -> None:
        async with opened(root, root / "sub/a.png") as content:
            assert await asyncio.to_thread(content.read) == b"mine"

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await read()
    await read()
