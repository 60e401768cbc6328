"""Standard input to a port of this machine, and what comes from there to standard output.

    python3 -I -c SOURCE PORT

Runs inside the machine: standard library only, nothing newer than Python 3.9, and nothing of ours.
"""

import contextlib
import os
import socket
import sys
import threading

PIECE = 64 * 1024


def _connect(port: int) -> socket.socket:
    try:
        return socket.create_connection(("127.0.0.1", port))
    except OSError:
        return socket.create_connection(("::1", port))


def _inward(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := os.read(0, PIECE):
            server.sendall(piece)
        server.shutdown(socket.SHUT_WR)


def main() -> None:
    with _connect(int(sys.argv[1])) as server:
        threading.Thread(target=_inward, args=(server,), daemon=True).start()
        with contextlib.suppress(OSError):
            while piece := server.recv(PIECE):
                while piece:
                    piece = piece[os.write(1, piece) :]
    os._exit(0)  # whoever still writes is not waited for


if __name__ == "__main__":
    main()
