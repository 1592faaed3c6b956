"""ComfyUI's verdict on a prompt, from an object_info mapping alone: pure, no I/O, never raises, never mutates.

Shapes, messages and order follow ComfyUI 0.8.0 (`validate_prompt` in execution.py); where that one answers 500,
recurses for ever or depends on the order of a set, this one gives an error in the same shape. The walk keeps its own
stack, so graphs of any depth are fine.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from backend_pool.prompts.dynamic_inputs import DYNAMIC_TYPES, live_inputs
from backend_pool.prompts.node_info import config, kind_of
from backend_pool.prompts.validation_values import (
    LONG_LIST,
    CustomCheck,
    Error,
    check_value,
    make_error,
    types_match,
)

__all__ = ["CustomCheck", "Verdict", "types_match", "validate"]

Checked = tuple[bool, list[Error]]

MANY_FAILURES = 100
NOT_IN_LIST = "value_not_in_list"


@dataclass(frozen=True)
class Verdict:
    """`ok` with `outputs` to run (and `node_errors` of the outputs left out), or the `error`.

    `prompt` is a copy with values coerced as ComfyUI does in place (`"7"` to 7 for an INT): what to execute.
    """

    ok: bool
    error: Error | None
    outputs: list[str]
    node_errors: dict[str, Any]
    prompt: dict[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The 400 body of POST /prompt."""
        return {"error": self.error, "node_errors": self.node_errors}


def validate(
    prompt: object,
    object_info: Mapping[str, Mapping[str, Any]],
    *,
    targets: object = None,
    custom: CustomCheck | None = None,
    opinions: Mapping[str, list[Error]] | None = None,
) -> Verdict:
    """Judge a prompt; `targets` is `partial_execution_targets`, a list of node ids or None for every output.

    `opinions` are errors that nodes themselves, at a backend, have found in their inputs: they count for ours.
    """
    if not isinstance(prompt, dict):
        return _refused("invalid_prompt", "The prompt must be an object of nodes.", f"Received {type(prompt).__name__}")
    if targets is not None and not isinstance(targets, list | tuple | set | frozenset):
        return _refused("invalid_prompt", "partial_execution_targets must be a list of node ids.", "")
    outputs: list[str] = []
    for node_id, node in prompt.items():
        kind = node.get("class_type") if isinstance(node, dict) else None
        if not isinstance(node, dict) or "class_type" not in node:
            message = "Cannot execute because a node is missing the class_type property."
            return _refused("invalid_prompt", message, f"Node ID '#{node_id}'")
        if not isinstance(kind, str) or kind not in object_info:
            message = f"Cannot execute because node {kind} does not exist."
            return _refused("invalid_prompt", message, f"Node ID '#{node_id}'")
        if object_info[kind].get("output_node") is True and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        return _refused("prompt_no_outputs", "Prompt has no outputs", "")
    return _Walk(_copy(prompt), object_info, custom, opinions or {}).judge(outputs)


class _Walk:
    """One validation: what was checked so far, shared by all outputs as in ComfyUI."""

    def __init__(
        self,
        prompt: dict[str, Any],
        object_info: Mapping[str, Mapping[str, Any]],
        custom: CustomCheck | None,
        opinions: Mapping[str, list[Error]],
    ) -> None:
        self.opinions = opinions
        self.prompt = prompt
        self.object_info = object_info
        self.custom = custom
        self.checked: dict[str, Checked] = {}

    def judge(self, outputs: list[str]) -> Verdict:
        good: list[str] = []
        details: list[str] = []
        failed: list[int] = []
        node_errors: dict[str, Any] = {}
        for output in outputs:
            try:
                valid, reasons = self._check(output)
            except Exception as error:
                valid, reasons = False, [_exception("exception_during_validation", "node", error)]
                self.checked[output] = (valid, reasons)
            if valid:
                good.append(output)
                continue
            details += [f"{reason['message']}: {reason['details']}" for reason in reasons]
            # ComfyUI lists every failure so far under every failed output; without a cap a prompt of a million bad
            # nodes would take a million squared.
            known = 0 if len(failed) < MANY_FAILURES else failed[-1]
            failed.append(len(self.checked))
            for node_id, (node_valid, node_reasons) in islice(self.checked.items(), known, None):
                # A node is blamed for its own errors only, not for those upstream of it.
                if not node_valid and node_reasons:
                    entry = {
                        "errors": node_reasons,
                        "dependent_outputs": [],
                        "class_type": self.prompt[node_id]["class_type"],
                    }
                    node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)
        if good:
            return Verdict(True, None, good, node_errors, self.prompt)
        whole = make_error("prompt_outputs_failed_validation", "Prompt outputs failed validation", "\n".join(details))
        return Verdict(False, whole, [], node_errors, self.prompt)

    def _check(self, root: str) -> Checked:
        """Depth first like ComfyUI's recursion, on a stack of generators that each ask for the node they need."""
        stack = {} if root in self.checked else {root: self._node(root)}
        answer = self.checked.get(root)
        failure: Exception | None = None
        while stack:
            node_id, steps = next(reversed(stack.items()))
            try:
                wanted = steps.throw(failure) if failure is not None else steps.send(answer)
            except StopIteration as done:
                stack.pop(node_id)
                # A cycle found below may have been blamed on this node already: keep that.
                answer, failure = self.checked.setdefault(node_id, done.value), None
            except Exception as error:
                stack.pop(node_id)
                answer, failure = None, error
            else:
                failure = None
                if wanted in stack and wanted not in self.checked:
                    self._blame_cycle(list(stack)[list(stack).index(wanted) :])
                answer = self.checked.get(wanted)
                if answer is None:
                    stack[wanted] = self._node(wanted)
        if failure is not None:
            raise failure
        assert answer is not None
        return answer

    def _blame_cycle(self, nodes: list[str]) -> None:
        shown = [*nodes, nodes[0]] if len(nodes) <= LONG_LIST else nodes[:LONG_LIST]
        path = " -> ".join(f"{node_id} ({self.prompt[node_id]['class_type']})" for node_id in shown)
        for node_id in nodes:
            extra = {"node_id": node_id, "cycle_nodes": nodes[:LONG_LIST]}
            self.checked[node_id] = (
                False,
                [make_error("dependency_cycle", "Dependency cycle detected", path, **extra)],
            )

    def _node(self, node_id: str) -> Generator[str, Checked | None, Checked]:
        inputs = self.prompt[node_id]["inputs"]
        if not isinstance(inputs, dict):
            raise TypeError("inputs must be an object")
        kind = self.prompt[node_id]["class_type"]
        errors: list[Error] = []
        upstream_valid = True
        for group, name, spec in live_inputs(self.object_info[kind], inputs):
            info = [kind_of(spec), dict(config(spec))]
            if name not in inputs:
                if group == "required":
                    short = name.rpartition(".")[2]
                    errors.append(
                        make_error("required_input_missing", "Required input is missing", short, input_name=name)
                    )
                continue
            value = inputs[name]
            if not isinstance(value, list):
                error = check_value(kind, inputs, name, info, self.custom)
                errors += [error] if error else []
                continue
            error = self._link(name, value, info)
            if error:
                errors.append(error)
                continue
            try:
                answer = yield value[0]
                upstream_valid = upstream_valid and answer is not None and answer[0]
            except Exception as failure:
                upstream_valid = False
                reason = _exception("exception_during_inner_validation", "inner node", failure)
                reason["extra_info"] = (
                    {"input_name": name, "input_config": info} | reason["extra_info"] | {"linked_node": value}
                )
                self.checked[value[0]] = (False, [reason])
        if node_id in self.opinions:
            errors = _settled(errors, self.opinions[node_id])
        return (upstream_valid and not errors, errors)

    def _link(self, name: str, value: list[Any], info: list[Any]) -> Error | None:
        if len(value) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return make_error(
                "bad_linked_input", message, name, input_name=name, input_config=info, received_value=value
            )
        # What ComfyUI lets raise here (no such node, slot out of range) is reported by whoever asked for this node.
        source = self.object_info[self.prompt[value[0]]["class_type"]]
        received = tuple(source.get("output") or ())[value[1]]
        if types_match(received, info[0]) or info[0] in DYNAMIC_TYPES:
            return None
        return make_error(
            "return_type_mismatch",
            "Return type mismatch between linked nodes",
            f"{name}, received_type({received}) mismatch input_type({info[0]})",
            input_name=name,
            input_config=info,
            received_type=received,
            linked_node=value,
        )


def _settled(ours: list[Error], told: list[Error]) -> list[Error]:
    """The node's own errors. What one backend does not list another may: there both must find it missing."""
    unlisted = {error["extra_info"].get("input_name") for error in told if error["type"] == NOT_IN_LIST}
    both = [e for e in ours if e["type"] == NOT_IN_LIST and e["extra_info"].get("input_name") in unlisted]
    return [*both, *(error for error in told if error["type"] != NOT_IN_LIST)]


def _copy(prompt: dict[str, Any]) -> dict[str, Any]:
    """As deep as coercion writes."""
    return {
        node_id: node | {"inputs": dict(node["inputs"])} if isinstance(node.get("inputs"), dict) else dict(node)
        for node_id, node in prompt.items()
    }


def _refused(kind: str, message: str, details: str) -> Verdict:
    return Verdict(False, make_error(kind, message, details), [], {})


def _exception(kind: str, what: str, error: Exception) -> Error:
    module = type(error).__module__
    name = type(error).__qualname__ if module == "builtins" else f"{module}.{type(error).__qualname__}"
    extra = {"exception_type": name, "traceback": []}
    if kind == "exception_during_inner_validation":
        extra = {"exception_message": str(error)} | extra
    return make_error(kind, f"Exception when validating {what}", str(error), **extra)
