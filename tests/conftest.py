"""What all tests share: their division among processes, and one compressed frontend for all servers."""

import os
from collections.abc import Generator

import pytest

from tests.division import Division, rank
from tests.packed_frontend import PACKED


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Division | None:
    """Ours instead of pytest-xdist's for `--dist loadscope`."""
    if config.getvalue("dist") != "loadscope":
        return None
    config.option.loadscopereorder = False
    return Division(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long first; else as they stand."""
    items.sort(key=lambda item: rank(item.nodeid))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make captured output fit for the channel between pytest-xdist's processes, which carries UTF-8 alone.

    Tests of odd file names log lone surrogates; one such line would end the whole run with an internal error.
    """
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session", autouse=True)
def _packed_frontend(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All processes of a run share the folder above theirs."""
    base = tmp_path_factory.getbasetemp()
    PACKED.place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "packed-frontend"
