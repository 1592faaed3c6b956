"""What POST /prompt refuses, word by word: clients and the WebUI read these bodies."""

from typing import Any

import pytest

from tests.contract import graphs
from tests.contract.graphs import node
from tests.contract.servers import Server
from tests.contract.wire import Comfy

FAILED = ("prompt_outputs_failed_validation", "Prompt outputs failed validation")
NO_OUTPUTS = ("prompt_no_outputs", "Prompt has no outputs", "")
COLOR = ["INT", {"default": 0, "min": 0, "max": 16777215, "step": 1, "display": "color"}]
WIDTH = ["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}]
METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]


def preview_of(source: dict[str, Any], slot: int = 0) -> graphs.Prompt:
    return {"1": source, "2": node("PreviewImage", images=["1", slot])}


def scaled(**changed: Any) -> graphs.Prompt:
    prompt = graphs.chain(graphs.empty_image(1))
    prompt["2"]["inputs"].update(changed)
    return prompt


WHOLE_PROMPT = {
    "missing": ({}, ("no_prompt", "No prompt provided", "No prompt provided")),
    "empty": ({"prompt": {}}, NO_OUTPUTS),
    "no output node": ({"prompt": {"1": graphs.empty_image(1)}}, NO_OUTPUTS),
    "unknown target": ({"prompt": graphs.saved(6), "partial_execution_targets": ["nope"]}, NO_OUTPUTS),
    "unknown class": (
        {"prompt": {**graphs.saved(1), "9": node("Nope")}},
        ("invalid_prompt", "Cannot execute because node Nope does not exist.", "Node ID '#9'"),
    ),
    "no class": (
        {"prompt": {"1": {"inputs": {}}}},
        ("invalid_prompt", "Cannot execute because a node is missing the class_type property.", "Node ID '#1'"),
    ),
}

ONE_NODE: dict[str, tuple[graphs.Prompt, str, str, dict[str, Any]]] = {
    "missing input of the output": (
        {"2": node("PreviewImage")},
        "Required input is missing: images",
        "2",
        {"type": "required_input_missing", "message": "Required input is missing", "details": "images",
         "extra_info": {"input_name": "images"}},
    ),
    "missing input further up": (
        preview_of(node("EmptyImage", width=64, height=64, batch_size=1)),
        "",
        "1",
        {"type": "required_input_missing", "message": "Required input is missing", "details": "color",
         "extra_info": {"input_name": "color"}},
    ),
    "not a number": (
        preview_of({**graphs.empty_image(0), "inputs": {**graphs.empty_image(0)["inputs"], "color": "red"}}),
        "",
        "1",
        {"type": "invalid_input_type", "message": "Failed to convert an input value to a INT value",
         "details": "color, red, invalid literal for int() with base 10: 'red'",
         "extra_info": {"input_name": "color", "input_config": COLOR, "received_value": "red",
                        "exception_message": "invalid literal for int() with base 10: 'red'"}},
    ),
    "too small": (
        preview_of(graphs.empty_image(1, width=0)),
        "",
        "1",
        {"type": "value_smaller_than_min", "message": "Value 0 smaller than min of 1", "details": "width",
         "extra_info": {"input_name": "width", "input_config": WIDTH, "received_value": 0}},
    ),
    "too big": (
        preview_of(graphs.empty_image(2**25)),
        "",
        "1",
        {"type": "value_bigger_than_max", "message": "Value 33554432 bigger than max of 16777215", "details": "color",
         "extra_info": {"input_name": "color", "input_config": COLOR, "received_value": 2**25}},
    ),
    "not in the list": (
        scaled(upscale_method="magic"),
        "",
        "2",
        {"type": "value_not_in_list", "message": "Value not in list",
         "details": f"upscale_method: 'magic' not in {METHODS}",
         "extra_info": {"input_name": "upscale_method", "input_config": [METHODS, {}], "received_value": "magic"}},
    ),
    "half a link": (
        {"2": node("PreviewImage", images=["1"])},
        "Bad linked input, must be a length-2 list of [node_id, slot_index]: images",
        "2",
        {"type": "bad_linked_input", "message": "Bad linked input, must be a length-2 list of [node_id, slot_index]",
         "details": "images",
         "extra_info": {"input_name": "images", "input_config": ["IMAGE", {}], "received_value": ["1"]}},
    ),
    "link of another type": (
        preview_of(node("SolidMask", value=1.0, width=8, height=8)),
        "Return type mismatch between linked nodes: images, received_type(MASK) mismatch input_type(IMAGE)",
        "2",
        {"type": "return_type_mismatch", "message": "Return type mismatch between linked nodes",
         "details": "images, received_type(MASK) mismatch input_type(IMAGE)",
         "extra_info": {"input_name": "images", "input_config": ["IMAGE", {}], "received_type": "MASK",
                        "linked_node": ["1", 0]}},
    ),
    "file that is not there": (
        preview_of(node("LoadImage", image="nope.png")),
        "",
        "1",
        {"type": "custom_validation_failed", "message": "Custom validation failed for node",
         "details": "image - Invalid image file: nope.png", "extra_info": {"input_name": "image"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WHOLE_PROMPT)
async def test_a_prompt_that_cannot_run_at_all(comfy: Comfy, server: Server, case: str) -> None:
    body, (kind, message, details) = WHOLE_PROMPT[case]
    answer = await comfy.post("/prompt", body)
    assert answer.status == 400
    error = {"type": kind, "message": message, "details": details, "extra_info": {}}
    if (server.name, case) == ("proxy", "unknown class"):  # ComfyUI's words, and who it is that lacks the node
        error["details"] = f"{details}. No backend has the node Nope."
        error["extra_info"] = {"node_id": "9", "class_type": "Nope", "backends": 0, "of": 1}
    assert answer.json() == {"error": error, "node_errors": {}}


@pytest.mark.parametrize("case", ONE_NODE)
async def test_a_node_that_does_not_validate(comfy: Comfy, case: str) -> None:
    prompt, details, blamed, error = ONE_NODE[case]
    answer = await comfy.post("/prompt", {"prompt": prompt})
    assert answer.status == 400
    assert answer.json() == {
        "error": {"type": FAILED[0], "message": FAILED[1], "details": details, "extra_info": {}},
        "node_errors": {
            blamed: {
                "errors": [error],
                "dependent_outputs": ["4"] if "4" in prompt else ["2"],
                "class_type": prompt[blamed]["class_type"],
            }
        },
    }


async def test_a_link_to_a_missing_node_is_an_error_of_the_node_that_links(comfy: Comfy) -> None:
    answer = await comfy.post("/prompt", {"prompt": {"2": node("PreviewImage", images=["77", 0])}})
    assert answer.status == 400
    assert answer.json()["error"]["details"] == "Exception when validating node: '77'"
    (error,) = answer.json()["node_errors"]["2"]["errors"]
    assert (error["type"], error["details"]) == ("exception_during_validation", "'77'")
    assert error["extra_info"]["exception_type"] == "KeyError"


async def test_valid_outputs_run_when_others_do_not_validate(comfy: Comfy) -> None:
    async with comfy.socket("partly") as socket:
        body = {"prompt": {**graphs.saved(5, "partly"), "7": node("PreviewImage")}, "client_id": "partly"}
        answer = await comfy.post("/prompt", body)
        assert answer.status == 200
        assert answer.json()["node_errors"]["7"]["dependent_outputs"] == ["7"]
        await socket.job(answer.json()["prompt_id"])
    entry = await comfy.history(answer.json()["prompt_id"])
    assert list(entry["outputs"]) == ["2"]
    assert entry["prompt"][4] == ["2"]


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/octet-stream", "application/x-www-form-urlencoded"]
)
async def test_the_content_type_does_not_matter(comfy: Comfy, content_type: str) -> None:
    answer = await comfy.call("POST", "/prompt", data=b'{"prompt": {}}', headers={"Content-Type": content_type})
    assert answer.json()["error"]["type"] == "prompt_no_outputs"


async def test_what_is_not_json_is_refused_and_harms_nothing(comfy: Comfy) -> None:
    answer = await comfy.call("POST", "/prompt", data=b"{nope")
    assert answer.status in {400, 500}  # ComfyUI 0.8.0 lets the parser's exception out as a 500
    assert (await comfy.get("/prompt")).json() == {"exec_info": {"queue_remaining": 0}}


@pytest.mark.parametrize(
    "prompt", [[], [1], "text", 7, True, None, {"1": 5}, {"1": []}, {"1": {"class_type": "EmptyImage"}}]
)
async def test_malformed_prompts_are_refused_and_harm_nothing(comfy: Comfy, prompt: object) -> None:
    """ComfyUI 0.8.0 answers most of these with a 500; what matters is that nothing runs and nothing breaks."""
    answer = await comfy.post("/prompt", {"prompt": prompt})
    assert 400 <= answer.status <= 500
    assert (await comfy.get("/queue")).json() == {"queue_running": [], "queue_pending": []}


async def test_a_number_of_the_clients_and_the_front_of_the_queue(comfy: Comfy) -> None:
    numbered = (await comfy.post("/prompt", {"prompt": graphs.saved(11), "number": 5})).json()
    assert numbered["number"] == 5.0
    assert isinstance(numbered["number"], float)
    assert numbered["node_errors"] == {}
    first = (await comfy.post("/prompt", {"prompt": graphs.saved(12)})).json()["number"]
    front = (await comfy.post("/prompt", {"prompt": graphs.saved(13), "front": True})).json()["number"]
    assert front == -(first + 1)
