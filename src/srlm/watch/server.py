"""The page's server: on 127.0.0.1 alone, for who has the token in its address.

Without a token 401, with a wrong one 403, and 403 for a host name that is not this machine's own
(another name could be pointed here by a foreign page). Every answer has a content security policy
that allows the page's own scripts by their hashes and nothing else. It only reads.
"""

from __future__ import annotations

import hmac
import secrets
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from srlm.errors import UserError
from srlm.report import charts
from srlm.report.compare import compared
from srlm.report.page import fragment, policy, render
from srlm.watch.samples import asked
from srlm.watch.state import Watched

HOST = "127.0.0.1"
FRAMES = "frame-ancestors 'none'"


class Site:
    """The pages of some runs."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.runs = [Watched(folder) for folder in folders]
        self._lock = threading.Lock()

    def answer(self, path: str, given: dict[str, str]) -> str | None:
        """The HTML at a path; None where there is nothing."""
        number = given.get("run", "0")
        at = int(number) if number.isdecimal() and int(number) < len(self.runs) else 0
        run = self.runs[at]
        with self._lock:  # one at a time, whatever a browser opens
            if path == "/":
                return render(
                    "watch.html.j2", drawn=True, live=True, run=run, at=at, runs=self.runs
                )
            run.refresh()
            if path == "/status":
                return fragment("watch_status.html.j2", run=run, now=run.now(), s=run.summary)
            if path == "/rounds":
                s = run.summary
                return fragment(
                    "watch_rounds.html.j2",
                    s=s,
                    ahead=() if s is None else charts.of_forecasts(s),
                    plots=() if s is None or not s.last.round else charts.of_run(s),
                )
            if path == "/runs":
                for other in self.runs:
                    other.refresh()
                known = [r.summary for r in self.runs if r.summary is not None]
                return fragment(
                    "compare_table.html.j2",
                    found=compared(known) if known else None,
                    states=[(r.folder.name, r.now()) for r in self.runs],
                )
            if path == "/samples":
                return self._samples(run, given)
        return None

    def _samples(self, run: Watched, given: dict[str, str]) -> str:
        found, query, problem = None, None, ""
        try:
            query = asked(given, run.latest)
            found = run.samples(query)
        except UserError as error:
            problem = error.problem
        except (OSError, ValueError, KeyError) as error:  # the file is being made again
            problem = f"the samples cannot be read just now ({type(error).__name__})"
        return fragment("watch_samples.html.j2", found=found, query=query, problem=problem)


class Server(ThreadingHTTPServer):
    """Serves a ``Site`` to who has the token."""

    daemon_threads = True

    def __init__(self, site: Site, port: int) -> None:
        self.site, self.token = site, secrets.token_urlsafe(24)
        super().__init__((HOST, port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone is no error; others are shown as they are."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/?token={self.token}"


class Handler(BaseHTTPRequestHandler):
    """GET alone."""

    server: Server
    server_version = "srlm"
    sys_version = ""
    timeout = 30  # a connection that says nothing

    def do_GET(self) -> None:
        """Answer, or refuse."""
        target = urlsplit(self.path)
        given = {k: v[-1] for k, v in parse_qs(target.query).items()}
        status, text, allowed = HTTPStatus.OK, "", "default-src 'none'"
        token = given.get("token")
        own = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        if token is None:
            status = HTTPStatus.UNAUTHORIZED
        elif not hmac.compare_digest(token.encode(), self.server.token.encode()) or (
            self.headers.get("Host") not in own
        ):
            status = HTTPStatus.FORBIDDEN
        else:
            found = self.server.site.answer(target.path, given)
            status, text = (HTTPStatus.NOT_FOUND, "") if found is None else (HTTPStatus.OK, found)
            if target.path == "/":
                allowed = policy(drawn=True, live=True)
        if status is not HTTPStatus.OK:
            text = f"{status.value} {status.phrase}\n"
        data = text.encode("utf-8", "replace")
        self.send_response(status)
        kind = "html" if status is HTTPStatus.OK else "plain"
        for name, value in {
            "Content-Type": f"text/{kind}; charset=utf-8",
            "Content-Length": str(len(data)),
            "Content-Security-Policy": f"{allowed}; {FRAMES}",
            "Cache-Control": "no-store",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: addresses hold the token."""


@contextmanager
def serving(folders: Sequence[Path], port: int = 0) -> Iterator[str]:
    """The page of some runs while the block runs; its address, token and all.

    Args:
        folders: of the runs; they need not be there yet.
        port: 0 for any that is free.

    Raises:
        UserError: the port is taken.
    """
    try:
        server = Server(Site(folders), port)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--port {port}: {getattr(error, 'strerror', None) or error}", "leave --port out"
        ) from None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
