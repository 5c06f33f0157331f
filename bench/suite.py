"""The nouns of a measurement: a case and its columns, a suite of them, and where a run takes place."""

import argparse
import dataclasses
from collections.abc import Callable

from machine import MOST_ELSEWHERE_PERCENT, MOST_STEAL_PERCENT

SUBJECT = "sockeye"
# A disturbed run is repeated, or a busy hour would leave no round complete. Never one that failed: that is a result.
MOST_ATTEMPTS = 3


@dataclasses.dataclass(frozen=True)
class Column:
    field: str
    heading: str
    divisor: float = 1
    digits: int = 0


@dataclasses.dataclass(frozen=True)
class Case:
    title: str
    client: tuple  # the program and its options; empty for the start-up, which needs none
    columns: tuple
    compared: int = 1  # so many of the columns, from the first, ratios are taken of
    against: str = ""  # a case: ratios are taken to the same server in it, instead of to the reference in this one
    has_window: bool = False  # the program is to be told how long it measures
    least_seconds: float = 0  # of that window, where one turn of all connections takes long
    more_is_better: bool = False
    is_timed: bool = True  # or else it measures what a busy machine does not change
    most_steal_percent: float = MOST_STEAL_PERCENT
    most_elsewhere_percent: float = MOST_ELSEWHERE_PERCENT
    without: tuple = ()  # servers that cannot take part
    most_rounds: int = 0  # 0: all that are asked for
    is_start: bool = False  # short, and therefore as often as --starts says
    # Instead of a client: finds the figures, from the name of a server, its command for this case, and a `Place`.
    run: Callable | None = None


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a run takes place."""

    options: argparse.Namespace
    server_cpu: int
    client_cpu: int


@dataclasses.dataclass(frozen=True)
class Target:
    case: str
    text: str
    field: str
    limit: float
    is_ratio: bool
    at_least: bool = False
    without_drops: bool = False


@dataclasses.dataclass(frozen=True)
class Suite:
    """What is measured together: cases, and the servers that take part in them."""

    name: str  # of the script, or of its part
    label: str  # of its pages, if none is given
    about: str
    manifests: tuple  # of the packages it needs besides the program, below bench/
    cases: dict
    targets: tuple
    reference: str  # the server all others are compared with; none: only the subject is compared with the others
    # From the options a context manager with the servers, as pairs of a name and a command; or, where a case has a way of
    # its own to run, a dictionary of commands by the names of the cases.
    servers: Callable
    may_be_missing: tuple = ()  # servers
    facts: Callable = lambda runs: {}  # more of them, from the runs
    more: Callable = lambda runs: []  # more lines for the page, from the runs


@dataclasses.dataclass(frozen=True)
class Measured:
    """What came of a suite."""

    suite: Suite
    servers: list
    missing: dict
    runs: list


LOAD_COLUMNS = (
    Column("server_cpu_ns_per_message", "server CPU, µs per message", 1000, 2),
    Column("client_cpu_ns_per_message", "client CPU, µs per message", 1000, 2),
    Column("messages_per_s", "messages/s"),
    Column("p50_us", "p50, µs"),
    Column("p99_us", "p99, µs"),
    Column("max_us", "max, µs"),
)
HOLD_COLUMNS = (
    Column("bytes_per_connection", "B per connection"),
    Column("slope_bytes_per_connection", "B per connection, the second half"),
    Column("kernel_bytes_per_connection", "kernel, B per connection, both ends"),
)


def echo_case(program, connections, size, label, **more):
    client = (program, "--connections", str(connections), "--size", str(size), "--verify")
    noun = "connection" if connections == 1 else "connections"
    return Case(f"echo, {label} at {connections:,} {noun}", client, LOAD_COLUMNS, has_window=True, **more)


def takes_part(server, name, case):
    title, command = server
    return name in command if isinstance(command, dict) else title not in case.without
