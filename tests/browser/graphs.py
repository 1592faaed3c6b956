"""Workflows in the frontend's own format."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Node:
    """`inputs` name the node (counted from 1) and its slot that each one comes from."""

    type: str
    widgets: tuple[Any, ...] = ()
    inputs: tuple[tuple[str, int, int], ...] = ()
    outputs: tuple[str, ...] = ("IMAGE",)


def scaled_and_blurred(image: str = "") -> dict[str, Any]:
    """LoadImage -> ImageScale -> ImageBlur -> SaveImage and PreviewImage."""
    return workflow(
        Node("LoadImage", (image, "image"), outputs=("IMAGE", "MASK")),
        Node("ImageScale", ("bilinear", 320, 240, "disabled"), (("image", 1, 0),)),
        Node("ImageBlur", (4, 2.0), (("image", 2, 0),)),
        Node("SaveImage", ("browser",), (("images", 3, 0),), ()),
        Node("PreviewImage", (), (("images", 3, 0),), ()),
    )


def mask_shown(image: str = "") -> dict[str, Any]:
    """LoadImage -> its mask -> MaskToImage -> SaveImage."""
    return workflow(
        Node("LoadImage", (image, "image"), outputs=("IMAGE", "MASK")),
        Node("MaskToImage", (), (("mask", 1, 1),)),
        Node("SaveImage", ("mask",), (("images", 2, 0),), ()),
    )


def plain_picture() -> dict[str, Any]:
    """EmptyImage -> SaveImage."""
    return workflow(
        Node("EmptyImage", (256, 256, 1, 0x228B22)),
        Node("SaveImage", ("plain",), (("images", 1, 0),), ()),
    )


def workflow(*nodes: Node) -> dict[str, Any]:
    """The nodes in a row, from left to right."""
    links = [
        [source, slot, number, index, nodes[source - 1].outputs[slot]]
        for number, node in enumerate(nodes, start=1)
        for index, (_, source, slot) in enumerate(node.inputs)
    ]
    numbered = [[number, *link] for number, link in enumerate(links, start=1)]
    return {
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": [_node(number, node, numbered) for number, node in enumerate(nodes, start=1)],
        "links": numbered,
        "version": 0.4,
    }


def _node(number: int, node: Node, links: list[list[Any]]) -> dict[str, Any]:
    into = {link[4]: link for link in links if link[3] == number}
    out_of = [[link[0] for link in links if link[1:3] == [number, slot]] for slot in range(len(node.outputs))]
    return {
        "id": number,
        "type": node.type,
        "pos": [number * 330 - 300, 100],
        "size": [300, 330],
        "flags": {},
        "order": number,
        "mode": 0,
        "inputs": [
            {"name": name, "type": into[index][5], "link": into[index][0]}
            for index, (name, _, _) in enumerate(node.inputs)
        ],
        "outputs": [
            {"name": kind, "type": kind, "links": leaving} for kind, leaving in zip(node.outputs, out_of, strict=True)
        ],
        "properties": {"Node name for S&R": node.type},
        "widgets_values": list(node.widgets),
    }
