"""What the scripts beside this file share: the machine, the runs, the statistics and the page.

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
import platform
import random
import re
import resource
import shlex
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONGESTION_CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")
SUBJECT = "sockeye"
READY = re.compile(r"listening on (\d+\.\d+\.\d+\.\d+:\d+)")
READY_TIMEOUT_S, STOP_TIMEOUT_S, BUILD_TIMEOUT_S = 10, 15, 1800
# Fixed before the first run, so that no run is thrown away for its figures.
MOST_STEAL_PERCENT, MOST_ELSEWHERE_PERCENT = 1, 5
# A burst lasts some 50 clock ticks. Steal is counted and handed over by the tick; what others took is a difference of
# samples, and was seen to be out by 5 of them on an idle machine. Fewer than these decide nothing.
LEAST_STEAL_TICKS, LEAST_ELSEWHERE_TICKS = 3, 8
# A disturbed run is repeated, or a busy hour would leave no round complete. Never one that failed: that is a result.
MOST_ATTEMPTS = 3
LEAST_ROUNDS = 6  # fewer say nothing of an interval


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
    more_is_better: bool = False
    is_timed: bool = True  # or else it measures what a busy machine does not change
    most_steal_percent: float = MOST_STEAL_PERCENT
    most_elsewhere_percent: float = MOST_ELSEWHERE_PERCENT


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
    """What one script measures."""

    name: str  # of the script
    label: str  # of its pages, if none is given
    about: str
    manifests: tuple  # of the packages it needs besides the program, below bench/
    cases: dict
    targets: tuple
    reference: str  # the server all others are compared with
    servers: Callable  # from the options a context manager with the servers, as pairs of a name and a command
    may_be_missing: tuple = ()  # servers
    facts: Callable = lambda runs: {}  # more of them, from the runs


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
)


def echo_case(program, connections, size, label):
    client = (program, "--connections", str(connections), "--size", str(size), "--verify")
    return Case(f"echo, {label} at {connections:,} connections", client, LOAD_COLUMNS, has_window=True)


class Unavailable(Exception):
    """A server that did not get as far as its ready line."""


# ---------------------------------------------------------------- the machine


@contextlib.contextmanager
def congestion_control():
    """Sets cubic and puts the old one back. BBR, which some machines default to, paces with timers: they would be
    measured, and not the servers."""
    before = CONGESTION_CONTROL.read_text().strip()
    try:
        yield before if before == "cubic" else set_cubic(before)
    finally:
        if CONGESTION_CONTROL.read_text().strip() != before:
            CONGESTION_CONTROL.write_text(before)


def set_cubic(before):
    try:
        CONGESTION_CONTROL.write_text("cubic")
    except OSError as error:
        if os.geteuid() != 0:
            sys.exit(f"{script()}: congestion control is {before}, and cubic is for root to set: {error.strerror}\n"
                     "hint: run as root, or set net.ipv4.tcp_congestion_control=cubic first")
        print(f"{script()}: congestion control stays {before}: {error.strerror}", file=sys.stderr)
        return f"{before} (could not be changed)"
    return f"cubic (set for the run; {before} before and after)"


@contextlib.contextmanager
def pinned(cpu):
    """Starts children on another CPU: they inherit it, which needs no code between fork and exec."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Disturbance:
    """What else used the CPUs during a run: the hypervisor, and everybody but this script and its children."""

    def __init__(self):
        self.ticks, self.ours = self.read()

    @staticmethod
    def read():
        ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return ticks, sum(usage.ru_utime + usage.ru_stime for usage in usages)

    def since(self):
        """In percent of the time of all CPUs. Call when the children have ended: only then are they accounted for."""
        after, ours = self.read()
        user, nice, system, idle, iowait, irq, softirq, steal = (b - a for a, b in zip(self.ticks, after))
        total = max(1, user + nice + system + idle + iowait + irq + softirq + steal)
        ours = (ours - self.ours) * os.sysconf("SC_CLK_TCK")
        elsewhere = max(0, user + nice + system + irq + softirq - ours)
        return {"ticks": total, "steal_percent": round(100 * steal / total, 2),
                "elsewhere_percent": round(100 * elsewhere / total, 2)}

    @staticmethod
    def objection(found, case):
        def is_over(percent, most, least_ticks):
            return percent > most and percent * found["ticks"] / 100 >= least_ticks

        if is_over(found["steal_percent"], case.most_steal_percent, LEAST_STEAL_TICKS):
            return f"the hypervisor took more than {case.most_steal_percent} %"
        if is_over(found["elsewhere_percent"], case.most_elsewhere_percent, LEAST_ELSEWHERE_TICKS):
            return f"other processes took more than {case.most_elsewhere_percent} %"
        return None


# ---------------------------------------------------------------- one run


class Server:
    """A server that has said that it listens. Ended when the `with` block is left, however it is left."""

    def __init__(self, name, command, cpu):
        self.name, self.command, self.cpu = name, command, cpu
        self.process, self.address, self.ready_ms = None, None, None
        self.lines, self.heard = collections.deque(maxlen=5), threading.Event()

    def start(self):
        with pinned(self.cpu):
            self.began = time.monotonic()
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                            stderr=subprocess.STDOUT, text=True, errors="replace")
        # Reads to the end, or a server that logs would stop when the pipe is full.
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            now = time.monotonic()
            self.lines.append(line.strip())
            found = READY.search(line)
            if found and not self.address:
                self.address, self.ready_ms = found[1], (now - self.began) * 1000
                self.heard.set()
        self.heard.set()

    def __enter__(self):
        try:
            self.start()
            if not self.heard.wait(READY_TIMEOUT_S) or not self.address:
                raise Unavailable(self.last_words() or f"no ready line within {READY_TIMEOUT_S} s")
        except BaseException:  # Ctrl-C among them, for which nobody would call __exit__
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(STOP_TIMEOUT_S)

    def last_words(self):
        return without_paths(self.lines[-1]) if self.lines else ""


def run_case(case, server, options):
    """One figure: a fresh server, one client against it, and a verdict on whether the run counts."""
    if not case.client:
        with Server(*server, options.server_cpu) as started:
            return {"ready_ms": round(started.ready_ms, 3), "valid": True}
    disturbance = Disturbance()
    try:
        with Server(*server, options.server_cpu) as started:
            run = run_client(case, started, options)
    except Unavailable as error:
        run = {"valid": False, "objection": f"the server did not start: {error}"}
    found = disturbance.since()
    objection = Disturbance.objection(found, case) if case.is_timed and run["valid"] else None
    return run | found | ({"valid": False, "disturbed": True, "objection": objection} if objection else {})


def run_client(case, server, options):
    program, *arguments = case.client
    command = [options.built / program, server.address, *arguments, "--pid", str(server.process.pid)]
    if case.has_window:
        command += ["--duration", str(options.seconds), "--warmup", str(options.warmup)]
    with pinned(options.client_cpu):
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
    """What to run, in order: every case in every round, and every server in each.

    A different server is first each time, and after each has been, the order is reversed: a rotation alone would run
    every server after the same other one for ever, with the caches that one leaves behind. The order of the cases is
    reversed in every other round, since some are compared with one another.
    """
    names = [name for name in options.cases if cases[name].client]
    starts = [name for name in options.cases if not cases[name].client]
    plan = [(name, number) for number in range(options.rounds) for name in (names[::-1] if number % 2 else names)]
    plan += [(name, number) for name in starts for number in range(options.starts)]
    for name, number in plan:
        first = number % len(servers)
        order = servers[first:] + servers[:first]
        if number // len(servers) % 2:
            order.reverse()
        for position, server in enumerate(order):
            yield name, number, position, server


def measure(options, servers, cases, raw):
    runs = []
    steps = list(schedule(options, servers, cases))
    for done, (name, number, position, server) in enumerate(steps, 1):
        where = {"case": name, "server": server[0], "round": number, "position": position}
        for attempt in range(MOST_ATTEMPTS):
            run = where | {"attempt": attempt} | run_case(cases[name], server, options)
            raw.write(json.dumps(run) + "\n")
            raw.flush()
            runs.append(run)
            column = cases[name].columns[0]
            said = f"{column.heading} {number_text(run[column.field], column)}" if run["valid"] else run["objection"]
            print(f"[{done}/{len(steps)}] {name} {server[0]}: {said}", file=sys.stderr)
            if not run.get("disturbed"):
                break
    return runs


def available(options, servers_given, may_be_missing, raw):
    """The servers that start here. Starting each once also fetches it from disk before its start-up is measured."""
    servers, missing = [], {}
    for name, command in servers_given:
        try:
            with Server(name, command, options.server_cpu):
                servers.append((name, command))
        except (Unavailable, OSError) as error:
            # A kernel may forbid io_uring, and that is a result. Anything else missing is a mistake.
            if name not in may_be_missing:
                sys.exit(f"{script()}: {name} does not start: {without_paths(str(error))}")
            missing[name] = str(error)
            raw.write(json.dumps({"server": name, "available": False, "reason": str(error)}) + "\n")
    return servers, missing


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


# ---------------------------------------------------------------- what it means


def values(runs, case, server, field):
    """Of the runs that count, by round."""
    return {run["round"]: run[field] for run in runs
            if run["case"] == case and run["server"] == server and run["valid"] and run[field] is not None}


def paired_ratio(runs, field, above, below):
    """The median of the ratios within each round, and a bootstrap 95 % interval of it. None for what is unknown.
    What is compared is a case and a server each."""
    over, under = values(runs, *above, field), values(runs, *below, field)
    ratios = [over[number] / under[number] for number in sorted(over.keys() & under.keys()) if under[number]]
    if not ratios:
        return None
    if len(ratios) < LEAST_ROUNDS:
        return statistics.median(ratios), None, None, len(ratios)
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(10_000))
    return statistics.median(ratios), medians[249], medians[9749], len(ratios)


def number_text(value, column):
    return "–" if value is None else f"{value / column.divisor:,.{column.digits}f}"


def interval_text(low, high):
    return "too few rounds to tell" if low is None else f"{low:.3f}–{high:.3f}"


def case_table(runs, name, case, servers):
    lines = [f"### {case.title[0].upper()}{case.title[1:]}", "",
             "| server | " + " | ".join(column.heading for column in case.columns) + " | runs that count |",
             "|---|" + "---:|" * (len(case.columns) + 1)]
    for server, _ in servers:
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
    names = [server for server, _ in servers]
    if case.against:
        return [((name, server), (case.against, server), f"{server}: {name} / {case.against}") for server in names]
    found = [(server, reference) for server in names if server != reference and reference in names]
    found += [(SUBJECT, server) for server in names if SUBJECT in names and server not in (SUBJECT, reference)]
    return [((name, above), (name, below), f"{above} / {below}") for above, below in found]


def ratio_table(runs, options, suite, servers):
    lines = ["| case | figure | pair | ratio | 95 % interval | rounds | ahead |", "|---|---|---|---:|---|---:|---|"]
    for name in options.cases:
        case = suite.cases[name]
        compared = pairs(name, case, servers, suite.reference)
        for column, (above, below, title) in itertools.product(case.columns[:case.compared], compared):
            found = paired_ratio(runs, column.field, above, below)
            if not found:
                continue
            ratio, low, high, rounds = found
            ahead = "not known"
            if low and (low > 1 or high < 1):
                ahead = above if (low > 1) == case.more_is_better else below
                ahead = ahead[0 if case.against else 1]
            lines.append(f"| {case.title} | {column.heading} | {title} | {ratio:.3f} | "
                         f"{interval_text(low, high)} | {rounds} | {ahead} |")
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


# ---------------------------------------------------------------- the page


def without_paths(text):
    """Leaves the last part of every absolute path: where something lay on one machine is nobody's concern."""
    return re.sub(r"(?<![\w.~])~?/(?:[^\s/'\"=]+/)*", "", text)


def first_line(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().partition("\n")[0]


def facts(options, control, more):
    cpu = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    virtual = re.search(r"^flags\s*:.*\bhypervisor\b", Path("/proc/cpuinfo").read_text(), re.M)
    kernel = re.match(r"[\d.]+\d", platform.release())
    commit = first_line("git", "rev-parse", "--short=12", "HEAD") or "none yet"
    changed = " with changes not committed" if first_line("git", "status", "--porcelain", "--", ":/", ":(exclude,top)bench/runs") else ""
    version = "" if SUBJECT in options.without else first_line(options.built / SUBJECT, "--version")
    huge_pages = re.search(r"\[(\w+)\]", read_or_nothing("/sys/kernel/mm/transparent_hugepage/enabled"))
    lines = {
        "machine": f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores"
                   + (", a virtual machine" if virtual else ""),
        "kernel": f"Linux {kernel[0] if kernel else 'unknown'}, congestion control {control}, "
                  f"transparent huge pages {huge_pages[1] if huge_pages else 'unknown'}",
        "CPUs": f"server on {options.server_cpu}, client on {options.client_cpu}, loopback",
        "commit": commit + changed,
        "versions": ", ".join(filter(None, [version, first_line("rustc", "--version")])),
        "command": f"`{without_paths(options.typed)}`",
    } | more
    return [f"- {name}: {text}" for name, text in lines.items() if text]


def read_or_nothing(path):
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def stricter(cases):
    usual = (MOST_STEAL_PERCENT, MOST_ELSEWHERE_PERCENT)
    limits = {name: (case.most_steal_percent, case.most_elsewhere_percent) for name, case in cases.items()}
    return "".join(f" For {name} it is {steal} % and {elsewhere} %."
                   for name, (steal, elsewhere) in limits.items() if (steal, elsewhere) != usual)


def page(options, control, suite, servers, missing, runs):
    invalid = collections.Counter((run["case"], run["server"], run["objection"]) for run in runs if not run["valid"])
    lines = [f"# Figures of {options.date}, {options.label}", "",
             f"Written by `bench/{suite.name}`; every run is a line of `raw.jsonl`. What the figures mean, and what "
             "they do not, is in `bench/README.md`.", "", *facts(options, control, suite.facts(runs)), "", "Servers:", ""]
    lines += [f"- {name}: `{without_paths(shlex.join(map(str, command)))}`" for name, command in servers]
    lines += [f"- {name}: not available ({reason})" for name, reason in missing.items()]
    lines += ["", "## Targets", "", *(target_line(runs, target, suite) for target in suite.targets), "",
              "## Medians (lowest–highest)", ""]
    for name in options.cases:
        lines += case_table(runs, name, suite.cases[name], servers)
    lines += ["## Ratios within a round", "",
              "The median over the rounds, and a bootstrap 95 % interval of it. Where the interval holds 1, the "
              "figures do not tell which is ahead. Of a few rounds such an interval is rather too narrow.", "",
              *ratio_table(runs, options, suite, servers), "## Runs that do not count", "",
              "Decided beforehand: a run counts unless a connection failed or went unserved, or (but for memory and "
              f"the start-up) the hypervisor took more than {MOST_STEAL_PERCENT} % of the CPUs and at least "
              f"{LEAST_STEAL_TICKS} clock ticks, or other processes took more than {MOST_ELSEWHERE_PERCENT} % and at "
              f"least {LEAST_ELSEWHERE_TICKS}.{stricter(suite.cases)} A run so disturbed is repeated, up to "
              f"{MOST_ATTEMPTS - 1} times.", ""]
    lines += [f"- {case}, {server}: {count} × {why}" for (case, server, why), count in invalid.items()] or ["None."]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- the command line


def script():
    return Path(sys.argv[0]).name


def parse(suite):
    parser = argparse.ArgumentParser(description=suite.about.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="rounds of every case but start-up (10)")
    parser.add_argument("--starts", type=int, default=30, metavar="N", help="starts of every server (30)")
    parser.add_argument("--seconds", type=float, default=3, metavar="S", help="the measured part of a load (3)")
    parser.add_argument("--warmup", type=float, default=0.5, metavar="S", help="what comes before it (0.5)")
    parser.add_argument("--cases", type=lambda text: text.split(","), default=list(suite.cases), metavar="A,B",
                        help="only these: " + ", ".join(suite.cases))
    parser.add_argument("--server", action="append", default=[], metavar="NAME=COMMAND",
                        help="another server; it has to print `listening on ADDRESS:PORT`")
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="leave out a server")
    parser.add_argument("--server-cpu", type=int, default=0, metavar="CPU")
    parser.add_argument("--client-cpu", type=int, default=1, metavar="CPU")
    parser.add_argument("--label", default=suite.label, help=f"part of the name of the directory ({suite.label})")
    parser.add_argument("--output", type=Path, metavar="DIR", help="instead of bench/runs/DATE-LABEL")
    options = parser.parse_args()
    options.typed = shlex.join([f"bench/{suite.name}", *sys.argv[1:]])
    options.date = time.strftime("%Y-%m-%d")
    if unknown := set(options.cases) - set(suite.cases):
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
    options.output = options.output or ROOT / "bench/runs" / f"{options.date}-{options.label}"
    if (options.output / "raw.jsonl").exists():
        parser.error("there are figures of this name already: choose another --label or --output")
    return options


def chosen(options, built_in):
    """The servers to measure, with those from the command line."""
    given = [(name, shlex.split(command)) for name, _, command in (text.partition("=") for text in options.server)]
    return [server for server in built_in if server[0] not in options.without] + given


def end_children():
    """Ends what a signal at a bad moment left: a child of this process is one it started, and is known by its id."""
    for task in Path("/proc/self/task").iterdir():
        for pid in read_or_nothing(task / "children").split():
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(int(pid), signal.SIGKILL)
                os.waitpid(int(pid), 0)


def main(suite):
    try:
        run_suite(suite)
    except KeyboardInterrupt:
        sys.exit(130)
    except subprocess.SubprocessError as error:
        sys.exit(f"{suite.name}: {without_paths(str(error))}")
    finally:
        end_children()


def run_suite(suite):
    options = parse(suite)
    # Ends like Ctrl-C, so that the machine is put back as it was and no server is left behind.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    options.built = build(options, suite.manifests)
    options.output.mkdir(parents=True, exist_ok=True)
    # This script waits while a client runs, and must not do it on the server's CPU.
    os.sched_setaffinity(0, {options.client_cpu})
    with contextlib.ExitStack() as stack:
        control = stack.enter_context(congestion_control())
        raw = stack.enter_context((options.output / "raw.jsonl").open("w"))
        built_in = stack.enter_context(suite.servers(options))
        servers, missing = available(options, chosen(options, built_in), suite.may_be_missing, raw)
        runs = measure(options, servers, suite.cases, raw)
    (options.output / "README.md").write_text(page(options, control, suite, servers, missing, runs))
    print(options.output / "README.md")
