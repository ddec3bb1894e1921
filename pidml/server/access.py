"""Who may see the pages and send their forms.

Without an admin token the pages are open, but only under a loopback name: a foreign web site that makes its own name
point to 127.0.0.1 is refused. With a token a person logs in once per browser. Every form carries a token tied to the
browser's cookie, and must come from the server's own pages.
"""

from __future__ import annotations

import hmac
import secrets
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pidml.server.settings import ServerSettings, is_loopback

CSRF_FIELD = "form-token"
_SESSION_SECONDS = 7 * 24 * 3600


class Access:
    """Checks page requests; sessions end when the process does."""

    def __init__(self, settings: ServerSettings) -> None:
        self._host = settings.host
        self._token = settings.admin_token
        self._key = secrets.token_bytes(32)

    @property
    def needs_login(self) -> bool:
        """Whether pages ask for the admin token."""
        return self._token is not None

    def check_host(self, request: Request) -> None:
        """Refuse with 421 a request to open pages under a name that is not this machine's loopback."""
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
        if not self.needs_login and not is_loopback(host) and host != self._host:
            raise HTTPException(421, "these pages answer under the name of the local machine only")

    def is_allowed(self, request: Request) -> bool:
        """Tell whether the browser is logged in, if that is needed at all."""
        if not self.needs_login:
            return True
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(given):
            return True
        return self._session(request, "login") is not None

    def is_token(self, text: str) -> bool:
        """Tell whether ``text`` is the admin token, in constant time."""
        return self._token is not None and hmac.compare_digest(text.strip().encode(), self._token.encode())

    def form_token(self, request: Request) -> tuple[str, str | None]:
        """Return the token for a page's forms, and the session to remember if the browser has none yet."""
        session = self._session(request, "login") or self._session(request, "visit")
        if session is not None:
            return self._mac("form", session), None
        session = secrets.token_urlsafe(16)
        return self._mac("form", session), self._cookie("visit", session)

    def check_form(self, request: Request, given: str) -> None:
        """Refuse with 403 a form that does not come from a page this server gave to this browser."""
        origin = request.headers.get("origin")
        session = self._session(request, "login") or self._session(request, "visit")
        is_own = origin is None or origin.partition("://")[2] == request.headers.get("host")
        expected = self._mac("form", session or "").encode()
        is_from_page = session is not None and hmac.compare_digest(expected, given.encode())
        if not is_own or not is_from_page:
            raise HTTPException(
                403, "the form is not from a page of this server, or too old: reload the page and try again"
            )

    def log_in(self, request: Request, response: Response) -> None:
        """Remember in the browser that the admin token was given."""
        self.remember(request, response, self._cookie("login", secrets.token_urlsafe(16)))

    def log_out(self, request: Request, response: Response) -> None:
        """Forget the browser's session."""
        response.delete_cookie(_cookie_name(request))

    @staticmethod
    def remember(request: Request, response: Response, cookie: str) -> None:
        """Set the session cookie."""
        response.set_cookie(
            _cookie_name(request), cookie, max_age=_SESSION_SECONDS, httponly=True, samesite="strict", path="/"
        )

    def _cookie(self, kind: str, session: str) -> str:
        return f"{session}.{self._mac(kind, session)}"

    def _session(self, request: Request, kind: str) -> str | None:
        session, _, mac = request.cookies.get(_cookie_name(request), "").partition(".")
        is_ours = hmac.compare_digest(mac.encode(), self._mac(kind, session).encode())
        return session if is_ours else None

    def _mac(self, kind: str, session: str) -> str:
        return hmac.digest(self._key, f"{kind}:{session}".encode(), "sha256").hex()


def _cookie_name(request: Request) -> str:
    """Return the cookie's name; browsers share cookies between the ports of one host, so the port is part of it."""
    server = request.scope.get("server") or ("", 0)
    return f"pidml_session_{server[1]}"
