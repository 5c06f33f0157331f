"""A server under test: started, ready, ended."""

import collections
import random
import re
import socket
import subprocess
import threading
import time

import machine

READY = re.compile(r"listening on (\d+\.\d+\.\d+\.\d+:\d+)")
READY_TIMEOUT_S, STOP_TIMEOUT_S = 10, 15
# Short against any start-up, and long enough not to keep the kernel busy.
LOOK_AGAIN_S = 0.0001


class Unavailable(Exception):
    """A server that did not get as far as being ready."""


def free_port():
    """A port nobody listens on, below those the kernel hands out (ip_local_port_range): no other process is given it in
    between, and a connection to it cannot meet itself before there is a server."""
    first = int(machine.read_or_nothing("/proc/sys/net/ipv4/ip_local_port_range").split()[0] or 32768)
    for port in random.sample(range(max(1024, first - 8000), first), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Unavailable("no free port was found")


def filled_in(command, **words):
    """The words of a command, with what stands in it in braces."""
    def fill(word):
        for name, value in words.items():
            word = word.replace("{" + name + "}", str(value))
        return word

    return [fill(str(word)) for word in command]


class Server:
    """A server that accepts connections. Ended when the `with` block is left, however it is left.

    One that chooses a port itself says `listening on ADDRESS:PORT`. One that cannot has `{port}` in its command, and is
    ready when a connection to it succeeds; it sees that connection come and go. The same holds for one whose port is
    given, because its command does not name it.
    """

    def __init__(self, name, command, cpu, port=None):
        self.name, self.command, self.cpu, self.port = name, command, cpu, port
        self.process, self.address, self.ready_ms = None, None, None
        self.lines, self.heard = collections.deque(maxlen=5), threading.Event()

    def start(self):
        if any("{port}" in str(word) for word in self.command):
            self.port = self.port or free_port()
        command = filled_in(self.command, port=self.port)
        with machine.pinned(self.cpu):
            self.began = time.monotonic()
            # A session of its own, so that what it leaves behind can be found and ended.
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                            stderr=subprocess.STDOUT, text=True, errors="replace",
                                            start_new_session=True)
        # Reads to the end, or a server that logs would stop when the pipe is full.
        threading.Thread(target=self.read, daemon=True).start()
        if self.port:
            self.knock(self.port)

    def read(self):
        for line in self.process.stdout:
            now = time.monotonic()
            self.lines.append(line.strip())
            found = READY.search(line)
            if found and not self.address:
                self.address, self.ready_ms = found[1], (now - self.began) * 1000
                self.heard.set()
        self.heard.set()

    def knock(self, port):
        """Tries to connect until that succeeds."""
        while time.monotonic() < self.began + READY_TIMEOUT_S and self.process.poll() is None:
            with socket.socket() as knocking:
                if knocking.connect_ex(("127.0.0.1", port)) == 0:
                    self.ready_ms = (time.monotonic() - self.began) * 1000
                    self.address = f"127.0.0.1:{port}"
                    self.heard.set()
                    return
            time.sleep(LOOK_AGAIN_S)

    def __enter__(self):
        try:
            self.start()
            if not self.heard.wait(READY_TIMEOUT_S) or not self.address:
                raise Unavailable(self.last_words() or f"not ready within {READY_TIMEOUT_S} s")
        except BaseException:  # Ctrl-C among them, for which nobody would call __exit__
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if not self.process:
            return
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(STOP_TIMEOUT_S)
        machine.end_group(self.process.pid)

    def await_line(self, beginning, seconds):
        """Waits for a line that begins so, and returns it; nothing if it does not come."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in list(self.lines):
                if line.startswith(beginning):
                    return line
            time.sleep(0.001)
        return ""

    def last_words(self):
        return machine.without_paths(self.lines[-1]) if self.lines else ""
