"""Nodes that tell of their files, or take them, in the ways that well-known packs do. A test's, not for use."""

import json
from pathlib import Path

import folder_paths


class TellClip:
    """As VideoHelperSuite's combine node: `gifs`, a sidecar picture, the prompt as JSON text within JSON."""

    OUTPUT_NODE, RETURN_TYPES, FUNCTION, CATEGORY = True, (), "tell", "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"filename_prefix": ("STRING", {"default": "clip"})},
            "hidden": {"prompt": "PROMPT"},
        }

    def tell(self, filename_prefix, prompt):
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
        clip, picture = f"{name}_{counter:05}.mp4", f"{name}_{counter:05}.png"
        Path(folder, clip).write_text(json.dumps({"comment": json.dumps(prompt)}))
        Path(folder, picture).write_text("picture")
        told = {"filename": clip, "subfolder": subfolder, "type": "output", "format": "video/h264-mp4"}
        told |= {"frame_rate": 8.0, "workflow": picture, "fullpath": str(Path(folder, clip))}
        return {"ui": {"gifs": [told], "flags": [True, None, 1.5]}}


class TellText:
    """Files that plain texts name, beside texts that name none."""

    OUTPUT_NODE, RETURN_TYPES, FUNCTION, CATEGORY = True, (), "tell", "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": ("STRING", {})}}

    def tell(self, name):
        for folder, suffix in (
            (folder_paths.get_temp_directory(), "png"),
            (folder_paths.get_output_directory(), "glb"),
        ):
            Path(folder).mkdir(exist_ok=True)
            Path(folder, f"{name}.{suffix}").write_text(suffix)
        return {"ui": {"result": [f"{name}.glb", None, f"temp/{name}.png"], "text": [f"temp/{name}.png"]}}


class TakeMany:
    """A list of files in one input, and a widget that names some."""

    OUTPUT_NODE, RETURN_TYPES, FUNCTION, CATEGORY = True, (), "take", "test"

    @classmethod
    def INPUT_TYPES(cls):
        files = ("COMBO", {"multiselect": True, "image_upload": True, "options": []})
        return {"required": {"files": files, "state": ("TEST_WIDGET", {})}}

    @classmethod
    def VALIDATE_INPUTS(cls, files):
        return all(folder_paths.exists_annotated_filepath(name) for name in files) or "a file is missing"

    def take(self, files, state):
        names = [*files, *state["files"]]
        sizes = [Path(folder_paths.get_annotated_filepath(name)).stat().st_size for name in names]
        return {"ui": {"sizes": sizes}}


NODE_CLASS_MAPPINGS = {"TellClip": TellClip, "TellText": TellText, "TakeMany": TakeMany}
