"""What a byte costs at best: group `limits`, and files through one connection: group `transfer`."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from machine import pinned
from server import Server, filled_in
from suite import SUBJECT, Case, Column

from .echo import suite

GIB = 1 << 30
HOST = "127.0.0.1"
PATIENCE_S = 120
# Of the file that is received, so many pieces are compared, the first and the last among them. All of it would take
# longer than the transfer.
COMPARED_PIECES, PIECE_BYTES = 64, 1 << 16
SOURCE_FILE_BYTES = 1 << 20  # as in limits/src/bin/source.rs


# ---------------------------------------------------------------- what a byte costs


def at_best(_name, command, place):
    """One connection that is never idle: a sender, and what takes the bytes."""
    built = place.options.built
    by, *receiver = command[1:]
    relays = receiver == ["splice_relay"]
    with contextlib.ExitStack() as stack:
        sink = Server("sink", [built / "sink", *(receiver if not relays else ())], place.server_cpu)
        server = stack.enter_context(sink)
        if relays:
            relay = [built / "splice_relay", "--to", server.address]
            server = stack.enter_context(Server("splice_relay", relay, place.server_cpu))
        options = place.options
        sender = [built / "stream", server.address, "--by", by, "--pid", str(server.process.pid),
                  "--duration", str(options.seconds), "--warmup", str(options.warmup)]
        with pinned(place.client_cpu):
            done = subprocess.run(sender, capture_output=True, text=True, timeout=PATIENCE_S)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return {"valid": False, "objection": f"the sender failed: {done.stderr.strip()[-200:]}"}


BYTES_CASES = {
    "limit-bytes": Case(
        "one connection that is never idle", (), (
            Column("both_cpu_ns_per_gib", "CPU of both ends, ms per GiB", 1e6, 0),
            Column("server_cpu_ns_per_gib", "of the receiver or relay, ms per GiB", 1e6, 0),
            Column("client_cpu_ns_per_gib", "of the sender, ms per GiB", 1e6, 0),
            Column("gib_per_s", "GiB/s", 1, 2),
        ), run=at_best),
}


@contextlib.contextmanager
def ways(options):
    stream = options.built / "stream"
    yield [(name, {"limit-bytes": [stream, *words]}) for name, words in (
        ("write, discarded", ["write"]),
        ("write, copied", ["write", "--copy"]),
        ("sendfile, discarded", ["sendfile"]),
        ("sendfile, copied", ["sendfile", "--copy"]),
        ("sendfile, spliced by a relay, discarded", ["sendfile", "splice_relay"]),
    )]


# ---------------------------------------------------------------- files


@contextlib.contextmanager
def tools(options):
    """The programs, and a file for them in memory: a disk would be what is measured."""
    parent = memory_directory(options)
    with tempfile.TemporaryDirectory(dir=parent) as directory:
        options.directory, options.in_memory = Path(directory), bool(parent)
        write_file(options.directory / "sent", options.transfer_bytes)
        sockeye = str(options.built / SUBJECT)
        yield [
            (SUBJECT, {"transfer-send": [sockeye, "connect", "--send-file", "{file}", "{host}", "{port}"],
                       "transfer-receive": [sockeye, "connect", "{host}", "{port}", ">", "{file}"]}),
            ("nc", {"transfer-send": ["nc", "-N", "{host}", "{port}", "<", "{file}"],
                    "transfer-receive": ["nc", "-d", "{host}", "{port}", ">", "{file}"]}),
            ("ncat", {"transfer-send": ["ncat", "--send-only", "{host}", "{port}", "<", "{file}"],
                      "transfer-receive": ["ncat", "--recv-only", "{host}", "{port}", ">", "{file}"]}),
            ("socat", {"transfer-send": ["socat", "-u", "FILE:{file}", "TCP4:{host}:{port}"],
                       "transfer-receive": ["socat", "-u", "TCP4:{host}:{port}", "CREATE:{file}"]}),
        ]


def memory_directory(options):
    """Where two such files fit, in memory if it can be."""
    needed = 2 * options.transfer_bytes + GIB
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and shutil.disk_usage(shared).free > needed else None


def write_file(path, size):
    """Written, not left sparse: a hole is one page of zeros again and again, and stays in the cache."""
    piece = os.urandom(SOURCE_FILE_BYTES)
    with path.open("wb") as file:
        for _ in range(size // len(piece)):
            file.write(piece)
        file.write(piece[:size % len(piece)])


def started(command, place, file):
    """The program under test, with its input and output as a shell would set them."""
    words, into, out = list(command), subprocess.DEVNULL, subprocess.DEVNULL
    for sign in ("<", ">"):
        if sign in words:
            words = words[:words.index(sign)]
            into, out = (file.open("rb"), out) if sign == "<" else (into, file.open("wb"))
    with pinned(place.server_cpu):
        process = subprocess.Popen(words, stdin=into, stdout=out, stderr=subprocess.PIPE, start_new_session=True)
    for handle in (into, out):
        if handle is not subprocess.DEVNULL:
            handle.close()
    return process


def waited(process):
    """Waits for a program to end. Its exit status and the time it ran on a CPU; the kernel scales user and system time
    to what was really used, so that their sum is exact."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, usage.ru_utime + usage.ru_stime
        time.sleep(0.0005)
    process.kill()
    process.wait()
    return None, 0


def transfer(command, place, file, other_end):
    """Runs a program to its end, against the server that is the other end."""
    host, port = other_end.address.split(":")
    command = filled_in(command, host=host, port=port, file=file)
    began = time.monotonic()
    process = started(command, place, file)
    status, cpu_s = waited(process)
    said = process.stderr.read().decode(errors="replace").strip()[-200:]
    process.stderr.close()
    gibibytes = place.options.transfer_bytes / GIB
    found = {"bytes": place.options.transfer_bytes, "seconds": time.monotonic() - began,
             "seconds_per_gib": (time.monotonic() - began) / gibibytes, "cpu_ns_per_gib": cpu_s * 1e9 / gibibytes,
             "exit_status": status, "in_memory": place.options.in_memory}
    if status is None:
        return found | {"valid": False, "objection": f"not done within {PATIENCE_S} s"}
    if status != 0:
        return found | {"valid": False, "objection": f"exit status {status}: {said}"}
    return found | {"valid": True}


def send(_name, command, place):
    with Server("sink", [place.options.built / "sink"], place.client_cpu) as sink:
        found = transfer(command, place, place.options.directory / "sent", sink)
        if not found["valid"]:
            return found
        # When the program has ended, its last bytes may still be on their way.
        received = sink.await_line("received", 10)
    if received != f"received {place.options.transfer_bytes}":
        return found | {"valid": False, "objection": f"the other end: {received or 'not everything came'}"}
    return found


def receive(_name, command, place):
    source = [place.options.built / "source", "--bytes", str(place.options.transfer_bytes)]
    file = place.options.directory / "received"
    try:
        with Server("source", source, place.client_cpu) as other_end:
            found = transfer(command, place, file, other_end)
        objection = difference(file, place.options) if found["valid"] else None
        return found | ({"valid": False, "objection": objection} if objection else {})
    finally:
        file.unlink(missing_ok=True)


def where_the_files_were(runs):
    places = {run["in_memory"] for run in runs if "in_memory" in run}
    words = {frozenset([True]): "in memory", frozenset([False]): "in the directory for temporary files, which may be a disk"}
    return [f"The files were {words[frozenset(places)]}.", ""] if frozenset(places) in words else []


def difference(file, options):
    """What is wrong with a received file, if anything: its size, or pieces that do not repeat the source's."""
    size = file.stat().st_size
    if size != options.transfer_bytes:
        return f"{size:,} bytes came"
    with file.open("rb") as handle:
        whole = handle.read(SOURCE_FILE_BYTES)
        for number in range(COMPARED_PIECES):
            offset = (size - PIECE_BYTES) * number // (COMPARED_PIECES - 1)
            handle.seek(offset)
            start = offset % SOURCE_FILE_BYTES
            if handle.read(PIECE_BYTES) != (whole + whole)[start:start + PIECE_BYTES]:
                return f"other bytes came than were sent, at {offset:,}"
    return None


TRANSFER_COLUMNS = (
    Column("cpu_ns_per_gib", "CPU of the program, ms per GiB", 1e6, 0),
    Column("seconds_per_gib", "s per GiB", 1, 3),
    Column("seconds", "s, all of it", 1, 2),
)
TRANSFER_CASES = {
    "transfer-send": Case("a file into a socket", (), TRANSFER_COLUMNS, compared=2, run=send),
    # Memory that comes and goes by the GiB keeps the kernel's own threads busy: 4 to 6 % were seen on an idle machine.
    "transfer-receive": Case("a socket into a file", (), TRANSFER_COLUMNS, compared=2, run=receive,
                             most_elsewhere_percent=10),
}

BYTES = suite("limits", "What a byte costs at best", BYTES_CASES, ways, reference="write, copied")
TRANSFER = suite("transfer", "Files through one connection", TRANSFER_CASES, tools, more=where_the_files_were)
