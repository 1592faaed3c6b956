"""What a backend's error says about the backend: out of memory, a broken GPU, or only the user's workflow. Pure.

Texts are torch's, CUDA's, cuDNN's and ROCm's, as ComfyUI passes them on in `execution_error`.
"""

import re
from collections.abc import Mapping
from typing import Any

from backend_pool.comfy.result import Result, error_of
from backend_pool.prompts.texts import texts_of
from backend_pool.runs.ladder import Mishap

LINE = 200

MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|CU[A-Z]+_STATUS_ALLOC_FAILED|would exceed allowed memory"
    r"|not enough GPU video memory|DefaultCPUAllocator: (can't allocate|not enough) memory",
    re.IGNORECASE,
)
FAULT = re.compile(
    r"CUDA (driver )?error|HIP error|device-side assert|illegal memory access|unspecified launch failure"
    r"|cuDNN error: CUDNN_STATUS_(?!NOT_SUPPORTED|BAD_PARAM)|CUBLAS_STATUS_(NOT_INITIALIZED|EXECUTION_FAILED|INTERNAL)"
    r"|NVML_SUCCESS == |No CUDA GPUs are available"
    r"|uncorrectable ECC|fallen off the bus|no CUDA-capable device|CUDA initialization|lost the GPU",
    re.IGNORECASE,
)
PLAIN = ("RuntimeError", "SystemError")
"""Types that a driver's failure comes as, beside torch's own. The text of others may be a user's."""
DRIVER_S = re.compile(
    r"(CUDA|HIP) (driver )?error:|cuDNN error: CUDNN_|(CUDA error: )?CUBLAS_STATUS_|CUDA initialization:"
    r"|(CUDA|HIP|XPU|MPS backend) out of memory|not enough GPU video memory|no CUDA-capable device"
    r"|\[enforce fail at [^\]]{1,200}\] .{0,40}DefaultCPUAllocator: |NVML_SUCCESS == |No CUDA GPUs are available",
    re.IGNORECASE,
)
"""How an error of those types begins that is a driver's. ComfyUI puts names of files into errors of its own
(comfy/sd.py: "Could not detect model type of: ..."), and a user may call a file as they like."""


def mishap_of(messages: list[Any], prompt: Mapping[str, Any]) -> Mishap | None:
    """Whether an ended job failed by its backend's doing; None for the user's own errors and for success.

    Words that stand in the prompt as well are the user's.
    """
    error = error_of(messages)
    if error is None:
        return None
    kind, text = str(error.get("exception_type", "")), str(error.get("exception_message", "")).lstrip()
    if kind in PLAIN:
        begins = DRIVER_S.match(text)
        if begins is None or any(begins[0].lower() in own.lower() for own in texts_of(prompt)):
            return None
    elif not kind.startswith(("torch.", "cupy", "cuda.")):
        return None
    if MEMORY.search(kind) or MEMORY.search(text):
        return Mishap.MEMORY
    if "AcceleratorError" in kind or FAULT.search(text):
        return Mishap.FAULT
    return None


def said(result: Result) -> str:
    """What the backend said, in a line."""
    error = error_of(result.messages) or {}
    return " ".join(str(error.get("exception_message", "")).split())[:LINE]


def with_hint(result: Result, hint: str) -> Result:
    """The result with a sentence more in its error."""
    error = error_of(result.messages)
    if error is None or not hint:
        return result
    text = f"{str(error.get('exception_message', '')).rstrip()}\n\n{hint}"
    messages = [[m[0], {**m[1], "exception_message": text}] if m[1] is error else m for m in result.messages]
    return Result(result.outputs, result.meta, messages)
