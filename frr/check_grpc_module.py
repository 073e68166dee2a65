#!/usr/bin/python3
"""Loads FRR's gRPC module into staticd and waits until it answers as a gRPC (HTTP/2) server does.

Usage: check_grpc_module.py STATICD MODULE RUN_DIR, as root, in a network namespace of its own. RUN_DIR must be the user frr's.
Exit status 0: it answers. Otherwise the reason and staticd's own words are printed.
"""

import signal
import socket
import subprocess
import sys
import time

PORT = 50051
PATIENCE_SECONDS = 20
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HTTP2_FRAME_HEADER_LENGTH = 9
HTTP2_SETTINGS = 4
EMPTY_SETTINGS = bytes([0, 0, 0, HTTP2_SETTINGS, 0, 0, 0, 0, 0])


def answers():
    """Whether the first frame from the port is HTTP/2's SETTINGS (RFC 9113, 3.4)."""
    try:
        with socket.create_connection(("127.0.0.1", PORT), timeout=2) as connection:
            connection.sendall(HTTP2_PREFACE + EMPTY_SETTINGS)
            header = b""
            while len(header) < HTTP2_FRAME_HEADER_LENGTH:
                more = connection.recv(HTTP2_FRAME_HEADER_LENGTH - len(header))
                if not more:
                    return False
                header += more
            return header[3] == HTTP2_SETTINGS
    except OSError:
        return False


def stop(daemon):
    """Asks first: a staticd that is killed leaves its log buffer in /var/tmp/frr."""
    daemon.terminate()
    try:
        daemon.wait(timeout=5)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    staticd, module, run_dir = sys.argv[1:]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    daemon = subprocess.Popen(
        [staticd, "-M", f"{module}:{PORT}", "-f", "/dev/null", "-P", "0", "--vty_socket", run_dir]
        + ["-i", f"{run_dir}/staticd.pid", "-z", f"{run_dir}/zserv.api", "--log", "stdout"]
    )
    try:
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up_at:
            if daemon.poll() is not None:
                return f"staticd ended with status {daemon.returncode} instead of loading {module}"
            if answers():
                return 0
            time.sleep(0.05)
        return f"staticd loaded {module}, but nothing answered on port {PORT} within {PATIENCE_SECONDS} s"
    finally:
        stop(daemon)


if __name__ == "__main__":
    sys.exit(main())
