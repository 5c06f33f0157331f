"""Group `generators`: what a message costs who sends it. Everything is measured from outside, in the same way for all."""

import contextlib
import json
import re
import subprocess
import tempfile

from machine import pinned
from server import Server, filled_in, free_port
from suite import SUBJECT, Case, Column

from . import nginx, peers
from .echo import suite
from .stream import PATIENCE_S, waited

CONNECTIONS, SIZE_BYTES = 64, 64
# Of what `sockeye bench` says of a run.
WRONG = {"nothing_answered", "few_served", "connections_failed", "given_up", "ports_exhausted"}
ANSWER = f'return 200 "{"x" * 1024}";'


def http(name, command, place):
    """Requests to one nginx with one worker."""
    with tempfile.TemporaryDirectory() as directory:
        port, words = free_port(), nginx.command(directory)
        nginx.write_conf(words, port, ANSWER)
        with Server("nginx", words, place.server_cpu, port) as server:
            return generated(name, command, server, place)


def echo(name, command, place):
    """Messages to the raw loop, which is the fastest server there is here: no generator is to wait for it."""
    with Server(*peers.limit(place.options), place.server_cpu) as server:
        return generated(name, command, server, place)


def generated(name, command, server, place):
    command = filled_in(command, address=server.address, seconds=place.options.seconds, pid=server.process.pid)
    with pinned(place.client_cpu):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, start_new_session=True)
    # What they print fits into a pipe.
    status, cpu_s = waited(process)
    out, error = process.stdout.read(), process.stderr.read()
    process.stdout.close()
    process.stderr.close()
    if status is None:
        return {"valid": False, "objection": f"not done within {PATIENCE_S} s"}
    try:
        found = wrk_says(out) if name == "wrk" else program_says(out)
    except (ValueError, KeyError, TypeError) as problem:
        return {"valid": False, "objection": f"exit status {status}: {' '.join(error.split())[:200] or problem}"}
    messages = found["messages"]
    if not messages:
        return found | {"valid": False, "objection": found.get("objection", "no message was answered")}
    return {"messages_per_s": messages / found["seconds"], "own_cpu_ns_per_message": cpu_s * 1e9 / messages,
            "messages_per_own_cpu_s": messages / cpu_s, **found}


def wrk_says(text):
    """Its summary: `N requests in 3.00s`, and a line for what went wrong."""
    found = re.search(r"(\d+) requests in ([\d.]+)(m?s)", text)
    if not found:
        raise ValueError("wrk printed no summary")
    wrong = re.search(r"^\s*(Socket errors:.*|Non-2xx.*)$", text, re.M)
    seconds = float(found[2]) / (1000 if found[3] == "ms" else 1)
    return {"messages": int(found[1]), "seconds": seconds, "valid": not wrong} | (
        {"objection": wrong[1].strip()} if wrong else {})


def program_says(text):
    """The JSON of the loads of bench/limits, and of `sockeye bench`.

    `sockeye bench` also objects to what no other generator looks at, such as its own CPU being busy, which it is to be
    here: what is measured is the generator. Only what the others would object to, too, is an objection.
    """
    said = json.loads(text)
    seconds = said["measured_ms"] / 1000 if "measured_ms" in said else said["seconds"]
    if "invalid" in said:
        problems = [problem["text"] for problem in said["invalid"] if problem["kind"] in WRONG]
        problems += [f"{count} errors: {kind}" for kind, count in said["errors"].items()]
    else:
        problems = [] if said["valid"] else [said.get("objection", "it does not say why")]
    return {"messages": said["messages"], "seconds": seconds, "valid": not problems} | (
        {"objection": "; ".join(problems)} if problems else {})


COLUMNS = (
    Column("own_cpu_ns_per_message", "generator CPU, µs per message", 1000, 2),
    Column("messages_per_own_cpu_s", "messages per second of its CPU"),
    Column("messages_per_s", "messages/s"),
)
CASES = {
    "generators-http": Case(f"HTTP to nginx at {CONNECTIONS} connections", (), COLUMNS, run=http),
    "generators-echo": Case(f"echo, {SIZE_BYTES} B at {CONNECTIONS} connections", (), COLUMNS, run=echo),
}


@contextlib.contextmanager
def programs(options):
    """None warms up: what is measured from outside is all of a run."""
    loop = ["--connections", CONNECTIONS, "--size", SIZE_BYTES, "--duration", "{seconds}"]
    bench = [options.built / SUBJECT, "bench", "{address}", "--connections", CONNECTIONS, "--duration", "{seconds}s",
             "--warmup", "0ms", "--threads", "1", "--json"]
    yield [
        (SUBJECT, {"generators-http": [*bench, "--mode", "http"],
                   "generators-echo": [*bench, "--mode", "echo", "--size", SIZE_BYTES, "--verify"]}),
        # Its duration is in whole seconds.
        ("wrk", {"generators-http": ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(options.seconds))}s",
                                     "http://{address}/"]}),
        ("load", {"generators-echo": [options.built / "load", "{address}", "--pid", "{pid}", *loop, "--warmup", "0",
                                      "--verify"]}),
        ("mio_load", {"generators-echo": [options.built / "mio_load", "{address}", *loop]}),
    ]


GENERATORS = suite("generators", "What generators cost", CASES, programs)
