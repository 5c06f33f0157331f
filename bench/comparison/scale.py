"""Group `scale`: what a message and a connection cost as there are more of them, in one process and in many."""

import contextlib
import json
import math
import select
import subprocess
import threading
import time

import machine
from ratios import slope
from server import Server
from suite import LOAD_COLUMNS, Case, Column, echo_case

from . import peers
from .echo import MEMORY_COLUMNS, suite
from .stream import PATIENCE_S

COUNTS = (1, 10, 100, 1000, 9000, 18_000)
# Below the hard limit of 20,000 descriptors that is usual, at both ends.
PER_PROCESS = 18_000
SIZE_BYTES = 64
OPEN_PATIENCE_S = 20
# ip_local_port_range as Linux has it: 32768 to 60999.
PORTS_TO_ONE_ADDRESS = 28_232
# In a window of this length every connection is to have had its turn, when a core serves so many messages a second.
LEAST_RATE = 40_000


def cases():
    found = {}
    for count in COUNTS:
        found[f"scale-echo-{count}"] = echo_case("load", count, SIZE_BYTES, "64 B",
                                                least_seconds=1.5 if count > 9000 else 0)
    for count in COUNTS[2:]:
        client = ("hold", "--connections", str(count))
        found[f"scale-memory-{count}"] = Case(f"{count:,} idle connections", client, MEMORY_COLUMNS, is_timed=False,
                                              most_rounds=2)
    return found


@contextlib.contextmanager
def servers(options):
    yield [peers.subject(options), peers.limit(options), peers.tokio(options, peers.USUAL_BUFFER),
           peers.go(options, peers.USUAL_BUFFER)]


# ---------------------------------------------------------------- many processes


class Crowd:
    """Pairs of processes, a server and a load that keeps its connections open until it is told."""

    def __init__(self, place, command, total):
        self.place, self.command = place, command
        self.pairs, self.steps, self.problem = [], [], None
        self.stack = contextlib.ExitStack()
        self.count = math.ceil(total / PER_PROCESS)
        self.each = total // self.count
        self.duration = max(place.options.seconds, self.count * self.each / LEAST_RATE)
        self.cpu_s = 0

    def open(self):
        """Starts the pairs one after the other, with an account after each."""
        self.note(began=time.monotonic(), base=0)
        for number in range(self.count):
            # An address of its own for each: the ports of a client are counted towards one address and port.
            command = [word.replace("{host}", f"127.0.0.{number + 1}") for word in map(str, self.command)]
            server = self.stack.enter_context(Server("server", command, self.place.server_cpu))
            base = machine.anonymous_bytes(server.process.pid)
            began = time.monotonic()
            client = self.start_client(server)
            self.pairs.append((server, client))
            if not self.await_open(client):
                self.problem = f"{number * self.each:,} connections were open when one more process failed to open its"
                return
            self.note(began, base)

    def start_client(self, server):
        command = [self.place.options.built / "load", server.address, "--pid", str(server.process.pid),
                   "--connections", str(self.each), "--size", str(SIZE_BYTES), "--duration", str(self.duration),
                   "--warmup", str(self.duration / 4), "--verify", "--on-cue"]
        with machine.pinned(self.place.client_cpu):
            client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                      text=True, bufsize=1)
        self.stack.callback(self.end_client, client)
        return client

    @staticmethod
    def end_client(client):
        """The end of its input is its second cue; it closes with resets, and leaves nothing in TIME_WAIT."""
        for stream in (client.stdin, client.stdout, client.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        try:
            client.wait(OPEN_PATIENCE_S)
        except subprocess.TimeoutExpired:
            client.kill()
            client.wait()

    def await_open(self, client):
        lines = []
        reader = threading.Thread(target=lambda: lines.append(client.stderr.readline()), daemon=True)
        reader.start()
        reader.join(OPEN_PATIENCE_S)
        return lines and lines[0].strip() == f"opened {self.each}"

    def note(self, began, base):
        server_bytes = sum(machine.anonymous_bytes(server.process.pid) for server, _ in self.pairs)
        before = self.steps[-1] if self.steps else {"base_bytes": 0}
        self.steps.append({
            "connections": len(self.pairs) * self.each,
            "seconds": round(time.monotonic() - began, 3),
            # What each process has before its first connection is no cost of a connection.
            "base_bytes": before["base_bytes"] + base,
            "user_bytes": server_bytes - before["base_bytes"] - base,
            "kernel_bytes": kernel_bytes(),
            "available_bytes": machine.memory_available_bytes(),
        })

    def measure(self):
        """All of them at once: every connection of every process in a closed loop."""
        for _, client in self.pairs:
            client.stdin.write("\n")
            client.stdin.flush()
        return [json.loads(said(client) or "{}") for _, client in self.pairs]


def said(client):
    """The line that a client ends with, or nothing if there is none in time."""
    ready, _, _ = select.select([client.stdout], [], [], PATIENCE_S)
    return client.stdout.readline() if ready else ""


def kernel_bytes():
    """What connections are made of in the kernel, as in limits/src/account.rs; for root."""
    names = ("TCP", "dentry", "ep_head", "eventpoll_epi", "eventpoll_pwq", "filp", "io_kiocb", "lsm_file_cache",
             "lsm_inode_cache", "sock_inode_cache", "tcp_bind2_bucket")
    lines = [line.split() for line in machine.read_or_nothing("/proc/slabinfo").splitlines()[2:]]
    return sum(int(used) * int(size) for name, used, _, size, *_ in lines if name in names) if lines else None


def many(_name, command, place):
    crowd = Crowd(place, command, place.options.many)
    with crowd.stack:
        crowd.open()
        if crowd.problem:
            return {"steps": crowd.steps, "valid": False, "objection": crowd.problem}
        said = crowd.measure()
    objections = {report.get("objection", "a load said nothing") for report in said if not report.get("valid")}
    found = figures_of(crowd.steps, said) if not objections else {}
    return found | {"processes": crowd.count, "connections": crowd.count * crowd.each, "steps": crowd.steps,
                    "valid": not objections} | ({"objection": "; ".join(sorted(objections))} if objections else {})


def figures_of(steps, said):
    """Slopes over the steps, and the cost of a message over all processes."""
    def each(field):
        points = [(step["connections"], step[field]) for step in steps]
        return None if any(y is None for _, y in points) else slope(points)

    messages = sum(report["messages"] for report in said)
    connections = steps[-1]["connections"]

    def per_message(field):
        return sum(report[field] * report["messages"] for report in said) / messages

    return {
        "user_bytes_per_connection": each("user_bytes"),
        "kernel_bytes_per_connection": each("kernel_bytes"),
        "memory_bytes_per_connection": -each("available_bytes"),
        "open_us_per_connection": sum(step["seconds"] for step in steps) * 1e6 / connections,
        "server_cpu_ns_per_message": per_message("server_cpu_ns_per_message"),
        "client_cpu_ns_per_message": per_message("client_cpu_ns_per_message"),
        "served": sum(report["served"] for report in said),
    }


MANY_COLUMNS = (
    LOAD_COLUMNS[0],
    LOAD_COLUMNS[1],
    Column("user_bytes_per_connection", "server, B per connection"),
    Column("kernel_bytes_per_connection", "kernel, B per connection, both ends"),
    Column("memory_bytes_per_connection", "less memory available, B per connection"),
    Column("open_us_per_connection", "to open, µs per connection", 1, 1),
    Column("connections", "connections"),
    Column("processes", "processes at each end"),
)
MANY_CASES = {
    "scale-many": Case("connections over many processes and addresses", (), MANY_COLUMNS, run=many, most_rounds=2,
                       most_elsewhere_percent=10),
}


@contextlib.contextmanager
def many_servers(options):
    yield [(name, {"scale-many": command}) for name, command in (
        peers.subject(options, "{host}:0"), peers.limit(options))]


# ---------------------------------------------------------------- what a million would cost


def a_million(runs):
    """The table: slopes that were measured, times a million. Nothing in it but the slopes was measured."""
    lines = []
    for name in dict.fromkeys(run["server"] for run in runs):
        counted = [run for run in runs if run["server"] == name and run["valid"]
                   and run["kernel_bytes_per_connection"] is not None]
        if not counted:
            continue
        lines += [f"### A million connections, by arithmetic: {name}", "",
                  "Not measured: each line is a slope of `scale-many`, the median of "
                  f"{len(counted)} runs with {counted[0]['connections']:,} connections, times a million. A GB is 10⁹ B.", "",
                  "| what | measured | a million |", "|---|---:|---:|", *million_lines(counted), ""]
    return lines


def million_lines(runs):
    def middle(field):
        found = sorted(run[field] for run in runs)
        return (found[(len(found) - 1) // 2] + found[len(found) // 2]) / 2

    user, kernel = middle("user_bytes_per_connection"), middle("kernel_bytes_per_connection") / 2
    cpu_us, open_us = middle("server_cpu_ns_per_message") / 1000, middle("open_us_per_connection")
    addresses = math.ceil(1e6 / PORTS_TO_ONE_ADDRESS)
    processes = math.ceil(1e6 / PER_PROCESS)
    return [
        f"| memory of the server's processes | {user:,.0f} B | {user / 1e3:,.2f} GB |",
        f"| memory of the kernel at the server's end, half of both | {kernel:,.0f} B | {kernel / 1e3:,.2f} GB |",
        f"| the two together | {user + kernel:,.0f} B | {(user + kernel) / 1e3:,.2f} GB |",
        f"| and with the other end on the same machine | {user + 2 * kernel:,.0f} B | "
        f"{(user + 2 * kernel) / 1e3:,.2f} GB, and what the clients hold |",
        f"| to open them one after the other, on one core at each end | {open_us:,.1f} µs | {open_us:,.0f} s |",
        f"| one message of {SIZE_BYTES} B on each, every second | {cpu_us:,.2f} µs of the server's CPU | "
        f"{cpu_us:,.1f} cores |",
        f"| one message of {SIZE_BYTES} B on each, every minute | {cpu_us:,.2f} µs of the server's CPU | "
        f"{cpu_us / 60:,.3f} cores |",
        f"| addresses of clients towards one address and port | {PORTS_TO_ONE_ADDRESS:,} ports each | {addresses} |",
        f"| processes with the usual limit of descriptors | {PER_PROCESS:,} connections each | {processes}, or one "
        "with a limit above a million, for which fs.nr_open (1,048,576) is just enough |",
    ]


SCALE = suite("scale", "Cost as the work grows, in one process", cases(), servers)
MANY = suite("scale", "Cost as the work grows, in many processes", MANY_CASES, many_servers, more=a_million)
