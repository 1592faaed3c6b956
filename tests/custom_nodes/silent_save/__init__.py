"""A node that saves a picture and tells nobody: its `ui` is empty."""

from pathlib import Path

import folder_paths
from PIL import Image


class SilentSave:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"images": ("IMAGE",), "name": ("STRING", {"default": "silent"})}}

    RETURN_TYPES = ()
    FUNCTION = "save"
    OUTPUT_NODE = True
    CATEGORY = "tests"

    def save(self, images, name):
        folder = Path(folder_paths.get_output_directory()) / "silent"
        folder.mkdir(exist_ok=True)
        pixels = (images[0].cpu().numpy() * 255).astype("uint8")
        Image.fromarray(pixels).save(folder / f"{name}.png")
        return {}


NODE_CLASS_MAPPINGS = {"SilentSave": SilentSave}
