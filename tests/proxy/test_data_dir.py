"""The data directory: closed to other accounts whatever it was before, without closing what is not ours."""

from pathlib import Path

import pytest

from proxy.data_dir import OURS, PRIVATE, prepare


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("before", [None, "empty", "ours"])
def test_it_is_closed_to_other_accounts(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "data"
    if before is not None:
        path.mkdir(mode=0o755)
        path.chmod(0o755)
    if before == "ours":
        (path / OURS).touch()
        for name in PRIVATE:
            (path / name).mkdir()
            (path / name).chmod(0o755)
    prepare(path)
    assert [mode(folder) for folder in (path, *(path / name for name in PRIVATE))] == [0o700] * (len(PRIVATE) + 1)


def test_a_folder_with_other_things_stays_open_and_ours_in_it_are_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters").chmod(0o755)
    (tmp_path / "users").mkdir()
    (tmp_path / "users").chmod(0o755)
    prepare(tmp_path)
    assert [mode(tmp_path), mode(tmp_path / "letters")] == [0o755, 0o755]
    assert [mode(tmp_path / name) for name in PRIVATE] == [0o700] * len(PRIVATE)
