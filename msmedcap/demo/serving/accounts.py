"""Who may open the page: a file of ``user:scrypt$…`` lines. Comes in: a file or a password. Goes out: a yes or a no.

Passwords are kept as salted scrypt hashes (RFC 7914) and compared in constant time. Standard library only, so that
``python app.py --hash-password`` answers at once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable
from pathlib import Path

from msmedcap.config import UserError

_COST, _BLOCK, _PARALLEL = 2**14, 8, 1  # 16 MB and some tens of milliseconds a try


def hash_password(password: str) -> str:
    """The text ``scrypt$n$r$p$salt$hash`` to write after ``user:`` in the accounts file; salted, so never twice the same."""
    salt = os.urandom(16)
    digest = _scrypt(password, salt, _COST, _BLOCK, _PARALLEL)
    return f"scrypt${_COST}${_BLOCK}${_PARALLEL}${_encode(salt)}${_encode(digest)}"


def verify(password: str, stored: str) -> bool:
    """Whether ``password`` made ``stored`` (a text of :func:`hash_password`); raises :class:`UserError` on another form."""
    try:
        name, cost, block, parallel, salt, digest = stored.split("$")
        if name != "scrypt":
            raise ValueError(name)
        made = _scrypt(password, base64.b64decode(salt), int(cost), int(block), int(parallel))
        return hmac.compare_digest(made, base64.b64decode(digest))
    except ValueError:
        raise UserError("A password must be written as python app.py --hash-password prints it: scrypt$….") from None


def read_accounts(path: Path) -> dict[str, str]:
    """User name to stored hash, from lines ``user:scrypt$…``; blank lines and lines that start with ``#`` do not count.

    Raises :class:`UserError` where the file is missing, empty, or a line has another form.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"The accounts file {path} cannot be read ({error.strerror}).") from None
    accounts: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        user, colon, stored = line.partition(":")
        if not (user and colon):
            raise UserError(
                f"Line {number} of {path} must be user:scrypt$…; python app.py --hash-password makes the second part."
            )
        try:
            verify("", stored)
        except UserError:
            raise UserError(
                f"Line {number} of {path} does not hold a scrypt hash; make one with python app.py --hash-password."
            ) from None
        accounts[user] = stored
    if not accounts:
        raise UserError(f"The accounts file {path} names nobody; write a line user:scrypt$… for every reader.")
    return accounts


def checker(accounts: dict[str, str]) -> Callable[[str, str], bool]:
    """A function of (user, password) that says whether they may enter; an unknown user costs the same time as a wrong password."""
    nobody = hash_password(os.urandom(16).hex())

    def allowed(user: str, password: str) -> bool:
        known = user in accounts
        return verify(password, accounts.get(user, nobody)) and known

    return allowed


def _scrypt(password: str, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=cost, r=block, p=parallel, dklen=32)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()
