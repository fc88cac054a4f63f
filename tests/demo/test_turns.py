"""One at a time, in order, with a number; given up at once, and nobody is left standing behind one who went."""

from __future__ import annotations

import threading
import time

import gradio as gr
import httpx
import pytest
from gradio_client import Client

from msmedcap.demo.serving.turns import Cancelled, Turns, place_words


def _until(true, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


class _Visitor(threading.Thread):
    """Takes a ticket, notes the numbers it is told, runs until it is let go."""

    def __init__(self, turns: Turns, name: str, order: list[str]) -> None:
        super().__init__(daemon=True)
        self.turns, self.key, self.order = turns, name, order
        self.told: list[int] = []
        self.go, self.cancelled = threading.Event(), False

    def run(self) -> None:
        try:
            with self.turns.ticket(self.key) as ticket:
                for ahead in ticket.wait(beat=60):
                    self.told.append(ahead)
                self.order.append(self.key)
                while not self.go.is_set() and not ticket.cancelled:
                    time.sleep(0.005)
        except Cancelled:
            self.cancelled = True


@pytest.fixture
def line():
    turns, order = Turns(), []
    visitors = []
    for count, name in enumerate("abcd", start=1):
        visitors.append(_Visitor(turns, name, order))
        visitors[-1].start()
        place = [count - 1] if count > 1 else []  # told, not only in the line: or it hears the next number first
        _until(lambda count=count, place=place: len(turns._line) == count and visitors[-1].told == place)
    yield turns, visitors, order
    for visitor in visitors:
        turns.cancel(visitor.key)
        visitor.join(5)


def test_they_come_in_order_and_hear_their_number(line):
    turns, visitors, order = line
    assert turns.waiting == 3 and turns.running is not None
    for visitor in visitors:
        _until(lambda visitor=visitor: visitor.key in order)
        assert order == [v.key for v in visitors[: len(order)]]
        behind = visitors[len(order) :]
        _until(lambda behind=behind: [v.told[-1] for v in behind] == [*range(1, len(behind) + 1)])
        visitor.go.set()
        visitor.join(60)
    assert [v.told for v in visitors] == [[], [1], [2, 1], [3, 2, 1]]
    assert turns.waiting == 0 and turns.running is None


def test_who_gives_up_is_gone_at_once_and_the_others_move_up(line):
    turns, visitors, order = line
    assert turns.cancel("b") == 1
    visitors[1].join(60)
    assert visitors[1].cancelled and order == ["a"]
    _until(lambda: visitors[2].told == [2, 1])
    visitors[0].go.set()
    _until(lambda: order == ["a", "c"])


def test_who_runs_is_told_and_the_next_one_comes(line):
    turns, visitors, order = line
    turns.cancel("a")
    _until(lambda: order == ["a", "b"])
    assert not visitors[0].cancelled  # it had its turn; what it made so far is its own to keep


def test_an_error_and_a_dropped_generator_let_the_next_one_in():
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.turn("a"):
        raise ZeroDivisionError

    def streaming():
        with turns.turn("b"):
            yield 1
            yield 2

    stream = streaming()
    assert next(stream) == 1 and turns.running is not None
    del stream
    assert turns.running is None
    with turns.turn("c") as ticket:
        assert not ticket.cancelled


def test_a_waiting_one_is_asked_at_least_every_beat():
    turns = Turns()
    with turns.turn("a"), turns.ticket("b") as ticket:
        asked = ticket.wait(beat=0.02)
        assert [next(asked) for _ in range(3)] == [1, 1, 1]  # so that a closed stream is noticed
        turns.cancel("b")
        with pytest.raises(Cancelled):
            next(asked)


def test_never_two_at_once():
    turns, inside, most = Turns(), 0, 0

    def visit():
        nonlocal inside, most
        for _ in range(20):
            with turns.turn("x"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                inside -= 1

    threads = [threading.Thread(target=visit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1 and inside == 0


def test_the_words():
    assert place_words(3) == "Waiting for the models: 3 ahead of you."


@pytest.fixture(scope="module")
def server():
    """A page of one call that says its place and then works until it is told to end; (address, turns, end)."""
    turns, end = Turns(), threading.Event()

    def work(request: gr.Request):
        with turns.ticket(request.session_hash) as ticket:
            try:
                for ahead in ticket.wait(beat=0.1):
                    yield str(ahead)
            except Cancelled:
                yield "cancelled"
                return
            while not end.wait(0.1) and not ticket.cancelled:
                yield "working"
            yield "stopped" if ticket.cancelled else "done"

    def stop(request: gr.Request) -> str:
        return str(turns.cancel(request.session_hash))

    with gr.Blocks(analytics_enabled=False) as page:
        said = gr.Textbox()
        gr.Button().click(work, None, said, api_name="work", concurrency_limit=None)
        gr.Button().click(stop, None, said, api_name="stop")
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, max_threads=64)
    yield url, turns, end
    end.set()
    page.close()


@pytest.fixture
def calls(server):
    """Three visitors' running calls, in the order they came, and the clients they came from."""
    url, turns, end = server
    end.clear()
    clients = [Client(url, verbose=False) for _ in range(3)]
    jobs = []
    for count, client in enumerate(clients, start=1):
        jobs.append(client.submit(api_name="/work"))
        _until(lambda count=count: len(turns._line) == count)
    yield turns, end, clients, jobs
    end.set()
    _until(lambda: not turns._line)


def test_visitors_of_a_server_read_their_place_and_get_their_turn(calls):
    turns, end, _, jobs = calls
    _until(lambda: "working" in jobs[0].outputs() and "1" in jobs[1].outputs() and "2" in jobs[2].outputs())
    assert "working" not in jobs[1].outputs() + jobs[2].outputs()
    end.set()
    assert [job.result(timeout=60) for job in jobs] == ["done"] * 3


def test_a_visitor_of_a_server_stops_waiting_or_running(calls):
    turns, end, clients, jobs = calls
    assert clients[1].predict(api_name="/stop") == "1" and jobs[1].result(timeout=60) == "cancelled"
    assert clients[0].predict(api_name="/stop") == "1" and jobs[0].result(timeout=60) == "stopped"
    _until(lambda: "working" in jobs[2].outputs())


def test_a_call_cancelled_in_gradios_way_leaves_no_place_behind(calls):
    turns, end, clients, jobs = calls
    jobs[0].cancel()
    _until(lambda: "working" in jobs[1].outputs())
    assert len(turns._line) == 2


def test_a_closed_tab_leaves_no_place_behind(server):
    url, turns, end = server
    end.clear()
    join = {"data": [], "fn_index": 0, "session_hash": "closed-tab", "trigger_id": None}
    assert httpx.post(f"{url}gradio_api/queue/join", json=join).status_code == 200
    with httpx.stream("GET", f"{url}gradio_api/queue/data?session_hash=closed-tab") as stream:
        assert any("working" in line for line in stream.iter_lines())
    _until(lambda: not turns._line)
