"""Group `files`: what a file costs the server that sends it over HTTP, beside nginx."""

import contextlib
import subprocess
from pathlib import Path

import machine
from machine import pinned
from server import Server, free_port
from suite import SUBJECT, Case, Column

from . import nginx
from .echo import suite
from .generators import wrk_says
from .stream import GIB, PATIENCE_S, memory_directory, write_file

CONNECTIONS = 64
SIZES = {"1k": 1 << 10, "1m": 1 << 20, "1g": GIB}


def started(name, command, place):
    port = free_port()
    if name == "nginx":
        folder = place.options.directory
        nginx.write_conf(command, port, f"root {folder}; sendfile on;")
        Path(command[-1]).write_text(Path(command[-1]).read_text().replace("daemon off;", "daemon off; user root;"))
    return Server(name, command, place.server_cpu, port)


def requests(size):
    def run(name, command, place):
        """As many requests as wrk gets answered, on connections that stay open."""
        with started(name, command, place) as server:
            seconds = max(1, round(place.options.seconds))
            words = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", f"http://{server.address}/{size}"]
            before = machine.cpu_ns(server.process.pid)
            with pinned(place.client_cpu):
                done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
            cpu_ns = machine.cpu_ns(server.process.pid) - before
        try:
            found = wrk_says(done.stdout)
        except ValueError as problem:
            return {"valid": False, "objection": f"{problem}: {done.stderr[-200:]}"}
        if not found["messages"]:
            return found | {"valid": False, "objection": found.get("objection", "no request was answered")}
        return found | {"server_cpu_ns_per_request": cpu_ns / found["messages"],
                        "requests_per_s": found["messages"] / found["seconds"]}
    return run


def large(name, command, place):
    """One file to one curl, which throws it away."""
    with started(name, command, place) as server:
        words = ["curl", "-sS", "--fail", "-o", "/dev/null", "-w", "%{size_download} %{time_total}",
                 f"http://{server.address}/1g"]
        before = machine.cpu_ns(server.process.pid)
        with pinned(place.client_cpu):
            done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        cpu_ns = machine.cpu_ns(server.process.pid) - before
    size, _, seconds = done.stdout.partition(" ")
    if done.returncode or size != str(GIB):
        return {"valid": False, "objection": f"exit status {done.returncode}, {size} bytes: {done.stderr[-200:]}"}
    return {"server_cpu_ns_per_gib": cpu_ns, "seconds_per_gib": float(seconds), "valid": True}


REQUEST_COLUMNS = (
    Column("server_cpu_ns_per_request", "server CPU, µs per request", 1000, 2),
    Column("requests_per_s", "requests/s"),
)
CASES = {
    "files-1k": Case(f"1 KiB to wrk at {CONNECTIONS} connections", (), REQUEST_COLUMNS, run=requests("1k")),
    "files-1m": Case(f"1 MiB to wrk at {CONNECTIONS} connections", (), REQUEST_COLUMNS, run=requests("1m")),
    "files-1g": Case("1 GiB to curl", (), (
        Column("server_cpu_ns_per_gib", "server CPU, ms per GiB", 1e6, 0),
        Column("seconds_per_gib", "s per GiB", 1, 2)), run=large),
}


@contextlib.contextmanager
def servers(options):
    """Both have one worker, and the same files, in memory if there is room."""
    options.transfer_bytes = GIB
    with machine.folder(memory_directory(options)) as folder, machine.folder() as conf:
        options.directory = folder
        for name, size in SIZES.items():
            write_file(folder / name, size)
        ours = [options.built / SUBJECT, "serve", "files", folder, "--listen", "127.0.0.1:{port}", "--workers", "1"]
        yield [(SUBJECT, {case: ours for case in CASES}), ("nginx", {case: nginx.command(str(conf)) for case in CASES})]


FILES = suite("files", "Files over HTTP", CASES, servers)
