"""A stand-in for ComfyUI with the places that sessions hook into, and nothing else: no torch, no nodes, no frontend.

Written from the protocol notes, not from its code. What is true of the real one is tested against the real one (tests
marked `comfyui`); this one lets every machine test what happens around it, and what happens when it is broken.
"""

from pathlib import Path

VERSION = "0.8.0"

CLI_ARGS = """
import argparse
import comfy.options

parser = argparse.ArgumentParser()
for flag in ("--cpu", "--disable-auto-launch", "--disable-all-custom-nodes", "--log-stdout"):
    parser.add_argument(flag, action="store_true")
for flag in ("--input-directory", "--output-directory", "--temp-directory", "--user-directory", "--front-end-root"):
    parser.add_argument(flag)
parser.add_argument("--verbose", default="INFO")
parser.add_argument("--database-url", default="sqlite:///install.db")
parser.add_argument("--max-upload-size", type=float, default=100)
parser.add_argument("--whitelist-custom-nodes", nargs="+", default=[])
args = parser.parse_args(None if comfy.options.args_parsing else [])
"""

OPTIONS = """
args_parsing = False

def enable_args_parsing():
    global args_parsing
    args_parsing = True
"""

LOGGER = """
import collections, datetime, io, logging, sys

logs = None

class Interceptor(io.TextIOWrapper):
    def __init__(self, stream):
        super().__init__(stream.buffer, encoding=stream.encoding, line_buffering=True)

    def write(self, text):
        logs.append({"t": datetime.datetime.now().isoformat(), "m": text})
        return super().write(text)

def setup_logger(log_level="INFO", use_stdout=False):
    global logs
    logs = collections.deque(maxlen=300)
    sys.stdout, sys.stderr = Interceptor(sys.stdout), Interceptor(sys.stderr)
    logging.getLogger().setLevel(log_level)
    logging.getLogger().addHandler(logging.StreamHandler())
"""

FOLDER_PATHS = """
import os

base = os.path.dirname(os.path.realpath(__file__))
folder_names_and_paths = {
    "checkpoints": ([os.path.join(base, "models", "checkpoints")], {".safetensors"}),
    "custom_nodes": ([os.path.join(base, "custom_nodes")], set()),
}
filename_list_cache = {}
directories = {name: os.path.join(base, name) for name in ("input", "output", "temp", "user")}

def get_input_directory(): return directories["input"]
def get_output_directory(): return directories["output"]
def get_temp_directory(): return directories["temp"]
def get_user_directory(): return directories["user"]
def set_input_directory(path): directories["input"] = path
def set_output_directory(path): directories["output"] = path
def set_temp_directory(path): directories["temp"] = path
def set_user_directory(path): directories["user"] = path
def get_folder_paths(kind): return list(folder_names_and_paths[kind][0])

def add_model_folder_path(kind, path, is_default=False):
    paths = folder_names_and_paths.setdefault(kind, ([], set()))[0]
    if path not in paths:
        paths.append(path)
"""

NODES = """
import importlib.util, logging, os, sys, traceback
import folder_paths

NODE_CLASS_MAPPINGS = {"Core": object}
EXTENSION_WEB_DIRS = {}
LOADED_MODULE_DIRS = {}

async def load_custom_node(module_path, ignore=set(), module_parent="custom_nodes"):
    file = module_path if os.path.isfile(module_path) else os.path.join(module_path, "__init__.py")
    try:
        spec = importlib.util.spec_from_file_location(module_path.replace(".", "_x_"), file)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    except Exception as error:
        logging.warning(traceback.format_exc())
        logging.warning("Cannot import %s: %s", module_path, error)
        return False
    NODE_CLASS_MAPPINGS.update(getattr(module, "NODE_CLASS_MAPPINGS", {}))
    LOADED_MODULE_DIRS[os.path.basename(module_path)] = module_path
    web = os.path.join(module_path, getattr(module, "WEB_DIRECTORY", "nothing"))
    if os.path.isdir(web):
        EXTENSION_WEB_DIRS[os.path.basename(module_path)] = web
    return True

async def init_extra_nodes():
    for folder in folder_paths.get_folder_paths("custom_nodes"):
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            if not name.startswith("__"):
                await load_custom_node(os.path.join(folder, name))
"""

SERVER = """
import asyncio, json, os
from aiohttp import ClientSession, web
import app.logger, execution, folder_paths, nodes
from comfy.cli_args import args

class PromptServer:
    instance = None

    def __init__(self, loop):
        PromptServer.instance = self
        self.loop, self.messages = loop, asyncio.Queue()
        self.prompt_queue = execution.Queue()
        self.app = web.Application(client_max_size=round(args.max_upload_size * 1024 * 1024))
        self.routes = routes = web.RouteTableDef()
        self.client_session = None
        self.web_root = os.path.join(folder_paths.base, "web")

        @routes.get("/")
        async def root(request):
            return web.Response(text="<title>double</title>", content_type="text/html")

        @routes.post("/prompt")
        async def prompt(request):
            self.prompt_queue.put(await request.json())
            return web.json_response({"prompt_id": "taken"})

        @routes.get("/folders")
        async def folders(request):
            names = folder_paths.folder_names_and_paths
            return web.json_response({
                "directories": folder_paths.directories, "checkpoints": names["checkpoints"][0],
                "database": args.database_url, "limit": args.max_upload_size, "cwd": os.getcwd(),
                "queue": len(self.prompt_queue), "nodes": sorted(nodes.NODE_CLASS_MAPPINGS),
            })

        @routes.post("/upload")
        async def upload(request):
            with open(os.path.join(folder_paths.get_input_directory(), "upload.bin"), "wb") as file:
                file.write(await request.read())
            return web.Response()

        @routes.get("/upload")
        async def uploaded(request):
            return web.FileResponse(os.path.join(folder_paths.get_input_directory(), "upload.bin"))

        @routes.get("/settings")
        async def settings(request):
            with open(os.path.join(folder_paths.get_user_directory(), "default", "comfy.settings.json")) as file:
                return web.json_response(json.load(file))

        @routes.get("/logs")
        async def logs(request):
            return web.json_response(list(app.logger.logs))

    async def setup(self):
        self.client_session = ClientSession()

    def add_routes(self):
        twins = [web.route(r.method, "/api" + r.path, r.handler) for r in self.routes if isinstance(r, web.RouteDef)]
        self.app.add_routes(twins)
        self.app.add_routes(self.routes)
        for name, folder in nodes.EXTENSION_WEB_DIRS.items():
            self.app.add_routes([web.static("/extensions/" + name, folder)])

    def send_sync(self, event, data, sid=None):
        self.loop.call_soon_threadsafe(self.messages.put_nowait, (event, data, sid))

    async def publish_loop(self):
        while True:
            json.dumps(await self.messages.get())
"""

EXECUTION = """
class Queue(list):
    put = list.append
"""

MAIN = """
import comfy.options
comfy.options.enable_args_parsing()
from comfy.cli_args import args
from app.logger import setup_logger
setup_logger(log_level=args.verbose, use_stdout=args.log_stdout)
import importlib.util, logging, os, shutil, sys
import folder_paths

def execute_prestartup_script():
    for folder in folder_paths.get_folder_paths("custom_nodes"):
        for name in os.listdir(folder):
            script = os.path.join(folder, name, "prestartup_script.py")
            if os.path.exists(script):
                spec = importlib.util.spec_from_file_location(name, script)
                spec.loader.exec_module(importlib.util.module_from_spec(spec))

folder_paths.set_input_directory(args.input_directory)
folder_paths.set_output_directory(args.output_directory)
folder_paths.set_user_directory(args.user_directory)
folder_paths.add_model_folder_path("checkpoints", os.path.join(args.output_directory, "checkpoints"))
execute_prestartup_script()

import asyncio, threading, time
import execution, nodes, server

def prompt_worker(queue, prompt_server):
    while True:
        if queue:
            queue.pop()
            logging.error("A PROMPT WAS RUN")
        time.sleep(0.01)

def cleanup_temp():
    shutil.rmtree(folder_paths.get_temp_directory(), ignore_errors=True)

def setup_database():
    with open(args.database_url.removeprefix("sqlite:///"), "a") as file:
        file.write("set up once\\n")

def start_comfyui(asyncio_loop=None):
    folder_paths.set_temp_directory(os.path.join(args.temp_directory, "temp"))
    cleanup_temp()
    loop = asyncio_loop or asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    prompt_server = server.PromptServer(loop)
    loop.run_until_complete(nodes.init_extra_nodes())
    setup_database()
    prompt_server.add_routes()
    threading.Thread(target=prompt_worker, daemon=True, args=(prompt_server.prompt_queue, prompt_server)).start()
    os.makedirs(folder_paths.get_temp_directory(), exist_ok=True)
    return loop, prompt_server, None
"""

FILES = {
    "main.py": MAIN,
    "server.py": SERVER,
    "nodes.py": NODES,
    "folder_paths.py": FOLDER_PATHS,
    "execution.py": EXECUTION,
    "comfy/options.py": OPTIONS,
    "comfy/cli_args.py": CLI_ARGS,
    "app/logger.py": LOGGER,
    "alembic_db/versions/0001_assets.py": "",
    "web/index.html": "<title>the frontend's</title>",
    "web/assets/app-12345678.js": "const answer = 42;\n" * 200,
}


def make_double(place: Path, *, version: str = VERSION, **changes: tuple[str, str]) -> Path:
    """Write it to `place` and return that. A change such as `main=("old text", "new text")` makes a bad one."""
    for name, text in FILES.items():
        old, new = changes.get(Path(name).stem, ("", ""))
        assert not old or old in text, f"{name} has no {old!r}"
        _write(place / name, text.replace(old, new) if old else text)
    _write(place / "comfyui_version.py", f'__version__ = "{version}"\n')
    for folder in ("models/checkpoints", "custom_nodes", "input", "user"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    _write(place / "input" / "private.txt", "of whoever used this install before")
    return place


def add_pack(place: Path, name: str, text: str, **more: str) -> Path:
    """A pack of custom nodes in that folder; `more` are further files by their stem."""
    _write(place / name / "__init__.py", text)
    for stem, content in more.items():
        _write(place / name / f"{stem}.py", content)
    return place / name


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
