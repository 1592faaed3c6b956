"""Words that both ends share: the pack, and the proxy's side of it (which imports this file)."""

PACK_VERSION = "1.1"
PROTOCOL = 1
PREFIX = "/cluster-worker/v1"
SECRET_HEADER = "X-Cluster-Worker-Secret"  # noqa: S105 - a header's name
HEARTBEAT_PATH = "/cluster/api/v1/workers/heartbeat"
CHALLENGE = ".cluster-challenge"
"""A file in the users' directory: who can read it has that directory mounted."""
KINDS = ("input", "output", "temp")
