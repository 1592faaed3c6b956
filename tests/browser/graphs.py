"""Workflows in the frontend's own format."""

from typing import Any


def scaled_and_blurred(image: str = "") -> dict[str, Any]:
    """LoadImage -> ImageScale -> ImageBlur -> SaveImage and PreviewImage."""
    types = [
        ("LoadImage", [image, "image"]),
        ("ImageScale", ["bilinear", 320, 240, "disabled"]),
        ("ImageBlur", [4, 2.0]),
        ("SaveImage", ["browser"]),
        ("PreviewImage", []),
    ]
    links = [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"], [3, 3, 0, 4, 0, "IMAGE"], [4, 3, 0, 5, 0, "IMAGE"]]
    nodes = [
        {
            "id": number,
            "type": name,
            "pos": [number * 330 - 300, 100],
            "size": [300, 330],
            "flags": {},
            "order": number,
            "mode": 0,
            "inputs": _input(number, name),
            "outputs": _outputs(number, name),
            "properties": {"Node name for S&R": name},
            "widgets_values": values,
        }
        for number, (name, values) in enumerate(types, start=1)
    ]
    return {"last_node_id": 5, "last_link_id": 4, "nodes": nodes, "links": links, "version": 0.4}


def mask_shown(image: str = "") -> dict[str, Any]:
    """LoadImage -> its mask -> MaskToImage -> SaveImage."""
    mask, picture = {"type": "MASK", "name": "mask"}, {"type": "IMAGE", "name": "images"}
    nodes = [
        (
            "LoadImage",
            [],
            [{"name": "IMAGE", "type": "IMAGE", "links": None}, {**mask, "links": [1]}],
            [image, "image"],
        ),
        ("MaskToImage", [{**mask, "link": 1}], [{**picture, "links": [2]}], []),
        ("SaveImage", [{**picture, "link": 2}], [], ["mask"]),
    ]
    return {
        "last_node_id": 3,
        "last_link_id": 2,
        "nodes": [
            {
                "id": number,
                "type": name,
                "pos": [number * 330 - 300, 100],
                "size": [300, 330],
                "flags": {},
                "order": number,
                "mode": 0,
                "inputs": inputs,
                "outputs": outputs,
                "properties": {"Node name for S&R": name},
                "widgets_values": values,
            }
            for number, (name, inputs, outputs, values) in enumerate(nodes, start=1)
        ],
        "links": [[1, 1, 1, 2, 0, "MASK"], [2, 2, 0, 3, 0, "IMAGE"]],
        "version": 0.4,
    }


def _input(number: int, name: str) -> list[dict[str, Any]]:
    if name == "LoadImage":
        return []
    plural = name in ("SaveImage", "PreviewImage")
    return [{"name": "images" if plural else "image", "type": "IMAGE", "link": number - 1}]


def _outputs(number: int, name: str) -> list[dict[str, Any]]:
    if name in ("SaveImage", "PreviewImage"):
        return []
    picture = {"name": "IMAGE", "type": "IMAGE", "links": [3, 4] if number == 3 else [number]}
    return [picture, {"name": "MASK", "type": "MASK", "links": None}] if name == "LoadImage" else [picture]
