"""Group `start`: how long a program takes to be there, and how large it is."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import pinned
from server import Server, free_port
from suite import SUBJECT, Case, Column

from . import nginx, peers
from .echo import suite


def ready(name, command, place):
    """From just before the spawn to the first connection that succeeds, for all in the same way."""
    port = free_port()
    if name == "nginx":
        nginx.write_conf(command, port, "return 204;")
    with Server(name, command, place.server_cpu, port) as started:
        return {"ready_ms": round(started.ready_ms, 3), "valid": True}


def to_the_end(_name, command, place):
    """From just before the spawn to the end, of a program that only says what it is."""
    with pinned(place.server_cpu):
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
        took_ms = (time.monotonic() - began) * 1000
    if done.returncode:
        return {"valid": False, "objection": f"exit status {done.returncode}"}
    return {"run_ms": round(took_ms, 3), "valid": True}


def size(_name, command, _place):
    """Of the file, as it is and without symbols. Shared libraries are not in it."""
    program = Path(os.path.realpath(shutil.which(command[0])))
    if not shutil.which("strip"):
        return {"file_bytes": program.stat().st_size, "stripped_bytes": None, "valid": True}
    with tempfile.TemporaryDirectory() as directory:
        stripped = Path(directory) / "stripped"
        subprocess.run(["strip", "-o", stripped, program], check=True, timeout=60, capture_output=True)
        return {"file_bytes": program.stat().st_size, "stripped_bytes": stripped.stat().st_size, "valid": True}


CASES = {
    "start-ready": Case("from the start to the first connection", (), (Column("ready_ms", "ms", 1, 2),), run=ready,
                        is_timed=False, is_start=True),
    "start-version": Case("the version, from the start to the end", (), (Column("run_ms", "ms", 1, 2),),
                          run=to_the_end, is_timed=False, is_start=True),
    "start-size": Case("the program's file", (), (
        Column("stripped_bytes", "KiB without symbols", 1024, 0), Column("file_bytes", "KiB", 1024, 0)), run=size,
        is_timed=False),
}


@contextlib.contextmanager
def programs(options):
    with tempfile.TemporaryDirectory() as directory:
        sockeye = str(options.built / SUBJECT)
        yield [
            (SUBJECT, {"start-ready": [sockeye, "serve", "echo", "--listen", "127.0.0.1:{port}"],
                       "start-version": [sockeye, "--version"], "start-size": [sockeye]}),
            ("ncat", {"start-ready": peers.ncat()[1], "start-version": ["ncat", "--version"],
                      "start-size": ["ncat"]}),
            ("socat", {"start-ready": peers.socat()[1], "start-version": ["socat", "-V"], "start-size": ["socat"]}),
            ("nc", {"start-ready": ["nc", "-l", "-k", "127.0.0.1", "{port}"], "start-size": ["nc"]}),
            ("nginx", {"start-ready": nginx.command(directory), "start-version": ["nginx", "-v"],
                       "start-size": ["nginx"]}),
            ("http.server", {"start-ready": [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory",
                                             directory, "{port}"]}),
        ]


START = suite("start", "Start-up and size", CASES, programs)
