"""Who may use the page: this machine alone, or whoever has the token."""

from contextlib import suppress
from hmac import compare_digest
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.web.address import Address, new_token
from mqtt_mdi.web.files import STATIC

LEAST_TOKEN = 16
MAX_FORM = 4096

POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def token_for(address: Address, given: str | None) -> str | None:
    """The token to ask for: the one given, a new one where others reach the address, or none.

    Raises ConfigError for one that could be guessed.
    """
    if given is not None and len(given) < LEAST_TOKEN:
        raise ConfigError(f"--http-token has {len(given)} characters: give {LEAST_TOKEN} or more, at random")
    return given or (None if address.is_loopback else new_token())


class Guard:
    """Stands before the application: checks who asks, and adds the headers that every answer has.

    Without a token a browser must have meant this machine when it asked (`Host`), so that no site can
    have it speak to us under a name of its own. With one, the cookie belongs to the name it was set for.
    """

    def __init__(self, app: ASGIApp, address: Address, token: str | None, cookie: str) -> None:
        self._app = app
        self._token = token
        self._cookie = cookie
        self._hosts = {"localhost", "127.0.0.1", "::1", address.host}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        request = Request(scope, receive)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer = await self._stop(request)
        await (answer or self._app)(scope, receive, with_headers)

    async def _stop(self, request: Request) -> Response | None:
        """The answer to a request that must not go on."""
        if not _own_origin(request.headers):
            return _refusal(403, "this page takes changes from itself alone, not from other sites")
        if self._token is None:
            if _host_name(request.headers) not in self._hosts:
                return _refusal(403, "asked under a name that is not this machine's: use http://127.0.0.1")
            return None
        return await self._stop_stranger(request)

    async def _stop_stranger(self, request: Request) -> Response | None:
        if (given := await _given(request)) is not None:
            return self._log_in(given, secure=request.url.scheme == "https")
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        shown = bearer if scheme.lower() == "bearer" else request.cookies.get(self._cookie, "")
        if request.url.path.startswith("/static/") or self._is_right(shown):
            return None
        if request.url.path == "/":
            return _login_page()
        return _refusal(401, "no or the wrong token: the coordinator's log has the address with it")

    def _is_right(self, shown: str) -> bool:
        return compare_digest(shown.encode(), (self._token or "").encode())

    def _log_in(self, given: str, *, secure: bool) -> Response:
        if not self._is_right(given):
            return _login_page()
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(self._cookie, given, httponly=True, samesite="lax", secure=secure)
        return answer


async def read_body(request: Request, most: int) -> bytes | None:
    """The body of a request, or None when it is larger than `most` bytes."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > most:
            return None
    return body


async def _given(request: Request) -> str | None:
    """The token that somebody logs in with, in the address or in the form."""
    if request.url.path == "/login" and request.method == "POST":
        form = parse_qs((await read_body(request, MAX_FORM) or b"").decode(errors="replace"))
        return form.get("token", [""])[0]
    return request.query_params.get("token") if request.url.path == "/" else None


def _login_page() -> Response:
    return FileResponse(STATIC / "login.html", status_code=401)


def _refusal(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status_code=status)


def _own_origin(headers: Headers) -> bool:
    """Whether a request that names its origin comes from a page of ours."""
    origin = headers.get("origin")
    with suppress(ValueError):
        return origin is None or urlsplit(origin).netloc == headers.get("host")
    return False


def _host_name(headers: Headers) -> str | None:
    with suppress(ValueError):
        return urlsplit(f"//{headers.get('host', '')}").hostname
    return None
