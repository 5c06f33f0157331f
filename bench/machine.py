"""The machine: its settings, its accounts, what it is, and who else uses it."""

import contextlib
import ctypes
import os
import platform
import re
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONGESTION_CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")
# Fixed before the first run, so that no run is thrown away for its figures.
MOST_STEAL_PERCENT, MOST_ELSEWHERE_PERCENT = 1, 5
# A burst lasts some 50 clock ticks. Steal is counted and handed over by the tick; what others took is a difference of
# samples, and was seen to be out by 5 of them on an idle machine. Fewer than these decide nothing.
LEAST_STEAL_TICKS, LEAST_ELSEWHERE_TICKS = 3, 8
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


# ---------------------------------------------------------------- settings


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
def kernel_setting(name, value):
    """Sets a number below /proc/sys while the `with` block runs, if that is allowed."""
    path = Path("/proc/sys") / name
    before = read_or_nothing(path).strip()
    try:
        path.write_text(str(value))
    except OSError as error:
        print(f"{script()}: {name} stays {before}: {error.strerror}", file=sys.stderr)
        yield
        return
    try:
        yield
    finally:
        path.write_text(before)


@contextlib.contextmanager
def pinned(cpu):
    """Starts children on another CPU: they inherit it, which needs no code between fork and exec."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# ---------------------------------------------------------------- accounts


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
    def objection(found, most_steal_percent, most_elsewhere_percent):
        def is_over(percent, most, least_ticks):
            return percent > most and percent * found["ticks"] / 100 >= least_ticks

        if is_over(found["steal_percent"], most_steal_percent, LEAST_STEAL_TICKS):
            return f"the hypervisor took more than {most_steal_percent} %"
        if is_over(found["elsewhere_percent"], most_elsewhere_percent, LEAST_ELSEWHERE_TICKS):
            return f"other processes took more than {most_elsewhere_percent} %"
        return None


def anonymous_bytes(pid):
    """The heap and the stacks of a process, as `anonymous_bytes` in limits/src/account.rs."""
    text = read_or_nothing(f"/proc/{pid}/smaps_rollup")
    return 1024 * sum(int(number) for number in re.findall(r"^(?:Anonymous|Swap):\s+(\d+)", text, re.M))


def cpu_ns(leader):
    """What all threads of a session have run so far, those included that are its children's."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        fields = read_or_nothing(stat).rpartition(")")[2].split()
        if len(fields) > 3 and int(fields[3]) == leader:
            tasks = (stat.parent / "task").glob("*/schedstat")
            total += sum(int((read_or_nothing(task).split() or ["0"])[0]) for task in tasks)
    return total


@contextlib.contextmanager
def folder(parent=None):
    with tempfile.TemporaryDirectory(dir=parent) as directory:
        yield Path(directory)


def memory_available_bytes():
    found = re.search(r"^MemAvailable:\s+(\d+)", read_or_nothing("/proc/meminfo"), re.M)
    return int(found[1]) * 1024 if found else 0


def adopt_orphans():
    """Makes this process the parent of processes whose parent has ended, which can then be waited for: a server with a
    process for each connection leaves some, and their time belongs to the run."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_group(leader):
    """Ends what a child with a session of its own has left in it, and waits for all of it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-leader, 0)


def end_children():
    """Ends what a signal at a bad moment left: a child of this process is one it started, and is known by its id."""
    for task in Path("/proc/self/task").iterdir():
        for pid in read_or_nothing(task / "children").split():
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(int(pid), signal.SIGKILL)
                os.waitpid(int(pid), 0)


# ---------------------------------------------------------------- what it is


def description():
    cpu = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    virtual = re.search(r"^flags\s*:.*\bhypervisor\b", Path("/proc/cpuinfo").read_text(), re.M)
    return (f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores"
            + (", a virtual machine" if virtual else ""))


def kernel(control):
    version = re.match(r"[\d.]+\d", platform.release())
    huge_pages = re.search(r"\[(\w+)\]", read_or_nothing("/sys/kernel/mm/transparent_hugepage/enabled"))
    return (f"Linux {version[0] if version else 'unknown'}, congestion control {control}, "
            f"transparent huge pages {huge_pages[1] if huge_pages else 'unknown'}")


def commit():
    found = first_line("git", "rev-parse", "--short=12", "HEAD") or "none yet"
    changed = first_line("git", "status", "--porcelain", "--", ":/", ":(exclude,top)bench/runs")
    return found + (" with changes not committed" if changed else "")


def script():
    return Path(sys.argv[0]).name


def without_paths(text):
    """Leaves the last part of every absolute path: where something lay on one machine is nobody's concern."""
    return re.sub(r"(?<![\w.~/}])(?!//)~?/(?:[^\s/'\"=]+/)*", "", text)


def first_line(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().partition("\n")[0]


def read_or_nothing(path):
    try:
        return Path(path).read_text()
    except OSError:
        return ""
