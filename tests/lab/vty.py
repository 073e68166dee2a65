"""FRR daemons asked and configured over their vty sockets: what vtysh does, for commands that vtysh does not know, and without starting a program."""

import socket


class Vty:
    """A connection to a daemon's vty socket, privileged (`enable`). Raises OSError when the daemon is not there, or ends."""

    def __init__(self, path, seconds=1):
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(seconds)
            self._socket.connect(str(path))
            self.run("enable")
        except OSError:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._socket.close()

    def run(self, command):
        """Status (0: done) and text of the answer."""
        self._socket.sendall(command.encode() + b"\0")
        answer = b""
        # The end of an answer is three zeros and a status.
        while answer[-4:-1] != b"\0\0\0":
            piece = self._socket.recv(65536)
            if not piece:
                raise OSError("the daemon has ended")
            answer += piece
        return answer[-1], answer[:-4].decode()

    def ask(self, command):
        return self.run(command)[1]

    def configure(self, *lines):
        """The first line that is refused with why, or ''."""
        self.run("configure terminal")
        try:
            for line in lines:
                status, text = self.run(line)
                if status != 0:
                    return f"{line}: {text.strip()}"
            return ""
        finally:
            self.run("end")


def best_path_queues(vty):
    """How many milliseconds each of bgpd's instances holds best-path selection, and how often it has run; in the order in which they were made."""
    lines = [line.split() for line in vty.ask("show work-queues").splitlines() if "process_queue" in line]
    # [P] ITEMS HOLD RUNS ...; P: plugged.
    return [tuple(map(int, words[1:3])) for words in ((line[1:] if line[0] == "P" else line) for line in lines)]
