"""Who may enter, and how: everyone, the readers of a password file, or accounts of Hugging Face on a Space.

Comes in: the ``--auth`` and ``--allow`` settings. Goes out: a :class:`SignIn` with what gradio's launch takes for each. For
accounts of Hugging Face gradio brings the routes to and from the hub's sign-in; a gate in front of everything else asks who has
come, so that neither the page nor an upload nor a call reaches the server before that.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import anyio.to_thread
import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from msmedcap.config import UserError
from msmedcap.demo.serving.accounts import checker, read_accounts
from msmedcap.demo.serving.health import PATH as HEALTH

OAUTH = "oauth"
_SET_ON_A_SPACE = ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL")
_OPEN = frozenset(("/login/huggingface", "/login/callback", "/logout", "/robots.txt", "/favicon.ico", HEALTH))
Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


@dataclass(frozen=True)
class SignIn:
    """A way in: ``password`` checks (user, password); ``hub`` asks for an account of Hugging Face, one of ``allowed`` if any.

    ``allowed`` holds names of users and organisations in small letters; empty, every account may enter.
    """

    password: Callable[[str, str], Awaitable[bool]] | None = None
    hub: bool = False
    allowed: frozenset[str] = frozenset()

    def middleware(self) -> list[Middleware]:
        """What goes first into ``app_kwargs={"middleware": [...]}``; empty where there is no gate."""
        return [Middleware(Gate, allowed=self.allowed)] if self.hub else []

    def button(self) -> gr.LoginButton | None:
        """Build the sign-out button in the current ``gr.Blocks`` (its presence makes gradio add the sign-in routes)."""
        return gr.LoginButton(size="sm", logout_value="Sign out {}", elem_id="mm-signin") if self.hub else None


def choose(auth: str | Path | None, *, allow: Sequence[str] = (), env: Mapping[str, str] = os.environ) -> SignIn:
    """The way in that ``auth`` names: None (everyone), ``"oauth"``, or a password file.

    Raises :class:`UserError` where the file is wrong, or where there is no OAuth: off a Space, on one without
    ``hf_oauth: true``, or without the libraries gradio needs for it.
    """
    if str(auth) != OAUTH:
        if allow:
            raise UserError("--allow names accounts of Hugging Face; give --auth oauth with it.")
        return SignIn(password=patient(checker(read_accounts(Path(auth))))) if auth else SignIn()
    if not env.get("SPACE_ID"):
        raise UserError("Signing in with Hugging Face works on a Space only; elsewhere give --auth a password file.")
    if missing := [name for name in _SET_ON_A_SPACE if not env.get(name)]:
        raise UserError(
            f"This Space has no sign-in yet ({missing[0]} is not set); write hf_oauth: true at the top of its README.md."
        )
    if not all(importlib.util.find_spec(name) for name in ("authlib", "itsdangerous")):
        raise UserError("Signing in with Hugging Face needs two more libraries; run pip install 'gradio[oauth]'.")
    return SignIn(hub=True, allowed=frozenset(name.strip().lower() for name in allow if name.strip()))


def user_of(request: gr.Request) -> str | None:
    """The name of who asks: the password file's, the hub account's, or None where everyone may enter."""
    if request.username:
        return str(request.username)
    scope = getattr(request.request, "scope", None) or {}
    info = account(scope.get("session") or {})
    return None if info is None else str(info.get("preferred_username"))


def account(session: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The hub's words on the account that signed this session in; None where nobody did or it is too long ago."""
    info = session.get("oauth_info") or {}
    if info.get("expires_at") is not None and info["expires_at"] < time.time():
        return None
    return info.get("userinfo") or None


def names_of(info: Mapping[str, Any]) -> set[str]:
    """The account's name and its organisations' names, in small letters."""
    found = [info, *(info.get("orgs") or [])]
    return {str(item["preferred_username"]).lower() for item in found if item.get("preferred_username")}


class Gate:
    """ASGI middleware, inside gradio's session middleware: whoever has not signed in sees a door and nothing else."""

    def __init__(self, app: App, *, allowed: frozenset[str] = frozenset()) -> None:
        self._app, self._allowed = app, allowed

    async def __call__(self, scope: Scope, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        """Pass on one request, or answer it with the door (401) or a refusal (403)."""
        if scope["type"] not in ("http", "websocket") or scope.get("path", "").rstrip("/") in _OPEN:
            return await self._app(scope, receive, send)
        info = account(scope.get("session") or {})
        if info is not None and (not self._allowed or self._allowed & names_of(info)):
            return await self._app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        await _refusal(Request(scope), info)(scope, receive, send)


def _refusal(request: Request, info: Mapping[str, Any] | None) -> Response:
    status = 401 if info is None else 403
    if "text/html" not in request.headers.get("accept", ""):
        said = "Sign in with Hugging Face first." if info is None else "This account is not on the list of this page."
        return JSONResponse({"error": said}, status_code=status)
    if info is None:
        words = "Sign in to see this page."
        way = '<a href="/login/huggingface" target="_blank" rel="noopener">Sign in with Hugging Face</a>'
    else:
        words = f"The account {escape(str(info.get('preferred_username')))} is not on the list of this page; ask its owner."
        way = '<a href="/logout">Sign out</a>'
    return HTMLResponse(_DOOR.format(words=words, way=way), status_code=status, headers={"Cache-Control": "no-store"})


_DOOR = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>MSMedCap</title><style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 32rem; margin: 18vh auto; padding: 0 1rem; }}
a {{ display: inline-block; padding: .6rem 1rem; border-radius: 4px; background: #0b6472; color: #fff; }}
a:focus-visible {{ outline: 3px solid; outline-offset: 2px; }}
</style></head><body><main><h1>MSMedCap</h1>
<p>Research demonstration, not for clinical use.</p><p>{words}</p><p>{way}</p></main></body></html>
"""
_TRIES, _LONGEST, _MOST_NAMES = 5, 60.0, 1000


def patient(check: Callable[[str, str], bool]) -> Callable[[str, str], Awaitable[bool]]:
    """``check`` as a coroutine beside the server's loop, slower for a name after five wrong passwords: 1, 2, 4 … 60 s apart.

    A try that comes too early is refused unread, right or wrong.
    """
    wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    async def allowed(user: str, password: str) -> bool:
        count, last = wrong.get(user, (0, 0.0))
        if count >= _TRIES and time.monotonic() - last < min(_LONGEST, 2.0 ** (count - _TRIES)):
            return False
        # Counted before the check: tries that run side by side must not all slip through it.
        wrong[user] = (count + 1, time.monotonic())
        wrong.move_to_end(user)
        if len(wrong) > _MOST_NAMES:
            wrong.popitem(last=False)
        if not await anyio.to_thread.run_sync(check, user, password):
            return False
        wrong.pop(user, None)
        return True

    return allowed
