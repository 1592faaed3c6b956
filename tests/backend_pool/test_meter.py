"""The meter: what counts as loading, what as running, and when a run says nothing worth learning."""

from typing import Any

import pytest

from backend_pool.forecasts.meter import Meter
from backend_pool.prompts.needs import Choice

PROMPT: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a cat"}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": ""}},
    "4": {"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["1", 0], "lora_name": "a\\b.safetensors"}},
    "5": {"class_type": "KSampler", "inputs": {"model": ["4", 0], "positive": ["2", 0], "negative": ["3", 0]}},
    "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
}
SD, LORA = "checkpoints:sd.safetensors", "loras:a/b.safetensors"

Said = list[tuple[float, str, dict[str, Any]]]


def node(at_s: float, node_id: str | None) -> tuple[float, str, dict[str, Any]]:
    return at_s, "executing", {"node": node_id, "prompt_id": "p"}


def steps(node_id: str, first_s: float, each_s: float, count: int) -> Said:
    return [(first_s + each_s * i, "progress", {"node": node_id, "value": i + 1, "max": count}) for i in range(count)]


def heard(said: Said) -> Meter:
    meter = Meter(PROMPT)
    for at_s, kind, data in said:
        meter.hear(kind, data, at_s)
    return meter


START: Said = [(10.0, "execution_start", {}), (10.0, "execution_cached", {"nodes": []})]
COLD: Said = [
    *START,
    node(10, "1"),
    node(13, "2"),  # 2 s of loading the text encoder, 0.5 s of work
    node(15.5, "3"),
    node(16, "4"),
    node(17, "5"),
    *steps("5", 19.0, 0.5, 8),
    node(22.5, "6"),
    (24.0, "execution_success", {}),
    node(24.1, None),
]


def test_loading_is_told_from_running() -> None:
    meter = heard(COLD)
    assert meter.ended_well and meter.run_ms == 14_000
    assert meter.loads_s == pytest.approx({SD: 3 + 2 + 1.5, LORA: 1.0})
    assert meter.load_ms == 7500
    assert meter.executed == frozenset("123456")


def test_what_a_node_does_not_load_took_no_time() -> None:
    """A prompt may name a model in an input that the node does not have, for all to wait for it from then on."""
    prompt = PROMPT | {"7": {"class_type": "EmptyImage", "inputs": {"ckpt_name": "sd.safetensors"}}}
    meter = Meter(prompt, frozenset({Choice("CheckpointLoaderSimple", "ckpt_name", "sd.safetensors")}))
    for at_s, kind, data in [*START, node(10, "1"), node(12, "7"), node(19, None)]:
        meter.hear(kind, data, at_s)
    assert meter.loads_s == pytest.approx({SD: 2.0})


def test_cached_loaders_load_nothing_and_long_steps_are_work() -> None:
    meter = heard([*START, node(10, "5"), *steps("5", 12.1, 2.0, 5), node(20.1, "6"), (21, "execution_success", {})])
    assert meter.load_ms == 0 and meter.run_ms == 11_000 and meter.executed == frozenset("56")


def test_one_text_encoding_alone_is_loading() -> None:
    meter = heard([*START, node(10, "2"), node(14, "5"), (15, "execution_success", {})])
    assert meter.loads_s == pytest.approx({SD: 4.0})


def test_a_second_progress_bar_and_a_single_step_tell_nothing() -> None:
    meter = heard([*START, node(10, "5"), *steps("5", 19.0, 1, 1), *steps("5", 20, 1, 1), node(30, None)])
    assert meter.load_ms == 0 and meter.run_ms == 20_000


@pytest.mark.parametrize(
    "ending",
    [
        [(20.0, "execution_error", {"node_id": "5"}), node(21, None)],
        [(20.0, "execution_interrupted", {}), node(21, None)],
        [node(20, None), (21.0, "execution_success", {})],
    ],
)
def test_what_did_not_end_well_has_a_time_and_teaches_nothing(ending: Said) -> None:
    meter = heard([*START, node(10, "1"), node(12, "5"), *ending])
    assert meter.run_ms == 10_000 and not meter.ended_well


def test_a_gap_in_hearing_teaches_nothing() -> None:
    meter = Meter(PROMPT)
    meter.hear("execution_start", {}, 1.0)
    meter.missed()
    meter.hear("execution_success", {}, 5.0)
    assert meter.run_ms == 4000 and not meter.ended_well


def test_the_end_may_be_told_by_its_keeper() -> None:
    meter = heard([*START, node(10, "1")])
    assert meter.run_ms == 0
    meter.end(18.0)
    meter.end(30.0, well=True)
    assert meter.run_ms == 8000 and not meter.ended_well and meter.load_ms == 8000


def test_an_end_without_a_beginning_has_no_time() -> None:
    meter = heard([node(10, "1"), (20.0, "execution_success", {})])
    assert (meter.run_ms, meter.load_ms, meter.ended_well) == (0, 0, False)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("progress", {"node": "5", "value": "x"}),
        ("progress", {"node": "77", "value": 1}),
        ("progress", {}),
        ("executing", {"node": {"odd": 1}}),
        ("executing", {}),
        ("unheard_of", {"node": "5"}),
    ],
)
def test_odd_messages_do_no_harm(kind: str, data: dict[str, Any]) -> None:
    meter = heard([*START, node(10, "5"), (11.0, kind, data), (12.0, "execution_success", {})])
    assert meter.run_ms in (1000, 2000)


def test_a_graph_with_a_circle_ends() -> None:
    circle: dict[str, Any] = {
        "1": {"class_type": "XTextEncode", "inputs": {"a": ["2", 0]}},
        "2": {"class_type": "Y", "inputs": {"a": ["1", 0]}},
    }
    meter = Meter(circle)
    for at_s, kind, data in [*START, node(10, "1"), (12.0, "execution_success", {})]:
        meter.hear(kind, data, at_s)
    assert meter.load_ms == 0
