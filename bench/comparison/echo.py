"""Groups `limits` (echo), `echo`, `accept`, `exec` and `memory`: servers that echo, and the loads of bench/limits."""

import contextlib
import dataclasses
import subprocess
import tempfile

from machine import kernel_setting
from suite import HOLD_COLUMNS, Case, Column, Suite, echo_case

from . import peers

SIZES = ((64, "64b", "64 B"), (1024, "1k", "1 KiB"), (16384, "16k", "16 KiB"), (65536, "64k", "64 KiB"))
CONNECTIONS = (1, 64, 1000, 9000)


def echo_cases():
    cases = {}
    for connections in CONNECTIONS:
        for size, name, label in SIZES:
            # 9,000 messages of 64 KiB take a third of a second or more, and each connection is to have its turn.
            is_slow = connections * size > 1 << 28
            cases[f"echo-{name}-{connections}"] = echo_case(
                "load", connections, size, label, without=peers.FORKING if connections > 64 else (),
                least_seconds=2 if is_slow else 0)
    # Whether a thousand processes come is asked twice, because it may take long; more are not asked for.
    asked = echo_case("load", 1000, 64, "64 B", without=peers.REACTORS, most_rounds=2)
    return cases | {"echo-processes-1000": dataclasses.replace(asked, title=f"{asked.title}, a process for each")}


def limit_cases():
    cells = ((64, "64b", "64 B", 1), (64, "64b", "64 B", 64), (64, "64b", "64 B", 1000),
             (16384, "16k", "16 KiB", 64))
    return {f"limit-{name}-{connections}": echo_case(
        "load", connections, size, label, without=("blocking_echo",) if connections > 64 else ())
        for size, name, label, connections in cells}


VISIT_COLUMNS = (
    Column("server_cpu_ns_per_visit", "server CPU, µs per visit", 1000, 2),
    Column("client_cpu_ns_per_visit", "client CPU, µs per visit", 1000, 2),
    Column("visits_per_s", "visits/s"),
    Column("p50_us", "p50, µs"),
    Column("p99_us", "p99, µs"),
)
BURST_COLUMNS = (
    Column("connections_per_s", "connections/s"),
    Column("server_cpu_ns_per_connection", "server CPU, µs per connection", 1000, 2),
    Column("client_cpu_ns_per_connection", "client CPU, µs per connection", 1000, 2),
    Column("listen_drops", "ListenDrops"),
)


def visits(close, title, in_flight, columns=VISIT_COLUMNS, **more):
    client = ("visits", "--close", close, "--in-flight", str(in_flight))
    return Case(title, client, columns, has_window=True, **more)


ACCEPT_CASES = {
    "accept-fin-1": visits("fin", "connect, one byte echoed, close: one at a time", 1),
    "accept-fin-64": visits("fin", "connect, one byte echoed, close: 64 at a time", 64),
    "accept-reset-64": visits("reset", "connect, one byte echoed, reset: 64 at a time", 64),
    "accept-burst-9000": Case("burst of 9,000 connections", ("burst", "--connections", "9000"), BURST_COLUMNS,
                              more_is_better=True, without=peers.FORKING),
}

# Of a server that runs a program for each, the rate first. The CPU is that of the programs, too, once they are reaped.
EXEC_COLUMNS = (VISIT_COLUMNS[2], *VISIT_COLUMNS[:2], *VISIT_COLUMNS[3:])
EXEC_CASES = {
    f"exec-{at_once}": visits("fin", f"cat for each connection, one byte echoed, close: {words}", at_once, EXEC_COLUMNS,
                              more_is_better=True)
    for at_once, words in ((1, "one at a time"), (32, "32 at a time"))
}

MEMORY_COLUMNS = (*HOLD_COLUMNS, Column("open_us_per_connection", "to open, µs per connection", 1, 1))
MEMORY_CASES = {
    "memory-9000": Case("9,000 idle connections", ("hold", "--connections", "9000"), MEMORY_COLUMNS, is_timed=False,
                        without=peers.FORKING),
    "memory-64": Case("64 idle connections", ("hold", "--connections", "64"), MEMORY_COLUMNS[:1], is_timed=False),
}
TLS_MEMORY_CASES = {
    "memory-tls-2000": Case("2,000 idle connections over TLS", ("tls_hold", "--connections", "2000"), MEMORY_COLUMNS,
                            is_timed=False),
}


@contextlib.contextmanager
def limit_servers(options):
    yield [peers.subject(options), peers.limit(options), peers.uring(options),
           ("blocking_echo", [options.built / "blocking_echo"])]


@contextlib.contextmanager
def echo_servers(options):
    yield [peers.subject(options), peers.limit(options), peers.tokio(options, peers.LARGE_BUFFER),
           peers.go(options, peers.LARGE_BUFFER), peers.ncat(), peers.socat()]


@contextlib.contextmanager
def accept_servers(options):
    """Whoever closes first is left with a socket in TIME_WAIT, for a minute. Some 20,000 a second would change the
    kernel's tables under the runs that follow, so it is told to keep none meanwhile."""
    with kernel_setting("net/ipv4/tcp_max_tw_buckets", 0):
        yield [peers.subject(options), peers.limit(options), peers.tokio(options, peers.USUAL_BUFFER),
               peers.go(options, peers.USUAL_BUFFER), peers.ncat(), peers.socat()]


@contextlib.contextmanager
def exec_servers(options):
    # As for `accept`.
    with kernel_setting("net/ipv4/tcp_max_tw_buckets", 0):
        yield [peers.exec_subject(options), peers.tcpserver(), peers.ncat_exec(), peers.socat_exec()]


@contextlib.contextmanager
def memory_servers(options):
    yield [peers.subject(options), peers.limit(options), peers.uring(options),
           peers.tokio(options, peers.USUAL_BUFFER), peers.go(options, peers.USUAL_BUFFER), peers.ncat(),
           peers.socat()]


@contextlib.contextmanager
def tls_servers(options):
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([options.built / "tls_identity", directory], check=True, timeout=30)
        shown = ["--tls-cert", f"{directory}/cert.pem", "--tls-key", f"{directory}/key.pem"]
        name, command = peers.subject(options)
        yield [(name, [*command, *shown]), ("tls_echo", [options.built / "tls_echo", *shown])]


def suite(name, about, cases, servers, reference="", **more):
    return Suite(name=name, label="", about=about, manifests=(), cases=cases, targets=(), reference=reference,
                 servers=servers, may_be_missing=peers.MAY_BE_MISSING, **more)


LIMITS = suite("limits", "What an echo costs at best", limit_cases(), limit_servers)
ECHO = suite("echo", "Echo", echo_cases(), echo_servers)
ACCEPT = suite("accept", "Accept and close", ACCEPT_CASES, accept_servers)
EXEC = suite("exec", "A program for each connection", EXEC_CASES, exec_servers)
MEMORY = suite("memory", "Memory of idle connections", MEMORY_CASES, memory_servers)
TLS_MEMORY = suite("memory", "Memory of idle connections over TLS", TLS_MEMORY_CASES, tls_servers)
