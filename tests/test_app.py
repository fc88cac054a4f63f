"""``app.py``: where its settings come from, and that asking for help waits for nothing."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from gradio_client import Client, handle_file

from tests import sizes

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def app():
    spec = importlib.util.spec_from_file_location("app_under_test", ROOT / "app.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("argv", "env", "port"),
    [
        ([], {}, 7860),
        ([], {"GRADIO_SERVER_PORT": "1"}, 1),
        ([], {"GRADIO_SERVER_PORT": "1", "PORT": "2"}, 2),
        ([], {"GRADIO_SERVER_PORT": "1", "PORT": "2", "MSMEDCAP_PORT": "3"}, 3),
        (["--port", "4"], {"GRADIO_SERVER_PORT": "1", "PORT": "2", "MSMEDCAP_PORT": "3"}, 4),
        ([], {"PORT": ""}, 7860),
    ],
)
def test_the_port(app, argv, env, port):
    assert app.parse(argv, env).port == port


@pytest.mark.parametrize(
    ("argv", "env", "host"),
    [
        ([], {}, "127.0.0.1"),
        ([], {"GRADIO_SERVER_NAME": "0.0.0.0"}, "0.0.0.0"),
        ([], {"GRADIO_SERVER_NAME": "0.0.0.0", "MSMEDCAP_HOST": "10.0.0.1"}, "10.0.0.1"),
        (["--host", "::1"], {"MSMEDCAP_HOST": "10.0.0.1"}, "::1"),
    ],
)
def test_the_host(app, argv, env, host):
    assert app.parse(argv, env).host == host


def test_every_flag_is_an_environment_variable(app):
    env = {
        "MSMEDCAP_MODELS": "full",
        "MSMEDCAP_LOAD_8BIT": "1",
        "MSMEDCAP_AUTH": "readers",
        "MSMEDCAP_ALLOW_BURNED_IN": "true",
        "MSMEDCAP_DEVICE": "cpu",
        "MSMEDCAP_RUNS": "scores",
        "MSMEDCAP_DATA": "medpix=a,busi=b",
    }
    args = app.parse([], env)
    assert args.runs == Path("scores") and args.data == [("medpix", Path("a")), ("busi", Path("b"))]
    assert app.parse(["--data", "roco=c"], env).data == [("roco", Path("c"))]
    assert (args.models, args.load_8bit, args.auth, args.allow_burned_in, args.device) == (
        "full",
        True,
        "readers",
        True,
        "cpu",
    )
    plain = app.parse([], {"MSMEDCAP_LOAD_8BIT": "0"})
    assert (plain.models, plain.load_8bit, plain.auth, plain.allow_burned_in) == ("demo", False, None, False)


@pytest.mark.parametrize("argv", [["--port", "x"], ["--port", "0"], ["--port", "70000"], ["--nonsense"], ["--data", "medpix"]])
def test_a_wrong_flag_is_one_line(app, capsys, argv):
    with pytest.raises(SystemExit) as stopped:
        app.parse(argv, {})
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count("\n") == 1 and said.startswith("app.py: ")


def test_a_missing_accounts_file_is_one_line(app, capsys, tmp_path):
    assert app.main(["--auth", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_password_hash_is_printed(app, capsys, monkeypatch):
    from msmedcap.demo.serving.accounts import verify

    monkeypatch.setattr("getpass.getpass", lambda prompt: "sesame")
    assert app.main(["--hash-password"]) == 0
    assert verify("sesame", capsys.readouterr().out.strip())


def test_help_waits_for_no_library():
    code = (
        "import runpy, sys; sys.argv = ['app.py', '--help']\n"
        "try: runpy.run_path('app.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('loaded', [m for m in ('torch', 'gradio', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "--load-8bit" in done.stdout and "loaded []" in done.stdout, done.stderr


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.skipif(os.name != "posix", reason="SIGTERM and modes of folders are of POSIX systems")
def test_gradios_files_lie_in_a_folder_that_ends_with_the_server(tmp_path, given):
    temporary, set_already = tmp_path / "tmp", tmp_path / "given"
    temporary.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"}
    env |= {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    env |= {"GRADIO_TEMP_DIR": str(set_already)} if given else {}
    models = sizes.write_folder(tmp_path / "models")
    command = [sys.executable, "app.py", "--models", str(models), "--device", "cpu", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None and "ready" in process.stdout.readline()
        client = Client(f"http://127.0.0.1:{port}", verbose=False, download_files=str(tmp_path / "fetched"))
        client.predict(handle_file(ROOT / "assets/examples/ct-chest.dcm"), api_name="/explain")
        own = [path for path in temporary.iterdir() if path.name.startswith("gradio")]
        if given:
            assert own == [] and list(set_already.rglob("*.png"))
        else:
            assert [path.stat().st_mode & 0o777 for path in own] == [0o700] and list(own[0].rglob("*.png"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == (-signal.SIGTERM if given else 0)
    finally:
        process.kill()
        process.wait()
    assert [path for path in temporary.iterdir() if path.name.startswith("gradio")] == []
    assert bool(set_already.exists() and list(set_already.rglob("*.png"))) == given
