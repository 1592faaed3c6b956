"""Prompts that any ComfyUI can run without a model, each a fresh dictionary."""

from typing import Any

Prompt = dict[str, dict[str, Any]]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def empty_image(color: int, width: int = 64, height: int = 48) -> dict[str, Any]:
    return node("EmptyImage", width=width, height=height, batch_size=1, color=color)


def saved(color: int, prefix: str = "contract") -> Prompt:
    """EmptyImage -> SaveImage, the shortest whole job."""
    return {"1": empty_image(color), "2": node("SaveImage", images=["1", 0], filename_prefix=prefix)}


def chain(source: dict[str, Any], prefix: str = "chain") -> Prompt:
    """source -> ImageScale -> ImageBlur -> SaveImage, one way to walk it."""
    return {
        "1": source,
        "2": node("ImageScale", image=["1", 0], upscale_method="bilinear", width=32, height=24, crop="disabled"),
        "3": node("ImageBlur", image=["2", 0], blur_radius=2, sigma=1.0),
        "4": node("SaveImage", images=["3", 0], filename_prefix=prefix),
    }


def two_outputs(source: dict[str, Any]) -> Prompt:
    """The chain with a PreviewImage beside the SaveImage."""
    return {**chain(source, "two"), "5": node("PreviewImage", images=["3", 0])}


def long_chain(color: int, length: int = 40) -> Prompt:
    """Many blurs in a row: long enough to be interrupted between two nodes on any machine."""
    prompt: Prompt = {"0": empty_image(color, 768, 768)}
    for index in range(1, length + 1):
        prompt[str(index)] = node("ImageBlur", image=[str(index - 1), 0], blur_radius=8, sigma=1.0 + index / 100)
    prompt[str(length + 1)] = node("SaveImage", images=[str(length), 0], filename_prefix="long")
    return prompt
