"""Who may enter: everyone, readers with a password, or accounts of the hub; a stranger reaches nothing, by whatever path."""

from __future__ import annotations

import asyncio
import time

import gradio as gr
import pytest
from gradio import oauth
from gradio.routes import App
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from msmedcap.config import UserError
from msmedcap.demo.serving import signin
from msmedcap.demo.serving.accounts import hash_password
from msmedcap.demo.serving.signin import Gate, SignIn, account, choose, patient, user_of

SPACE = {
    "SPACE_ID": "anna/msmedcap",
    "OAUTH_CLIENT_ID": "id",
    "OAUTH_CLIENT_SECRET": "secret",
    "OAUTH_SCOPES": "openid profile",
    "OPENID_PROVIDER_URL": "https://huggingface.co",
}
LOGIN = "/login/huggingface?_target_url=/config"
ANNA = {
    "sub": "1",
    "name": "Anna",
    "preferred_username": "Anna-R",
    "profile": "https://huggingface.co/Anna-R",
    "picture": "",
    "orgs": [{"sub": "2", "name": "A clinic", "preferred_username": "the-clinic"}],
}


@pytest.fixture
def page(monkeypatch):
    """``page(*names)``: a client of a gradio app behind the gate, where signing in makes one Anna."""
    mocked = {"access_token": "token-of-anna", "expires_at": 0, "scope": "openid profile", "userinfo": ANNA}
    monkeypatch.setattr(oauth, "_get_mocked_oauth_info", lambda: mocked)
    monkeypatch.setattr(oauth, "get_space", lambda: None)

    def build(*allowed: str) -> TestClient:
        way = SignIn(hub=True, allowed=frozenset(allowed))
        with gr.Blocks(analytics_enabled=False) as blocks:
            way.button()
            name = gr.Textbox()
            gr.Button().click(user_of_request, None, name, api_name="who")
        health = Route(signin.HEALTH, lambda request: PlainTextResponse("ok"))
        with pytest.warns(UserWarning, match="OAuth"):
            app = App.create_app(blocks, app_kwargs={"middleware": way.middleware(), "routes": [health]})
        return TestClient(app, base_url="https://testserver")

    return build


def user_of_request(request: gr.Request) -> str | None:
    return user_of(request)


def test_a_stranger_reaches_the_door_and_nothing_else(page):
    client = page()
    door = client.get("/", headers={"accept": "text/html"})
    assert door.status_code == 401 and "/login/huggingface" in door.text and "gradio" not in door.text.lower()
    for path in ("/config", "/gradio_api/info", "/gradio_api/queue/data?session_hash=a", "/gradio_api/file=/etc/hostname",
                 "/gradio_api/heartbeat/abc", "/theme.css", "//config", "/gradio_api/login_check"):
        assert client.get(path).status_code == 401, path
    for path in ("upload", "queue/join", "call/who", "cancel", "run/who"):
        assert client.post(f"/gradio_api/{path}", json={"data": []}).status_code == 401, path
    assert client.get("/health").text == "ok"


def test_who_signs_in_enters_and_leaves(page):
    client = page()
    config = client.get(LOGIN)
    assert config.status_code == 200 and "token-of-anna" not in config.text
    answer = client.post("/gradio_api/run/who", json={"data": []})
    assert answer.json()["data"] == ["Anna-R"]
    client.get("/logout")
    assert client.get("/config").status_code == 401


@pytest.mark.parametrize(("allowed", "status"), [(("anna-r",), 200), (("the-clinic",), 200), (("bert",), 403)])
def test_the_list_names_users_and_organisations(page, allowed, status):
    client = page(*allowed)
    answer = client.get(LOGIN, headers={"accept": "text/html"})
    assert answer.status_code == status and client.get("/config").status_code == status
    if status == 403:
        assert "Anna-R" in answer.text and "Sign out" in answer.text


def test_a_sign_in_ends(page):
    assert account({"oauth_info": {"userinfo": ANNA, "expires_at": time.time() + 60}}) == ANNA
    assert account({"oauth_info": {"userinfo": ANNA, "expires_at": time.time() - 60}}) is None
    assert account({}) is None and account({"oauth_info": None}) is None


def test_a_forged_cookie_is_no_sign_in(page):
    client = page()
    client.cookies.set("session", "eyJvYXV0aF9pbmZvIjogeyJ1c2VyaW5mbyI6IHsibmFtZSI6ICJ4In19fQ==.aaaa.bbbb")
    assert client.get("/config").status_code == 401


def test_a_websocket_waits_outside():
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(Gate(None)({"type": "websocket", "path": "/x", "session": {}}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_settings_choose_the_way_in(tmp_path, monkeypatch):
    assert choose(None) == SignIn() and choose(None).middleware() == []
    file = tmp_path / "readers"
    file.write_text(f"anna:{hash_password('sesame')}\n")
    way = choose(file)
    assert way.password and not way.hub and way.button() is None
    assert asyncio.run(way.password("anna", "sesame")) and not asyncio.run(way.password("anna", "wrong"))
    hub = choose("oauth", allow=["Anna-R", " The-Clinic", ""], env=SPACE)
    assert hub.hub and hub.password is None and hub.allowed == {"anna-r", "the-clinic"}
    monkeypatch.setattr(signin.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"gradio\[oauth\]"):
        choose("oauth", env=SPACE)


@pytest.mark.parametrize(
    ("auth", "allow", "env", "said"),
    [
        ("oauth", [], {}, "on a Space only"),
        ("oauth", [], {"SPACE_ID": "anna/msmedcap"}, "hf_oauth: true"),
        ("oauth", [], {k: v for k, v in SPACE.items() if k != "OAUTH_SCOPES"}, "OAUTH_SCOPES"),
        (None, ["anna"], {}, "--auth oauth"),
        ("/nowhere/readers", [], {}, "cannot be read"),
    ],
)
def test_what_cannot_be_is_one_sentence(auth, allow, env, said):
    with pytest.raises(UserError, match=said) as raised:
        choose(auth, allow=allow, env=env)
    assert "\n" not in str(raised.value)


def test_guessing_gets_slow(monkeypatch):
    now, asked = [100.0], []
    monkeypatch.setattr(signin.time, "monotonic", lambda: now[0])

    def check(user: str, password: str) -> bool:
        asked.append(password)
        return password == "sesame"

    async def guess() -> None:
        allowed = patient(check)
        for count in range(6):
            assert not await allowed("anna", f"wrong{count}")
        assert len(asked) == 5 and not await allowed("anna", "sesame")  # too early, unread
        assert await allowed("bert", "sesame")  # somebody else is not held up
        now[0] += 1.5
        assert await allowed("anna", "sesame") and await allowed("anna", "sesame")

    asyncio.run(guess())
