"""HTTP over a unix socket, with Python's own library."""

import http.client
import socket


class UnixHTTPConnection(http.client.HTTPConnection):
    """A connection to the program that listens on a socket of this node.

    Args:
        path: of the socket.
        timeout: seconds without a byte until an operation fails with `TimeoutError`; None is for ever.
        blocksize: bytes of a body that are sent at once.
    """

    def __init__(self, path: str, *, timeout: float | None, blocksize: int = 1 << 16) -> None:
        super().__init__("localhost", blocksize=blocksize)
        self._path = path
        self._seconds = timeout

    def connect(self) -> None:
        """Connect to the socket.

        Raises:
            OSError: nobody listens there.
        """
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._seconds)
        self.sock.connect(self._path)
