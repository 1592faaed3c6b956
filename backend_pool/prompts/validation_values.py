"""One constant of a prompt against its declaration in object_info: coercion, range, choices, type unions. Pure."""

from collections.abc import Callable
from typing import Any

CustomCheck = Callable[[str, str, Any, Any], str | None]
"""(class_type, input_name, value, spec) -> what is wrong, or None. Stands in for a node's VALIDATE_INPUTS."""

Error = dict[str, Any]

UPLOADS = ("image_upload", "video_upload", "audio_upload", "file_upload", "animated_image_upload")
ANY_TYPES = ("*", "COMFY_MATCHTYPE_V3")
LONG_LIST = 20
COERCIONS: dict[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


def types_match(received: object, wanted: object) -> bool:
    """Whether an output of type `received` may feed an input of type `wanted`; both may be unions `A,B`."""
    if received == wanted or received in ANY_TYPES or wanted in ANY_TYPES:
        return True
    if isinstance(received, list) and wanted == "COMBO":
        return True
    if not isinstance(received, str) or not isinstance(wanted, str):
        return False
    have, want = ({part.strip() for part in union.split(",")} for union in (received, wanted))
    return "*" in have or "*" in want or bool(have & want)


def check_value(
    kind: str, inputs: dict[str, Any], name: str, info: list[Any], custom: CustomCheck | None
) -> Error | None:
    """Coerce a constant in place and check it."""
    wanted, options = info
    value = inputs[name]
    try:
        if isinstance(value, dict) and "__value__" in value:
            value = inputs[name] = value["__value__"]  # how a list is told from a link
        if isinstance(wanted, str) and wanted in COERCIONS:
            value = inputs[name] = COERCIONS[wanted](value)
    except Exception as error:
        return make_error(
            "invalid_input_type",
            f"Failed to convert an input value to a {wanted} value",
            f"{name}, {value}, {error}",
            input_name=name,
            input_config=info,
            received_value=value,
            exception_message=str(error),
        )
    if any(options.get(flag) for flag in UPLOADS):
        message = custom(kind, name, value, info) if custom else None
        if message is None:
            return None
        return make_error(
            "custom_validation_failed",
            "Custom validation failed for node",
            f"{name} - {message}",
            input_name=name,
        )
    wrong = _out_of_range(name, value, info) or _not_in_list(name, value, info)
    if wrong is not None and wrong["type"] == "value_not_in_list" and isinstance(value, str) and "." in value:
        # LoadLatent and others list the files of a backend, but take their user's own.
        return None if custom is not None and custom(kind, name, value, info) is None else wrong
    return wrong


def make_error(kind: str, message: str, details: str, **extra: Any) -> Error:
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def _out_of_range(name: str, value: Any, info: list[Any]) -> Error | None:
    extra = {"input_name": name, "input_config": info, "received_value": value}
    low, high = info[1].get("min"), info[1].get("max")
    if low is not None and value < low:
        return make_error("value_smaller_than_min", f"Value {value} smaller than min of {low}", name, **extra)
    if high is not None and value > high:
        return make_error("value_bigger_than_max", f"Value {value} bigger than max of {high}", name, **extra)
    return None


def _not_in_list(name: str, value: Any, info: list[Any]) -> Error | None:
    wanted, options = info
    if isinstance(wanted, list):
        choices = wanted
    elif wanted == "COMBO" and not ("remote" in options and "options" not in options):
        choices = options.get("options") or []
    else:
        return None
    many = options.get("multiselect") and isinstance(value, list)
    wrong = [item for item in (value if many else [value]) if item not in choices]
    if not wrong:
        return None
    listed = f"(list of length {len(choices)})" if len(choices) > LONG_LIST else str(choices)
    shown = ", ".join(f"'{item}'" for item in wrong)
    return make_error(
        "value_not_in_list",
        "Value not in list",
        f"{name}: {shown} not in {listed}",
        input_name=name,
        input_config=None if len(choices) > LONG_LIST else info,
        received_value=value,
    )
