"""Passwords: what is written down cannot be read back, and only the right one enters."""

from __future__ import annotations

import pytest

from msmedcap.config import UserError
from msmedcap.demo.serving.accounts import checker, hash_password, read_accounts, verify


def test_a_password_is_salted_and_verified():
    first, second = hash_password("sesame"), hash_password("sesame")
    assert first != second and "sesame" not in first
    assert verify("sesame", first) and verify("sesame", second)
    assert not verify("Sesame", first)


def test_the_file_names_who_may_enter(tmp_path):
    path = tmp_path / "readers"
    path.write_text(f"# readers\n\nanna:{hash_password('one')}\nbert:{hash_password('two')}\n")
    allowed = checker(read_accounts(path))
    assert allowed("anna", "one") and allowed("bert", "two")
    assert not allowed("anna", "two") and not allowed("carl", "one") and not allowed("", "")


@pytest.mark.parametrize("text", ["", "anna", "anna:plain", ":scrypt$1$1$1$aa$aa", "anna:scrypt$16384$8$1$AA=="])
def test_a_wrong_file_is_one_sentence(tmp_path, text):
    path = tmp_path / "readers"
    path.write_text(text)
    with pytest.raises(UserError):
        read_accounts(path)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_accounts(tmp_path / "none")
