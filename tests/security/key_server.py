"""An HTTPS server for key sets, which can be as slow or as wrong as a test requires."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import SHUT_RDWR, create_server, socket

from tests.integration.certificates import Certificates, certificates

Behaviour = Callable[[socket], None]
"""Serves one connection. The connection is closed when the function returns."""


class KeyServer:
    """A server that treats each connection as its present behaviour says."""

    def __init__(self, directory: Path) -> None:
        self.behave: Behaviour = self.silent
        self.stopped = threading.Event()
        self.served = 0
        self.certificates: Certificates = certificates(directory / "tls", "localhost")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.certificates.certificate, self.certificates.key)
        self._listener = create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"https://localhost:{self.port}/jwks.json"

    def secured(self, connection: socket) -> ssl.SSLSocket:
        return self._context.wrap_socket(connection, server_side=True)

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.served += 1
                threading.Thread(target=self._treat, args=(connection,), daemon=True).start()

    def _treat(self, connection: socket) -> None:
        with connection, suppress(OSError):
            self.behave(connection)

    def answering(self, *parts: bytes, every: float = 0) -> Behaviour:
        """Return a behaviour that reads a request and sends the parts, with pauses between them."""

        def behave(connection: socket) -> None:
            with self.secured(connection) as secured:
                secured.recv(4096)
                for part in parts:
                    secured.sendall(part)
                    if every and self.stopped.wait(every):
                        return

        return behave

    def silent(self, _connection: socket) -> None:
        """Accept the connection, and send nothing."""
        self.stopped.wait()

    def close(self) -> None:
        self.stopped.set()
        with suppress(OSError):
            self._listener.shutdown(SHUT_RDWR)
        self._listener.close()


@contextmanager
def key_server(directory: Path) -> Iterator[KeyServer]:
    """Serve until the end of the block. At first the server is silent."""
    server = KeyServer(directory)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return an HTTP answer. Its length is stated, unless a header states the encoding."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


def bytewise(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]
