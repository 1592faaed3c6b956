"""Which tests stay together when several processes share the suite."""

import pytest

from tests.division import rank, unit


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tests/browser/test_runs.py::test_a[light]", "tests/browser/test_share.py::test_b[light]"),
        ("tests/contract/test_queue.py::test_a[proxy]", "tests/contract/test_files.py::test_b[proxy-case]"),
        ("tests/cli/test_verbs.py::test_a", "tests/cli/test_verbs.py::test_b[case]"),
        (
            "tests/user_sessions/test_hostile_node.py::test_attempt[own ids-a]",
            "tests/user_sessions/test_hostile_node.py::test_attempt[own ids-b]",
        ),
    ],
)
def test_tests_of_one_server_share_a_process(one: str, other: str) -> None:
    assert unit(one) == unit(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tests/contract/test_queue.py::test_a[proxy]", "tests/contract/test_queue.py::test_a[engine]"),
        ("tests/cli/test_verbs.py::test_a", "tests/cli/test_relay.py::test_a"),
        (
            "tests/user_sessions/test_hostile_node.py::test_attempt[own ids-a]",
            "tests/user_sessions/test_hostile_node.py::test_attempt[off-a]",
        ),
        ("tests/test_division.py::test_a", "tests/test_division.py::test_b"),
    ],
)
def test_others_need_not(one: str, other: str) -> None:
    assert unit(one) != unit(other)


def test_the_browsers_tests_begin_first() -> None:
    named = [
        "tests/base/test_names.py::test_a",
        "tests/cli/test_verbs.py::test_a",
        "tests/browser/test_runs.py::test_a",
    ]
    assert sorted(named, key=rank) == named[::-1]
