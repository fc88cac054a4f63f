"""Visitors: a page that is loaded again finds its session by a secret that nobody else has, and for no longer than it should."""

from __future__ import annotations

import base64
import time

import pytest
from fake import FakePredictor

from msmedcap.demo.serving.visitors import Visitors
from msmedcap.demo.session import Session, Store


def opened(store: Store, page: str, file) -> Session:
    session = store.get(page)
    session.open(file.read_bytes())
    return session


def test_a_page_loaded_again_finds_its_session(ct_file):
    store = Store(FakePredictor())
    before, token = store.arrive("one", None)
    before.open(ct_file.read_bytes())
    store.leave("one")
    after, again = store.arrive("two", token)
    assert after is before and again == token and store.get("two") is before and len(store) == 1


def test_the_new_page_may_come_before_the_old_one_is_missed(ct_file):
    store = Store(FakePredictor(), grace=0.0)
    session, token = store.arrive("one", None)
    session.open(ct_file.read_bytes())
    store.arrive("two", token)
    store.leave("one")  # told late
    store.sweep()
    assert store.get("two") is session and session.scan is not None


def test_a_lost_connection_that_comes_back_is_the_same_visitor(ct_file):
    store = Store(FakePredictor())
    session = opened(store, "one", ct_file)
    store.leave("one")
    assert store.get("one") is session
    store._visitors._grace = 0.0
    store.sweep()
    assert session.scan is not None  # it is here again


def test_who_does_not_come_back_is_forgotten_though_nobody_comes(ct_file):
    store = Store(FakePredictor(), grace=0.2)
    session, token = store.arrive("one", None)
    session.open(ct_file.read_bytes())
    store.leave("one")
    deadline = time.monotonic() + 20
    while len(store) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert session.scan is None and not len(session.tray)
    fresh, other = store.arrive("two", token)
    assert fresh is not session and other != token


@pytest.mark.parametrize(
    "token", [None, "", "0", "../../etc/passwd", "a" * 65, "\0", 7, ["x"], {"token": 1}, "é" * 20], ids=repr
)
def test_a_token_of_somebody_elses_making_opens_nothing(ct_file, token):
    store = Store(FakePredictor())
    session = opened(store, "one", ct_file)
    store.arrive("one", None)
    other, issued = store.arrive("two", token)
    assert other is not session and not len(other.tray) and issued != token


def test_tokens_are_random_and_long_and_not_remembered():
    visitors = Visitors()
    tokens = [visitors.token(visitors.of(str(n)), login="") for n in range(50)]
    assert len(set(tokens)) == 50
    assert all(len(base64.urlsafe_b64decode(token + "=")) * 8 == 256 for token in tokens)
    assert not any(token in repr(vars(visitors)) for token in tokens)


def test_an_older_token_opens_nothing_any_more(ct_file):
    store = Store(FakePredictor())
    _, first = store.arrive("one", None)
    opened(store, "one", ct_file)
    _, second = store.arrive("one", "unknown")
    assert first != second
    assert not len(store.arrive("two", first)[0].tray) and len(store.arrive("three", second)[0].tray) == 1


def test_a_token_is_worth_nothing_under_another_login(ct_file):
    store = Store(FakePredictor())
    session, token = store.arrive("one", None, login="anna")
    session.open(ct_file.read_bytes())
    assert not len(store.arrive("two", token, login="ben")[0].tray)
    assert not len(store.arrive("three", token)[0].tray)
    assert store.arrive("four", token, login="anna")[0] is session


def test_a_page_that_holds_scans_keeps_them(ct_file, png_file):
    store = Store(FakePredictor())
    before, token = store.arrive("one", None)
    before.open(ct_file.read_bytes())
    now = opened(store, "two", png_file)  # pressed before the page had said whose it is
    kept, other = store.arrive("two", token)
    assert kept is now and other != token and now.scan.kind == "PNG"


def test_what_a_visitor_left_does_not_pile_up():
    visitors = Visitors()
    number = visitors.of("page 0")
    for n in range(1, 500):
        visitors.join(f"page {n}", number)
        visitors.leave(f"page {n - 1}")
    assert len(visitors._pages) < 50 and visitors.at("page 499") == number
    visitors.forget(number)
    assert not visitors._pages and not visitors._visitors and not visitors._tokens


def test_the_longest_unused_sessions_give_way_to_what_others_hold(ct_file):
    size = opened(Store(FakePredictor()), "x", ct_file).tray.nbytes
    store = Store(FakePredictor(), most_bytes=2 * size)
    first, second = opened(store, "a", ct_file), opened(store, "b", ct_file)
    opened(store, "c", ct_file)
    store.get("c")
    assert first.scan is None and second.scan is not None and len(store) == 2


def test_who_only_loads_the_page_pushes_nobody_out(ct_file):
    store = Store(FakePredictor(), most=3)
    session = opened(store, "reader", ct_file)
    for n in range(100):
        store.arrive(f"passer-by {n}", None)
    assert session.scan is not None and len(store) == 24
    for n in range(100):
        store.leave(f"passer-by {n}")
    assert len(store) == 1
    store._visitors._grace = 0.0
    store.sweep()
    assert len(store._visitors) == 1 and session.scan is not None


def test_closed_pages_give_way_before_a_reader_who_only_thinks(ct_file):
    store = Store(FakePredictor(), most=3)
    reading = opened(store, "reader", ct_file)  # the longest unused of all
    for n in range(10):
        opened(store, f"tab {n}", ct_file)
        store.leave(f"tab {n}")
    assert reading.scan is not None and store.get("reader") is reading and len(store) == 3
    for n in range(3):
        opened(store, f"another reader {n}", ct_file)
    assert reading.scan is None and store.get("another reader 0").scan is not None, "open pages by turn, as before"


def test_a_page_that_opens_its_first_scan_is_not_pushed_out_meanwhile(ct_file):
    store = Store(FakePredictor(), most=2)
    slow = store.get("slow")  # its scan is on the way
    for n in range(5):
        opened(store, f"quick {n}", ct_file)
    slow.open(ct_file.read_bytes())
    assert store.get("slow") is slow and slow.scan is not None


def test_a_page_without_scans_keeps_its_token_through_a_lost_connection(ct_file):
    store = Store(FakePredictor())
    _, token = store.arrive("one", None)
    store.leave("one")
    session = opened(store, "one", ct_file)
    assert store.arrive("two", token)[0] is session


def test_a_page_that_slept_too_long_is_given_another_token(ct_file):
    store = Store(FakePredictor(), grace=0.0)
    _, token = store.arrive("one", None)
    store.leave("one")
    store.sweep()
    session, new = store.arrive("one", token)  # awake again, it says whose it was
    session.open(ct_file.read_bytes())
    assert new != token and store.arrive("two", new)[0] is session
