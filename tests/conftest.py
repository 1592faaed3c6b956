"""What all tests share."""

from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make captured output fit for the channel between pytest-xdist's processes, which carries UTF-8 alone.

    Tests of odd file names log lone surrogates; one such line would end the whole run with an internal error.
    """
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
