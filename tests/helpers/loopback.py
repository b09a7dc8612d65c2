"""A real HTTP server on loopback whose answers a test scripts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Handler(BaseHTTPRequestHandler):
    """A request. `answer` is what the test does with it."""

    protocol_version = "HTTP/1.1"
    answer: Callable[["Handler"], None]

    def do_GET(self) -> None:
        type(self).answer(self)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def drop(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True
        self.connection.shutdown(2)


@contextmanager
def server(answer: Callable[[Handler], None]) -> Iterator[str]:
    """Serve on a free port; yields the base URL."""
    made = ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Scripted", (Handler,), {"answer": staticmethod(answer)})
    )
    made.daemon_threads = True
    Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{made.server_port}"
    finally:
        made.shutdown()
        made.server_close()
