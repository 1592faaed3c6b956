"""Labels, and what an operator changes about a backend: pure."""

from typing import Any

import pytest

from backend_pool.backends.change import MAX_NOTE, Change
from backend_pool.backends.labels import MOST, changed, cleaned
from backend_pool.model import Backend, BackendMode
from proxy.base.errors import BadInput, Conflict


def row(**more: Any) -> Backend:
    return Backend(name="gpu-1", url="http://a", source="registered", created_ms=1, **more)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([], []),
        (["fast", "fast"], ["fast"]),
        (["gpu=a100", " fast "], ["fast", "gpu=a100"]),
        (["gpu=a100", "gpu=h100"], ["gpu=h100"]),
        (["gpu", "gpu=h100"], ["gpu=h100"]),
        (["rack/7", "driver=550.54"], ["driver=550.54", "rack/7"]),
    ],
)
def test_labels_are_put_in_order(given: list[str], kept: list[str]) -> None:
    assert cleaned(given) == kept


@pytest.mark.parametrize(
    "bad", ["", " ", "=a", "a=", "a b", "-a", "a-", "a=b=c", "a\nb", "ä", "x" * 64, "k=" + "v" * 64, "a,b", "<b>"]
)
def test_what_is_no_label(bad: str) -> None:
    with pytest.raises(BadInput):
        cleaned([bad])


def test_labels_are_bounded() -> None:
    assert len(cleaned(f"l{n}" for n in range(MOST))) == MOST
    with pytest.raises(BadInput):
        cleaned(f"l{n}" for n in range(MOST + 1))


@pytest.mark.parametrize(
    ("add", "remove", "left"),
    [
        ([], [], ["fast", "gpu=a100"]),
        (["gpu=h100"], [], ["fast", "gpu=h100"]),
        ([], ["gpu"], ["fast"]),
        ([], ["gpu=a100"], ["fast"]),
        ([], ["gpu=h100", "nope"], ["fast", "gpu=a100"]),
        (["slow"], ["fast"], ["gpu=a100", "slow"]),
        (["fast"], ["fast"], ["fast", "gpu=a100"]),
    ],
)
def test_labels_change(add: list[str], remove: list[str], left: list[str]) -> None:
    assert changed(["fast", "gpu=a100"], add, remove) == left


def test_a_deadline_belongs_to_draining() -> None:
    backend = row()
    Change(mode=BackendMode.DRAINING, drain_by_ms=5).apply(backend)
    assert (backend.mode, backend.drain_by_ms) == (BackendMode.DRAINING, 5)
    Change(note="  a new\tdriver ").apply(backend)
    assert (backend.drain_by_ms, backend.note) == (5, "a new driver")
    Change(mode=BackendMode.DRAINING).apply(backend)
    assert backend.drain_by_ms is None, "draining again without one takes it back"
    for mode in (None, BackendMode.ACTIVE, BackendMode.DISABLED):
        with pytest.raises(BadInput):
            Change(mode=mode, drain_by_ms=5).apply(backend)


def test_trust_lifts_a_quarantine() -> None:
    backend = row(quarantine="CUDA error", quarantine_ms=7)
    Change(trust=True).apply(backend)
    assert (backend.quarantine, backend.quarantine_ms) == (None, None)
    with pytest.raises(Conflict, match="not in quarantine"):
        Change(trust=True).apply(backend)


def test_what_is_wrong_changes_nothing() -> None:
    backend = row(labels=["fast"], note="old")
    for wrong in (
        Change(mode=BackendMode.DISABLED, labels=("a b",)),
        Change(mode=BackendMode.DISABLED, note="x" * (MAX_NOTE + 1)),
        Change(mode=BackendMode.DISABLED, add=("new",), note="\x00"),
    ):
        with pytest.raises(BadInput):
            wrong.apply(backend)
    assert (backend.mode, backend.labels, backend.note) == (BackendMode.ACTIVE, ["fast"], "old")
