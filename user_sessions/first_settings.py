"""The WebUI settings a newcomer starts with, whatever runtime serves them."""

import re

VERSION = re.compile(r"\d+\.\d+\.\d+")


def first_settings(frontend_version: str) -> dict[str, object]:
    """What a newcomer starts with, so that the first visit lands on the canvas and no pop-up calls outside hosts.

    `InstalledVersion` is what the frontend itself would note for a newcomer, had it shown its tutorial: without it the
    defaults of old versions apply.
    """
    installed = {"Comfy.InstalledVersion": frontend_version} if VERSION.fullmatch(frontend_version) else {}
    return installed | {
        "Comfy.TutorialCompleted": True,
        # The first graph is shown whole, at about 50 %; the frontend's own limit of 8 px would leave its nodes blank.
        "LiteGraph.Canvas.MinFontSizeForLOD": 5,
        "Comfy.Notification.ShowVersionUpdates": False,
        "Comfy.Desktop.CloudNotificationShown": True,
        "Comfy.VersionCompatibility.DisableWarnings": True,
    }
