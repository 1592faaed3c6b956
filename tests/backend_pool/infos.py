"""Small object_info documents, and backends that offer them, for the tests of matching and staging."""

from typing import Any

from backend_pool.offers.offer import Offer, Provider


def info(*checkpoints: str, **more: Any) -> dict[str, Any]:
    """A small object_info."""
    return {
        "Loader": {"input": {"required": {"ckpt_name": [list(checkpoints), {}]}}},
        "LoadImage": {"input": {"required": {"image": [["example.png"], {"image_upload": True}]}}},
        "LoadOut": {
            "input": {"required": {"image": ["COMBO", {"image_upload": True, "image_folder": "output", "options": []}]}}
        },
        "Odd": {"input": {"optional": {"file": [["on-disk.bin"], {}], "n": ["INT", {"default": 1}], "x": "STRING"}}},
        "Save": {"input": {"required": {"filename_prefix": ["STRING", {}]}}, "output_node": True},
        "Show": {"input": {"required": {"images": ["IMAGE"]}}, "output_node": True},
        **more,
    }


def provider(key: int, document: dict[str, Any], name: str = "", **more: Any) -> Provider:
    """A backend that offers these nodes; `models` are its folders."""
    models = {folder: tuple(names) for folder, names in more.pop("models", {}).items()}
    return Provider(key, name or f"gpu-{key}", Offer(document, models), **more)


def providers(*documents: dict[str, Any]) -> list[Provider]:
    """One backend for each, called gpu-1, gpu-2, ..."""
    return [provider(key, document) for key, document in enumerate(documents, 1)]
