"""What can go wrong between here and the hub, each as one sentence that says what to do.

Comes in: any error of ``huggingface_hub``, its HTTP library or the disk. Goes out: :class:`~msmedcap.config.UserError`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterator

from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from msmedcap.config import UserError

log = logging.getLogger(__name__)

LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


@contextlib.contextmanager
def one_sentence(repo: str, *, pushing: bool = False) -> Iterator[None]:
    """Everything the hub, the network or a full disk can answer, as :class:`~msmedcap.config.UserError`; other errors pass."""
    try:
        yield
    except UserError:
        raise
    except (HTTPError, OSError, ValueError, EntryNotFoundError) as error:
        told = _sentence(error, repo, pushing)
        if told is None:
            raise
        log.debug("%s: %s", type(error).__name__, error)
        raise UserError(told) from error


def _sentence(error: Exception, repo: str, pushing: bool) -> str | None:
    again = "push" if pushing else "pull"
    if isinstance(error, OfflineModeIsEnabled):
        return f"{repo} cannot be reached in offline mode; unset HF_HUB_OFFLINE, or {again} a local folder."
    if isinstance(error, LocalTokenNotFoundError):
        return f"You are not logged in to the hub; {LOG_IN}."
    if isinstance(error, GatedRepoError):
        return f"{repo} asks for its terms to be accepted; do so on its page at the hub, {LOG_IN}, and {again} again."
    if isinstance(error, RepositoryNotFoundError):
        return f"There is no repository {repo} on the hub that you may see; check its name, or {LOG_IN} if it is private."
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} has no such revision; name one of its branches, tags or commits."
    if isinstance(error, HfHubHTTPError):
        return _status(error.response.status_code, repo, pushing)
    if isinstance(error, EntryNotFoundError):
        return f"{repo} lacks a file that it lists; {again} again."
    if isinstance(error, HFValidationError):
        return f"{repo!r} is no repository's name; write USER/NAME, or the path of a local folder."
    if isinstance(error, (HTTPError, ConnectionError, TimeoutError)):
        kept = "" if pushing else " What has arrived is kept."
        return f"The hub cannot be reached, or the connection broke ({type(error).__name__}); {again} again when it is back.{kept}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full; free some space and {again} again. What has arrived is kept."
    if isinstance(error, ValueError) and "README.md" in str(error):
        return f"The hub does not accept the front matter of README.md ({' '.join(str(error).split())}); mend it and push again."
    return None


def _status(code: int, repo: str, pushing: bool) -> str:
    if code == 401:
        return f"The hub does not know who you are (401); {LOG_IN}."
    if code == 403:
        kind = "write to" if pushing else "read"
        return f"Your token may not {kind} {repo} (403); log in with one that may, or choose a repository of your own."
    if code == 404:
        return f"{repo}, or a file that it lists, is not on the hub (404); check the name."
    if code == 409 or code == 412:
        return f"{repo} changed while it was pushed to ({code}); push again."
    if code == 429:
        return "The hub asks for patience (429, too many requests); try again in some minutes."
    if code >= 500:
        return f"The hub is out of order ({code}); try again later."
    return f"The hub refused the request for {repo} ({code}); check the name and revision."
