"""Attempts on other users' files, the server's, and what all sessions run. Standard library only."""

import os
import sys
from pathlib import Path

from .means import (  # noqa: TID252 - a pack has a name made of its path
    Facts,
    changed,
    names,
    write_and_remove,
)


def try_read_anothers_file(facts: Facts) -> object:
    return Path(facts["ann"]["output"], "secret.png").read_text()


def try_list_anothers_directory(facts: Facts) -> object:
    return names(facts["ann"]["output"])


def try_list_the_users(facts: Facts) -> object:
    return names(Path(facts["data"], "users"))


def try_list_the_data_directory(facts: Facts) -> object:
    return names(facts["data"])


def try_write_into_anothers_directory(facts: Facts) -> object:
    return Path(facts["ann"]["input"], "planted").write_text("x")


def try_overwrite_anothers_file(facts: Facts) -> object:
    return Path(facts["ann"]["output"], "secret.png").write_text("x")


def try_truncate_anothers_file(facts: Facts) -> object:
    return os.truncate(Path(facts["ann"]["output"], "secret.png"), 1)


def try_remove_anothers_file(facts: Facts) -> object:
    return Path(facts["ann"]["output"], "secret.png").unlink()


def try_move_anothers_file_here(facts: Facts) -> object:
    return Path(facts["ann"]["output"], "secret.png").rename(Path(facts["mine"]["output"], "taken.png"))


def try_link_anothers_file_here(facts: Facts) -> object:
    return os.link(Path(facts["ann"]["output"], "secret.png"), Path(facts["mine"]["output"], "linked.png"))


def try_link_the_key_here(facts: Facts) -> object:
    return os.link(Path(facts["data"], "secret.key"), Path(facts["mine"]["input"], "key.png"))


def try_plant_a_link_to_the_key(facts: Facts) -> object:
    return Path(facts["mine"]["output"], "key.png").symlink_to(Path(facts["data"], "secret.key"))


def try_replace_my_directory_by_a_link(facts: Facts) -> object:
    mine = Path(facts["mine"]["output"])
    mine.rename(mine.with_name("output.away"))
    return mine.symlink_to(facts["ann"]["output"])


def try_read_the_database(facts: Facts) -> object:
    return Path(facts["data"], "cluster.db").read_bytes()[:16]


def try_write_the_database(facts: Facts) -> object:
    return os.open(Path(facts["data"], "cluster.db"), os.O_RDWR)


def try_read_the_key(facts: Facts) -> object:
    return Path(facts["data"], "secret.key").read_text()


def try_read_the_hosts_token(facts: Facts) -> object:
    return Path(facts["run"], "host.token").read_text()


def try_read_anothers_log(facts: Facts) -> object:
    return Path(facts["ann"]["log"]).read_text()


def try_read_the_machines_accounts(_facts: Facts) -> object:
    return Path("/etc/passwd").read_text()


def try_list_the_root(_facts: Facts) -> object:
    return names("/")


def try_write_to_the_temporary_folder(facts: Facts) -> object:
    return Path(facts["data"]).parent.joinpath("evil").write_text("x")


def try_write_shared_memory(_facts: Facts) -> object:
    path = Path(f"/dev/shm/hostile-{os.getpid()}")
    path.write_text("x")
    return path.unlink()


def try_set_times_of_anothers_file(facts: Facts) -> object:
    path = Path(facts["ann"]["output"], "secret.png")
    os.utime(path, (1, 1))
    return changed(path.stat().st_mtime == 1)


def try_lock_anothers_file_away(facts: Facts) -> object:
    path = Path(facts["ann"]["output"], "secret.png")
    path.chmod(0)
    return changed(path.stat().st_mode & 0o777 == 0)


def try_mark_anothers_file(facts: Facts) -> object:
    return os.setxattr(Path(facts["ann"]["output"], "secret.png"), "user.mark", b"x")


def try_write_a_public_model(facts: Facts) -> object:
    return Path(facts["data"], "public/models/evil.safetensors").write_text("x")


def try_write_a_public_custom_node(facts: Facts) -> object:
    return Path(facts["data"], "public/custom_nodes/evil.py").write_text("x")


def try_move_the_public_directory(facts: Facts) -> object:
    models = Path(facts["data"], "public/models")
    return models.rename(models.with_name("gone")).rename(models)


def try_plant_compiled_code(facts: Facts) -> object:
    return write_and_remove(Path(facts["code"], "__pycache__", f"evil.{sys.implementation.cache_tag}.pyc"))


def try_plant_code_in_the_standard_library(_facts: Facts) -> object:
    return write_and_remove(Path(os.__file__).parent / "hostile_evil.py")


def try_plant_a_site_file(facts: Facts) -> object:
    return write_and_remove(Path(facts["packages"], "hostile_evil.pth"))


def try_write_the_frontends_cache(facts: Facts) -> object:
    return write_and_remove(Path(facts["data"], "cache/frontend/evil.js"))
