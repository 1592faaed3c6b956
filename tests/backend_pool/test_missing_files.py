"""Files that are missing are named when the prompt is submitted; the user's own are no strange values of lists."""

from pathlib import Path
from typing import Any

import pytest

from backend_pool.files.missing import with_files
from backend_pool.files.user_files import UserDirs, resolve
from backend_pool.prompts.validation import Verdict, validate
from tests.backend_pool.rig import user_dirs
from tests.backend_pool.test_file_inputs import INFO
from tests.engine.graphs import node


@pytest.fixture
def dirs(tmp_path: Path) -> UserDirs:
    """Directories with a latent, a picture and a mesh."""
    made = user_dirs(tmp_path, 1)
    (made.input / "mine.latent").touch()
    (made.temp / "shot.png").touch()
    (made.input / "3d").mkdir()
    (made.input / "3d/a.glb").touch()
    return made


def judged(prompt: dict[str, Any], dirs: UserDirs) -> Verdict:
    """As the proxy judges it."""

    def custom(_kind: str, _name: str, value: Any, _spec: Any) -> str | None:
        return None if resolve(dirs, str(value)) is not None else f"Invalid image file: {value}"

    return with_files(validate(prompt, INFO, custom=custom), prompt, INFO, dirs)


def test_what_is_there_is_accepted(dirs: UserDirs) -> None:
    """Also a latent that no backend lists, and a scene's pictures."""
    scene = {"image": "shot.png [temp]", "mask": "shot.png [temp]", "recording": "", "camera_info": {"zoom": 1}}
    prompt = {
        "1": node("LoadLatent", latent="mine.latent"),
        "2": node("Load3D", model_file="3d/a.glb", image=scene),
        "9": node("Show", images=["1", 0], more=["2", 0]),
    }
    verdict = judged(prompt | {"7": node("Webcam", image="gone.png [temp]")}, dirs)
    assert verdict.ok and verdict.outputs == ["9"] and verdict.error is None


def test_what_is_missing_is_named_with_its_node(dirs: UserDirs) -> None:
    """Every file, in ComfyUI's shape."""
    scene = {"image": "gone1.png [temp]", "mask": "shot.png [temp]", "normal": "gone2.png [temp]"}
    prompt = {
        "2": node("Load3D", model_file="3d/a.glb", image=scene),
        "3": node("Webcam", image="gone1.png [temp]"),
        "9": node("Show", images=["2", 0], more=["3", 0]),
    }
    verdict = judged(prompt, dirs)
    assert not verdict.ok and verdict.outputs == [] and verdict.error is not None
    assert verdict.error["type"] == "prompt_outputs_failed_validation"
    assert verdict.error["details"].endswith("choose them again: gone1.png [temp], gone2.png [temp]")
    assert {key: len(entry["errors"]) for key, entry in verdict.node_errors.items()} == {"2": 2, "3": 1}
    entry = verdict.node_errors["3"]
    assert entry["class_type"] == "Webcam" and entry["dependent_outputs"] == ["9"]
    assert entry["errors"] == [
        {
            "type": "custom_validation_failed",
            "message": "Custom validation failed for node",
            "details": "image - Invalid file: gone1.png [temp]",
            "extra_info": {"input_name": "image"},
        }
    ]


@pytest.mark.parametrize("value", ["gone.latent", "../mine.latent", "mine", ""])
def test_a_strange_choice_is_refused(dirs: UserDirs, value: str) -> None:
    """As before: it is neither listed nor the user's file."""
    verdict = judged({"1": node("LoadLatent", latent=value), "9": node("Show", images=["1", 0])}, dirs)
    assert not verdict.ok and verdict.node_errors["1"]["errors"][0]["type"] == "value_not_in_list"
