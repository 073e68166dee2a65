#!/usr/bin/python3
"""Loads a module into the installed FRR daemon that it is for and waits until it works: grpc.so answers as a gRPC (HTTP/2) server does,
kedge_bgpd_hold.so has changed the hold of a BGP instance.

Usage: check_module.py FRR_PROGRAMS NAME MODULE RUN_DIR, as root, in a network namespace of its own. RUN_DIR must be the user frr's.
Exit status 0: it works. Otherwise the reason and the daemon's own words are printed.
"""

import contextlib
import pathlib
import signal
import socket
import subprocess
import sys
import time

PATIENCE_SECONDS = 20
GRPC_PORT = 50051
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HTTP2_FRAME_HEADER_LENGTH = 9
HTTP2_SETTINGS = 4
EMPTY_SETTINGS = bytes([0, 0, 0, HTTP2_SETTINGS, 0, 0, 0, 0, 0])
# Not bgpd's own.
HOLD_MS = 7
BGPD_CONFIGURATION = "router bgp 65000\n"


def grpc_answers(_run_dir):
    """Whether the first frame from the port is HTTP/2's SETTINGS (RFC 9113, 3.4)."""
    with socket.create_connection(("127.0.0.1", GRPC_PORT), timeout=2) as connection:
        connection.sendall(HTTP2_PREFACE + EMPTY_SETTINGS)
        header = b""
        while len(header) < HTTP2_FRAME_HEADER_LENGTH:
            more = connection.recv(HTTP2_FRAME_HEADER_LENGTH - len(header))
            if not more:
                return False
            header += more
        return header[3] == HTTP2_SETTINGS


def hold_is_changed(run_dir):
    """Whether bgpd's own list of its queues has the hold. A reply on a vty socket ends in three zeros and a status."""
    with socket.socket(socket.AF_UNIX) as vty:
        vty.settimeout(2)
        vty.connect(str(run_dir / "bgpd.vty"))
        vty.sendall(b"show work-queues\0")
        reply = b""
        while reply[-4:-1] != bytes(3):
            more = vty.recv(65536)
            if not more:
                return False
            reply += more
    queues = [line.split() for line in reply.decode(errors="replace").splitlines() if "process_queue" in line]
    return bool(queues) and all(int(words[1]) == HOLD_MS for words in queues)


# Name of a module -> its daemon, the argument that it is loaded with, more arguments of the daemon, and whether it works.
CHECKS = {
    "grpc.so": ("staticd", GRPC_PORT, [], grpc_answers),
    "kedge_bgpd_hold.so": ("bgpd", HOLD_MS, ["-p", "0", "-n"], hold_is_changed),
}


def stop(daemon):
    """Asks first: a daemon that is killed leaves its log buffer in /var/tmp/frr."""
    daemon.terminate()
    try:
        daemon.wait(timeout=5)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    programs, name, module, run_dir = sys.argv[1:]
    program, argument, more, works = CHECKS[name]
    run = pathlib.Path(run_dir)
    configuration = run / "daemon.conf"
    configuration.write_text(BGPD_CONFIGURATION if program == "bgpd" else "", encoding="utf-8")
    configuration.chmod(0o644)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    daemon = subprocess.Popen(
        [f"{programs}/{program}", "-M", f"{module}:{argument}", "-f", configuration, "-P", "0", "--vty_socket", run_dir, *more]
        + ["-i", f"{run_dir}/{program}.pid", "-z", f"{run_dir}/zserv.api", "--log", "stdout"]
    )
    try:
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up_at:
            if daemon.poll() is not None:
                return f"{program} ended with status {daemon.returncode} instead of loading {module}"
            with contextlib.suppress(OSError):
                if works(run):
                    return 0
            time.sleep(0.05)
        return f"{program} loaded {module}, but it did not do its work within {PATIENCE_SECONDS} s"
    finally:
        stop(daemon)


if __name__ == "__main__":
    sys.exit(main())
