"""What the scripts beside this file share: the runs, from the command line to the page.

One run is one fresh server on one CPU and one client on another. Rounds are interleaved and the order of the servers
changes from one to the next, so that whatever drifts on the machine drifts for all of them; ratios are taken within a
round. README.md beside this file says what the figures mean.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import machine
from machine import ROOT, Disturbance, script, without_paths
from page import number_text, page
from server import Server, Unavailable
from suite import MOST_ATTEMPTS, SUBJECT, Measured, Place, takes_part

BUILD_TIMEOUT_S = 1800


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
    except (Unavailable, FileNotFoundError) as error:
        run = {"valid": False, "objection": f"the server did not start: {without_paths(str(error))}"}
    except subprocess.TimeoutExpired as error:
        run = {"valid": False, "objection": f"not done within {error.timeout:.0f} s"}
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


# ---------------------------------------------------------------- the command line


def common_options(about, cases, label, *, seconds, warmup, rounds, pinnings="one"):
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
    parser.add_argument("--pinnings", choices=("one", "both"), default=pinnings, dest="pinnings_asked",
                        help=f"both: every run also with the two CPUs swapped, which takes twice as long ({pinnings})")
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
