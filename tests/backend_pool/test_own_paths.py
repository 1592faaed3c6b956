"""What a user reads of paths at a worker."""

from typing import Any

import pytest

from backend_pool.files.own_paths import OwnPaths

PATHS = OwnPaths(["0123abcd", "ann (1)"])


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("not a model: /srv/users/ann (1)/output/checkpoints/my x.pt", "not a model: checkpoints/my x.pt"),
        (["/scratch/w-1/0123abcd/temp/a.png", 7, None], ["a.png", 7, None]),
        ({"a": {"b": 'File "/ann (1)/input/a.png"'}}, {"a": {"b": 'File "a.png"'}}),
        ("/srv/users/ben/output/x.pt", "/srv/users/ben/output/x.pt"),
        ("/srv/models/checkpoints/x.pt", "/srv/models/checkpoints/x.pt"),
        ("a/0123abcd/b", "a/0123abcd/b"),
    ],
)
def test_own_paths_become_names(said: Any, read: Any) -> None:
    """Those of others, and of models of the pool, stay as they are."""
    assert PATHS.removed(said) == read
