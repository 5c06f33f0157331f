"""The servers and programs of the comparison: how each is started, and of what version it is.

A peer gets the options that its users would give it for many clients. Those are on every page, and so is what is missing
here.
"""

import re
import shutil
import subprocess
import sys

from figures import build
from machine import ROOT
from suite import SUBJECT

LIMIT = "epoll_echo"
# A process or two for each connection. Beyond a thousand they are not asked.
FORKING = ("ncat", "socat")
REACTORS = (SUBJECT, LIMIT, "tokio_echo", "go_echo")
MAY_BE_MISSING = ("uring_echo", "go_echo", "nc", "nginx", "http.server", "wrk", "tcpserver", *FORKING)
# What is run for each connection, where a program is, and how many at once: the default of tcpserver.
PROGRAM = "/bin/cat"
PROGRAMS_AT_ONCE = "40"
# Larger than every message: one call reads it whole, as the servers do that have one buffer for all connections.
LARGE_BUFFER = 64 * 1024
# What the documentation of tokio and many a program in Go reads into: it is what an idle connection holds.
USUAL_BUFFER = 4096


def subject(options, listen="127.0.0.1:0"):
    return SUBJECT, [options.built / SUBJECT, "serve", "echo", "--listen", listen, "--workers", "1",
                     "--max-connections", "18000"]


def limit(options):
    return LIMIT, [options.built / LIMIT]


def uring(options):
    return "uring_echo", [options.built / "uring_echo"]


def tokio(options, buffer):
    return "tokio_echo", [options.built / "tokio_echo", "--buffer", buffer]


def go(options, buffer):
    # One thread that runs Go code, as the others have one.
    return "go_echo", ["env", "GOMAXPROCS=1", options.built / "go_echo", "-buffer", buffer]


def ncat():
    # 100 connections are its default, and more are turned away.
    return "ncat", ["ncat", "--listen", "--keep-open", "--max-conns", "20000", "--exec", "/bin/cat",
                    "127.0.0.1", "{port}"]


def socat():
    # Its default backlog is 5. PIPE echoes within the process; with EXEC:cat there would be two for each connection.
    return "socat", ["socat", "TCP4-LISTEN:{port},bind=127.0.0.1,reuseaddr,backlog=4096,fork", "PIPE"]


def exec_subject(options):
    return SUBJECT, [options.built / SUBJECT, "serve", "exec", "--listen", "127.0.0.1:0", "--workers", "1",
                     "--max-connections", PROGRAMS_AT_ONCE, "--", PROGRAM]


def tcpserver():
    # Without the lookups of names and users. Its default backlog is 20.
    return "tcpserver", ["tcpserver", "-HRl0", "-c", PROGRAMS_AT_ONCE, "-b", "4096", "127.0.0.1", "{port}", PROGRAM]


def ncat_exec():
    return "ncat", ["ncat", "--listen", "--keep-open", "--max-conns", PROGRAMS_AT_ONCE, "--exec", PROGRAM, "127.0.0.1",
                    "{port}"]


def socat_exec():
    listen = f"TCP4-LISTEN:{{port}},bind=127.0.0.1,reuseaddr,backlog=4096,max-children={PROGRAMS_AT_ONCE},fork"
    return "socat", ["socat", listen, f"EXEC:{PROGRAM}"]


def build_all(options, manifests):
    """Builds the program, the limits, and the echo in Go where there is a compiler for it."""
    options.built = build(options, manifests)
    if shutil.which("go"):
        command = ["go", "build", "-o", options.built / "go_echo", ROOT / "bench/peers/echo.go"]
        subprocess.run(command, check=True, timeout=300)


VERSIONS = {
    "ncat": (["ncat", "--version"], r"Ncat: Version (\S+)"),
    "socat": (["socat", "-V"], r"socat version (\S+)"),
    "nc": (["nc", "-h"], r"(OpenBSD netcat.*)"),
    "nginx": (["nginx", "-v"], r"nginx/(\S+)"),
    "wrk": (["wrk", "-v"], r"wrk (?:debian/)?(\S+)"),
    "Go": (["go", "version"], r"go version go(\S+)"),
    "Python": ([sys.executable, "--version"], r"Python (\S+)"),
}


def versions():
    found = {name: version(*asked) for name, asked in VERSIONS.items()}
    for library in ("tokio", "mio"):
        place = {"tokio": "tokio", "mio": "limits"}[library]
        lock = (ROOT / "bench" / place / "Cargo.lock").read_text()
        locked = re.search(rf'^name = "{library}"\nversion = "(.*)"$', lock, re.M)
        found[library] = locked[1] if locked else "unknown"
    return ", ".join(f"{name} {text}" for name, text in found.items())


def version(command, pattern):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    except OSError:
        return "not installed"
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1].strip() if found else "of unknown version"
