"""A node that sends events of its own: to whoever queued the prompt, and to everybody."""

from server import PromptServer

WEB_DIRECTORY = "web"


class Telling:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "text": ("STRING", {"default": "hello"})}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "tell"
    CATEGORY = "tests"

    def tell(self, image, text):
        server = PromptServer.instance
        server.send_sync("telling.you", {"text": text}, server.client_id)
        server.send_sync("telling.all", {"text": text})
        return (image,)


NODE_CLASS_MAPPINGS = {"Telling": Telling}
