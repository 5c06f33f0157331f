"""What the scripts beside this file share: the runs, and the page about them.

One run is one fresh server on one CPU and one client on another. Rounds are interleaved and the order of the servers
changes from one to the next, so that whatever drifts on the machine drifts for all of them; ratios are taken within a
round. README.md beside this file says what the figures mean.
"""

import argparse
import collections
import contextlib
import dataclasses
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import machine
from machine import (LEAST_ELSEWHERE_TICKS, LEAST_STEAL_TICKS, MOST_ELSEWHERE_PERCENT, MOST_STEAL_PERCENT, ROOT,
                     Disturbance, first_line, script, without_paths)
from ratios import ahead, paired_ratio, ratios_by_pinning, values
from server import Server, Unavailable

SUBJECT = "sockeye"
BUILD_TIMEOUT_S = 1800
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


# ---------------------------------------------------------------- one run


def run_case(name, case, server, place):
    """One figure: a fresh server, one client against it, and a verdict on whether the run counts."""
    if not case.client and not case.run:
        with Server(*server, place.server_cpu) as started:
            return {"ready_ms": round(started.ready_ms, 3), "valid": True}
    disturbance = Disturbance()
    try:
        if case.run:
            run = case.run(server[0], server[1][name], place)
        else:
            with Server(*server, place.server_cpu) as started:
                run = run_client(case, started, place)
    except Unavailable as error:
        run = {"valid": False, "objection": f"the server did not start: {error}"}
    found = disturbance.since()
    objection = None
    if case.is_timed and run["valid"] and not place.options.rehearsal:
        objection = Disturbance.objection(found, case.most_steal_percent, case.most_elsewhere_percent)
    return run | found | ({"valid": False, "disturbed": True, "objection": objection} if objection else {})


def run_client(case, server, place):
    program, *arguments = case.client
    options = place.options
    command = [options.built / program, server.address, *arguments, "--pid", str(server.process.pid)]
    if case.has_window:
        command += ["--duration", str(max(case.least_seconds, options.seconds)), "--warmup", str(options.warmup)]
    with machine.pinned(place.client_cpu):
        try:
            # Above the patience of each client, which reports what it got when it runs out.
            patience = options.seconds + options.warmup + 90
            done = subprocess.run(command, capture_output=True, text=True, timeout=patience)
        except subprocess.TimeoutExpired:
            return {"valid": False, "objection": "the client did not end"}
    if server.process.poll() is not None:
        return {"valid": False, "objection": f"the server ended: {server.last_words()}"}
    try:
        return json.loads(done.stdout)
    except ValueError:
        return {"valid": False, "objection": f"the client failed: {done.stderr.strip()[-200:]}"}


# ---------------------------------------------------------------- all runs


def takes_part(server, name, case):
    title, command = server
    return name in command if isinstance(command, dict) else title not in case.without


def schedule(options, servers, cases):
    """What to run, in order: every case in every round, pinned in every way, and every server in each.

    A different server is first each time, and after each has been, the order is reversed: a rotation alone would run
    every server after the same other one for ever, with the caches that one leaves behind. The order of the cases is
    reversed in every other round, since some are compared with one another, and so is that of the pinnings.
    """
    names = [name for name in options.cases if name in cases]
    starts = [name for name in names if cases[name].is_start]
    names = [name for name in names if name not in starts]
    pinnings = list(range(len(options.pinnings)))
    plan = [(name, number, pinning) for number in range(options.rounds)
            for name in (names[::-1] if number % 2 else names)
            for pinning in (pinnings[::-1] if number % 2 else pinnings)
            if not cases[name].most_rounds or number < cases[name].most_rounds]
    plan += [(name, number, pinning) for name in starts for number in range(options.starts) for pinning in pinnings]
    for name, number, pinning in plan:
        order = [server for server in servers if takes_part(server, name, cases[name])]
        first = number % max(1, len(order))
        order = order[first:] + order[:first]
        if order and number // len(order) % 2:
            order.reverse()
        for position, server in enumerate(order):
            yield name, number, pinning, position, server


def measure(options, servers, cases, raw):
    runs = []
    steps = list(schedule(options, servers, cases))
    for done, (name, number, pinning, position, server) in enumerate(steps, 1):
        where = {"case": name, "server": server[0], "round": number, "pinning": pinning, "position": position}
        place = Place(options, *options.pinnings[pinning])
        # This script waits while a client runs, and must not do it on the server's CPU.
        os.sched_setaffinity(0, {place.client_cpu})
        for attempt in range(MOST_ATTEMPTS):
            run = where | {"attempt": attempt} | run_case(name, cases[name], server, place)
            raw.write(json.dumps(run) + "\n")
            raw.flush()
            runs.append(run)
            column = cases[name].columns[0]
            said = f"{column.heading} {number_text(run[column.field], column)}" if run["valid"] else run["objection"]
            print(f"[{done}/{len(steps)}] {name} {server[0]}: {said}", file=sys.stderr)
            if not run.get("disturbed"):
                break
    return runs


def available(options, suite, servers_given, raw):
    """The servers that start here. Starting each once also fetches it from disk before its start-up is measured."""
    servers, missing = [], {}
    for name, command in servers_given:
        try:
            if isinstance(command, dict):
                see_programs(command)
            else:
                with Server(name, command, options.pinnings[0][0]):
                    pass
            servers.append((name, command))
        except (Unavailable, OSError) as error:
            # A kernel may forbid io_uring, and a peer may not be installed; that is a result. Anything else missing is
            # a mistake.
            if name not in suite.may_be_missing:
                sys.exit(f"{script()}: {name} does not start: {without_paths(str(error))}")
            missing[name] = without_paths(str(error))
            raw.write(json.dumps({"server": name, "available": False, "reason": missing[name]}) + "\n")
    return servers, missing


def see_programs(commands):
    for command in commands.values():
        if not shutil.which(str(command[0])):
            raise Unavailable(f"{command[0]} is not installed")


def build(options, manifests):
    """Builds in release mode, and says where the programs are."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
    builds = [["--locked", "--manifest-path", str(ROOT / "bench" / manifest)] for manifest in manifests]
    if SUBJECT not in options.without:
        builds.append(["--manifest-path", str(ROOT / "Cargo.toml")])
    for arguments in builds:
        command = ["cargo", "build", "--release", "--target-dir", str(target), *arguments]
        subprocess.run(command, check=True, timeout=BUILD_TIMEOUT_S)
    return target / "release"


# ---------------------------------------------------------------- the page


def number_text(value, column):
    return "–" if value is None else f"{value / column.divisor:,.{column.digits}f}"


def interval_text(low, high):
    return "too few rounds to tell" if low is None else f"{low:.3f}–{high:.3f}"


def case_table(runs, name, case, servers):
    lines = [f"### {case.title[0].upper()}{case.title[1:]}", "",
             "| server | " + " | ".join(column.heading for column in case.columns) + " | runs that count |",
             "|---|" + "---:|" * (len(case.columns) + 1)]
    for server, command in servers:
        if not takes_part((server, command), name, case):
            continue
        cells = []
        for column in case.columns:
            found = values(runs, name, server, column.field).values()
            cells.append(f"{number_text(statistics.median(found), column)} "
                         f"({number_text(min(found), column)}–{number_text(max(found), column)})" if found else "–")
        all_runs = [run for run in runs if run["case"] == name and run["server"] == server]
        counted = sum(run["valid"] for run in all_runs)
        lines.append(f"| {server} | " + " | ".join(cells) + f" | {counted} of {len(all_runs)} |")
    return lines + [""]


def pairs(name, case, servers, reference):
    """What ratios are taken of in a case: two cases with their servers, and what to call the pair."""
    names = [server[0] for server in servers if takes_part(server, name, case)]
    if case.against:
        return [((name, server), (case.against, server), f"{server}: {name} / {case.against}") for server in names]
    found = [(server, reference) for server in names if server != reference and reference in names]
    found += [(SUBJECT, server) for server in names if SUBJECT in names and server not in (SUBJECT, reference)]
    return [((name, above), (name, below), f"{above} / {below}") for above, below in found]


def ratio_table(runs, options, suite, servers):
    lines = ["| case | figure | pair | ratio | 95 % interval | rounds | ahead |", "|---|---|---|---:|---|---:|---|"]
    for name, case in suite.cases.items():
        if name not in options.cases:
            continue
        compared = pairs(name, case, servers, suite.reference)
        for column, (above, below, title) in itertools.product(case.columns[:case.compared], compared):
            found = ratios_by_pinning(runs, column.field, above, below)
            if not found:
                continue
            side = ahead(found, case.more_is_better)
            winner = {"above": above, "below": below, None: ("not known", "not known")}[side]
            lines.append(f"| {case.title} | {column.heading} | {title} | "
                         + "; ".join(f"{ratio:.3f}" for ratio, *_ in found) + " | "
                         + "; ".join(interval_text(low, high) for _, low, high, _ in found) + " | "
                         + "; ".join(str(rounds) for *_, rounds in found)
                         + f" | {winner[0 if case.against else 1]} |")
    return lines + [""]


def target_line(runs, target, suite):
    def keeps(value):
        return value >= target.limit if target.at_least else value <= target.limit

    if target.is_ratio:
        against = suite.cases[target.case].against
        below = (against, SUBJECT) if against else (target.case, suite.reference)
        found = paired_ratio(runs, target.field, (target.case, SUBJECT), below)
        if not found:
            return f"- {target.text}: **not measured**"
        ratio, low, high, _ = found
        met, detail = keeps(ratio), f"{ratio:.3f}, 95 % interval: {interval_text(low, high)}"
        if low and keeps(low) != keeps(high):
            detail += "; the limit is inside the interval, so more rounds may decide otherwise"
    else:
        found = values(runs, target.case, SUBJECT, target.field).values()
        if not found:
            return f"- {target.text}: **not measured**"
        middle = statistics.median(found)
        met, detail = keeps(middle), f"median {middle:,.1f}, worst {max(found):,.1f}"
    if target.without_drops:
        # Also of runs that do not count: a burst that lost connections is just what this is about.
        drops = max(run.get("listen_drops", 0) for run in runs
                    if run["case"] == target.case and run["server"] == SUBJECT)
        met, detail = met and drops == 0, f"{detail}; most ListenDrops in a run {drops}"
    return f"- {target.text}: **{'met' if met else 'not met'}** ({detail})"


def facts(options, control, more):
    version = "" if SUBJECT in options.without else first_line(options.built / SUBJECT, "--version")
    pinnings = " and, in runs of their own, ".join(f"server on {server}, client on {client}"
                                                   for server, client in options.pinnings)
    return {
        "machine": machine.description(),
        "kernel": machine.kernel(control),
        "CPUs": f"{pinnings}, loopback",
        "commit": machine.commit(),
        "versions": ", ".join(filter(None, [version, first_line("rustc", "--version")])),
        "command": f"`{without_paths(options.typed)}`",
        "rehearsal": "**runs count however disturbed they were, so no figure here is one**" if options.rehearsal else "",
    } | more


def fact_lines(found):
    return [f"- {name}: {text}" for name, text in found.items() if text]


def server_lines(servers, missing):
    lines = []
    for name, command in servers:
        # In those by cases there are signs of the shell, and words to be filled in.
        texts = [" ".join(map(str, words)) for words in command.values()] if isinstance(command, dict) \
            else [shlex.join(map(str, command))]
        lines.append(f"- {name}: " + ", ".join(dict.fromkeys(f"`{without_paths(text)}`" for text in texts)))
    return lines + [f"- {name}: not available ({reason})" for name, reason in missing.items()]


def stricter(cases):
    usual = (MOST_STEAL_PERCENT, MOST_ELSEWHERE_PERCENT)
    limits = {name: (case.most_steal_percent, case.most_elsewhere_percent) for name, case in cases.items()}
    return "".join(f" For {name} it is {steal} % and {elsewhere} %."
                   for name, (steal, elsewhere) in limits.items() if (steal, elsewhere) != usual)


def rule(suite):
    return ("Decided beforehand: a run counts unless a connection failed or went unserved, or (but for memory and "
            f"the start-up) the hypervisor took more than {MOST_STEAL_PERCENT} % of the CPUs and at least "
            f"{LEAST_STEAL_TICKS} clock ticks, or other processes took more than {MOST_ELSEWHERE_PERCENT} % and at "
            f"least {LEAST_ELSEWHERE_TICKS}.{stricter(suite.cases)} A run so disturbed is repeated, up to "
            f"{MOST_ATTEMPTS - 1} times.")


def invalid_lines(runs):
    invalid = collections.Counter((run["case"], run["server"], run["objection"]) for run in runs if not run["valid"])
    return [f"- {case}, {server}: {count} × {why}" for (case, server, why), count in invalid.items()] or ["None."]


def page(options, control, suite, measured):
    servers, missing, runs = measured.servers, measured.missing, measured.runs
    lines = [f"# Figures of {options.date}, {options.label}", "",
             f"Written by `bench/{suite.name}`; every run is a line of `raw.jsonl`. What the figures mean, and what "
             "they do not, is in `bench/README.md`.", "",
             *fact_lines(facts(options, control, suite.facts(runs))), "", "Servers:", "",
             *server_lines(servers, missing), "", "## Targets", "",
             *(target_line(runs, target, suite) for target in suite.targets), "",
             "## Medians (lowest–highest)", ""]
    for name in options.cases:
        lines += case_table(runs, name, suite.cases[name], servers)
    lines += ["## Ratios within a round", "",
              "The median over the rounds, and a bootstrap 95 % interval of it. Where the interval holds 1, the "
              "figures do not tell which is ahead. Of a few rounds such an interval is rather too narrow.", "",
              *ratio_table(runs, options, suite, servers), "## Runs that do not count", "", rule(suite), "",
              *invalid_lines(runs)]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- the command line


def common_options(about, cases, label, *, seconds, warmup, rounds):
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds, metavar="N",
                        help=f"rounds of every case but start-up ({rounds})")
    parser.add_argument("--starts", type=int, default=30, metavar="N", help="starts of every server (30)")
    parser.add_argument("--seconds", type=float, default=seconds, metavar="S",
                        help=f"the measured part of a load ({seconds})")
    parser.add_argument("--warmup", type=float, default=warmup, metavar="S", help=f"what comes before it ({warmup})")
    parser.add_argument("--cases", type=lambda text: text.split(","), metavar="A,B",
                        help="only these: " + ", ".join(cases))
    parser.add_argument("--server", action="append", default=[], metavar="NAME=COMMAND",
                        help="another server; it has to print `listening on ADDRESS:PORT`, or {port} in the command "
                             "is replaced by a free one")
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="leave out a server")
    parser.add_argument("--server-cpu", type=int, default=0, metavar="CPU")
    parser.add_argument("--client-cpu", type=int, default=1, metavar="CPU")
    parser.add_argument("--pinnings", choices=("one", "both"), default="one", dest="pinnings_asked",
                        help="both: every run also with the two CPUs swapped, which takes twice as long (one)")
    parser.add_argument("--rehearsal", action="store_true",
                        help="see whether everything works: runs count on a busy machine too, and the page says so")
    parser.add_argument("--label", default=label, help=f"part of the name of the directory ({label})")
    parser.add_argument("--output", type=Path, metavar="DIR", help="instead of bench/runs/DATE-LABEL")
    return parser


def completed(parser, options, cases):
    """The options, if they make sense together, with what follows from them."""
    options.typed = shlex.join([f"bench/{script()}", *sys.argv[1:]])
    options.date = time.strftime("%Y-%m-%d")
    options.cases = options.cases or list(cases)
    if unknown := set(options.cases) - set(cases):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", options.label):
        parser.error("--label: lower-case letters, digits, dots and dashes")
    if min(options.rounds, options.starts) < 1 or options.seconds <= 0 or options.warmup < 0:
        parser.error("--rounds, --starts, --seconds: at least one, and more than nothing")
    if not all(re.match(r"[\w.-]+=.", text) for text in options.server):
        parser.error("--server: NAME=COMMAND")
    missing = {options.server_cpu, options.client_cpu} - os.sched_getaffinity(0)
    if missing or options.server_cpu == options.client_cpu:
        parser.error("--server-cpu, --client-cpu: two CPUs this process may use")
    options.pinnings = [(options.server_cpu, options.client_cpu), (options.client_cpu, options.server_cpu)]
    del options.pinnings[1 if options.pinnings_asked == "one" else 2:]
    options.output = options.output or ROOT / "bench/runs" / f"{options.date}-{options.label}"
    if (options.output / "raw.jsonl").exists():
        parser.error("there are figures of this name already: choose another --label or --output")
    return options


def chosen(options, built_in):
    """The servers to measure, with those from the command line."""
    kept = [server for server in built_in if server[0] not in options.without]
    if any(isinstance(command, dict) for _, command in kept):
        return kept
    return kept + [(name, shlex.split(command)) for name, _, command in (text.partition("=") for text in options.server)]


def guarded(run):
    """Runs it, and ends what it has started, however it ends."""
    # Ends like Ctrl-C, so that the machine is put back as it was and no server is left behind.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    machine.adopt_orphans()
    try:
        run()
    except KeyboardInterrupt:
        sys.exit(130)
    except subprocess.SubprocessError as error:
        sys.exit(f"{script()}: {without_paths(str(error))}")
    finally:
        machine.end_children()


def measure_suite(options, suite, raw):
    with suite.servers(options) as built_in:
        servers, missing = available(options, suite, chosen(options, built_in), raw)
        return Measured(suite, servers, missing, measure(options, servers, suite.cases, raw))


def main(suite):
    guarded(lambda: run_suite(suite))


def run_suite(suite):
    parser = common_options(suite.about, suite.cases, suite.label, seconds=3, warmup=0.5, rounds=10)
    options = completed(parser, parser.parse_args(), suite.cases)
    options.built = build(options, suite.manifests)
    options.output.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        control = stack.enter_context(machine.congestion_control())
        raw = stack.enter_context((options.output / "raw.jsonl").open("w"))
        measured = measure_suite(options, suite, raw)
    (options.output / "README.md").write_text(page(options, control, suite, measured))
    print(options.output / "README.md")
