"""A user's prompt judged against the pool: ComfyUI's own verdict, and in words what of it no backend can give. Pure.

Refused at once is only what no backend has, whether it is up or not: what a backend has that is away is waited for.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from backend_pool.files.user_models import Files
from backend_pool.offers.fitness import demands, lacking
from backend_pool.offers.pool_info import PoolInfo
from backend_pool.prompts.needs import Choice
from backend_pool.prompts.second_opinion import Opinions
from backend_pool.prompts.spelling import respelled, spelled
from backend_pool.prompts.validation import CustomCheck, Verdict, validate
from backend_pool.prompts.validation_values import make_error

NAMED = 4
"""Backends that a refusal names."""


def judge(
    prompt: object,
    pool: PoolInfo,
    files: Files,
    *,
    targets: object = None,
    custom: CustomCheck | None = None,
    opinions: Opinions | None = None,
) -> Verdict:
    """The verdict on a prompt as submitted. Blocking for as long as listing the user's files takes."""
    refused = _not_allowed(prompt, pool)
    if refused is not None:
        return refused
    info = pool.of_user(files)
    verdict = validate(_in_the_unions_words(prompt, info), info, targets=targets, custom=custom, opinions=opinions)
    if not verdict.ok:
        other = _by_another_definition(prompt, pool, targets, custom)
        return _in_words(verdict, prompt, pool) if other is None else other
    return _on_one_backend(verdict, pool) if len(pool.providers) > 1 else verdict


def absent_class(verdict: Verdict, prompt: object, pool: PoolInfo) -> tuple[str, str] | None:
    """(node id, class) that a verdict refused because nobody has it."""
    if verdict.ok or verdict.error is None or verdict.error["type"] != "invalid_prompt":
        return None
    for node_id, node in prompt.items() if isinstance(prompt, Mapping) else ():
        kind = node.get("class_type") if isinstance(node, Mapping) else None
        if not isinstance(kind, str):
            return None
        if kind not in pool.union:
            return None if kind in pool.denied else (str(node_id), kind)
    return None


def _in_the_unions_words(prompt: object, info: Mapping[str, Any]) -> object:
    return respelled(prompt, info) if isinstance(prompt, dict) else prompt


def _not_allowed(prompt: object, pool: PoolInfo) -> Verdict | None:
    nodes = prompt.items() if isinstance(prompt, Mapping) else ()
    for node_id, node in nodes:
        kind = node.get("class_type") if isinstance(node, Mapping) else None
        if isinstance(kind, str) and kind in pool.denied:
            message = f"Cannot execute because node {kind} does not exist."
            return _whole("invalid_prompt", message, f"Node ID '#{node_id}'. The administrators do not allow it here.")
    hidden = pool.hidden.named_in(prompt)
    if hidden is None:
        return None
    node_id, key, file = hidden
    reason = make_error(
        "value_not_in_list", "Value not in list", f"{key}: '{file}' is not available here", input_name=key
    )
    return _of_node(prompt, node_id, reason, f"{file} is not available here.")


def _by_another_definition(
    prompt: object, pool: PoolInfo, targets: object, custom: CustomCheck | None
) -> Verdict | None:
    """The good verdict of a backend that defines a class otherwise than the union shows it."""
    nodes = prompt.values() if isinstance(prompt, Mapping) else ()
    kinds = {kind for node in nodes if isinstance(node, Mapping) and isinstance(kind := node.get("class_type"), str)}
    apart = {key for kind in kinds for key in pool.varied.get(kind, ())}
    for provider in pool.providers:
        info = provider.offer.info
        if provider.key in apart and not kinds & pool.denied:
            verdict = validate(_in_the_unions_words(prompt, info), info, targets=targets, custom=custom)
            if verdict.ok:
                return verdict
    return None


def _in_words(verdict: Verdict, prompt: object, pool: PoolInfo) -> Verdict:
    """The same refusal; nodes and models that no backend has are named as such."""
    assert verdict.error is not None
    absent = absent_class(verdict, prompt, pool)
    if absent is not None:
        extra = {"node_id": absent[0], "class_type": absent[1], "backends": 0, "of": len(pool.providers)}
        details = f"{verdict.error['details']}. No backend has the node {absent[1]}."
        return replace(verdict, error={**verdict.error, "details": details, "extra_info": extra})
    said: list[str] = []
    node_errors = {
        node_id: {**entry, "errors": [_reason(entry, error, pool, said) for error in entry["errors"]]}
        for node_id, entry in verdict.node_errors.items()
    }
    lines = [line for line in (verdict.error["details"], *dict.fromkeys(said)) if line]
    error = {**verdict.error, "details": "\n".join(lines)}
    return replace(verdict, error=error, node_errors=node_errors)


def _reason(entry: Mapping[str, Any], error: dict[str, Any], pool: PoolInfo, said: list[str]) -> dict[str, Any]:
    value, key = error["extra_info"].get("received_value"), error["extra_info"].get("input_name")
    if error["type"] != "value_not_in_list" or not isinstance(value, str) or not isinstance(key, str):
        return error
    if not Choice(entry["class_type"], key, spelled(value)).is_model:
        return error
    words = f"{value} is on none of {_backends(len(pool.providers))}."
    said.append(words)
    extra = {**error["extra_info"], "backends": 0, "of": len(pool.providers)}
    return {**error, "details": f"{error['details']}. {words}", "extra_info": extra}


def _on_one_backend(verdict: Verdict, pool: PoolInfo) -> Verdict:
    """Refused when each thing is somewhere, but no backend has all of them."""
    asked = demands(verdict.prompt, verdict.outputs, pool)
    missing = {provider.key: lacking(asked, provider) for provider in pool.providers}
    if None in missing.values():
        return verdict
    each = [f"{provider.name} lacks {missing[provider.key]}" for provider in pool.providers]
    more = f"; and {len(each) - NAMED} more" if len(each) > NAMED else ""
    details = f"Each is on a backend but on no single one together: {'; '.join(each[:NAMED])}{more}."
    message = "No single backend has all nodes and models of this prompt."
    return _whole("no_single_backend", message, details, backends=0, of=len(pool.providers))


def _of_node(prompt: Any, node_id: str, reason: dict[str, Any], words: str) -> Verdict:
    entry = {"errors": [reason], "dependent_outputs": [], "class_type": str(prompt[node_id].get("class_type"))}
    whole = make_error("prompt_outputs_failed_validation", "Prompt outputs failed validation", words)
    return Verdict(False, whole, [], {node_id: entry})


def _whole(kind: str, message: str, details: str, **extra: Any) -> Verdict:
    return Verdict(False, make_error(kind, message, details, **extra), [], {})


def _backends(number: int) -> str:
    return "1 backend" if number == 1 else f"{number} backends"
