"""Files that make whoever opens them wait: neither Landlock nor the filter alone lets a session make one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from user_sessions import landlock, seccomp

CONFINED = """
import ctypes, errno, json, os, stat, sys
from pathlib import Path
from user_sessions import landlock, sandbox, seccomp
layer, folder = sys.argv[1], Path(sys.argv[2])
sandbox.prctl(sandbox.PR_SET_NO_NEW_PRIVS, 1)
if layer == "landlock":
    landlock.restrict([landlock.Rule(folder, landlock.WRITE, required=True)], ())
elif layer == "seccomp":
    seccomp.install(network=False)
told = {}
for name, kind in (("fifo", stat.S_IFIFO), ("socket", stat.S_IFSOCK), ("plain", stat.S_IFREG), ("bare", 0)):
    try:
        os.mknod(folder / name, kind | 0o600)
        told[name] = "made"
    except OSError as error:
        told[name] = errno.errorcode[error.errno]
print(json.dumps(told))
"""


@pytest.mark.parametrize(
    ("layer", "answer"),
    [
        ("none", "made"),
        pytest.param("landlock", "EACCES", marks=pytest.mark.skipif(not landlock.abi(), reason="NO LANDLOCK HERE")),
        pytest.param("seccomp", "EPERM", marks=pytest.mark.skipif(not seccomp.supported(), reason="NO FILTER HERE")),
    ],
)
def test_each_layer_refuses_what_is_no_plain_file(tmp_path: Path, layer: str, answer: str) -> None:
    """And lets plain ones be made, which is what mknod without a kind means too."""
    command = [sys.executable, "-c", CONFINED, layer, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert json.loads(told) == {"fifo": answer, "socket": answer, "plain": "made", "bare": "made"}
