"""A local web server with prepared answers, which records the requests."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typing_extensions import override


@dataclass
class Stub:
    """Address of the server, and the recorded requests: path and `authorization` header."""

    url: str
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def answering(answers: Mapping[str, bytes], *, status: int = 200) -> Iterator[Stub]:
    """Serve `answers` by path, without the query string, and 404 for all other paths.

    With a redirect's `status`, each answer redirects to the server's own `/elsewhere`.
    """
    stub = Stub(url="")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            stub.asked.append((self.path, self.headers["authorization"]))
            body = answers.get(self.path.partition("?")[0])
            self.send_response(404 if body is None else status)
            if status in range(300, 400):
                self.send_header("location", "/elsewhere")
            self.send_header("content-length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        @override
        def log_message(self, *args: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # `server_close` waits for these threads, so that they close their connections.
    server.daemon_threads = False
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
