"""All model work of a server in one thread, whichever thread asks for it, so that its memory stays as it is.

Comes in: the loaded predictor. Goes out: one with the same face. Every thread that runs a model keeps buffers of its own, some ten
megabytes here; a page with many visitors asks from as many threads.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msmedcap.predictor import Predictor

# What of a predictor runs no model, and may be asked while another visitor's work goes on.
_LIGHT = frozenset(("adopt", "write_masks"))
_END = object()


def one_thread(models: Predictor) -> Predictor:
    """``models``, whose work and that of all its ``fresh()`` ones is done by one thread of their own."""
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="models")
    return _OneThread(models, pool)  # type: ignore[return-value]


class _OneThread:
    """A predictor's face: what it holds is read as it is, what it does is done in the thread of ``pool``."""

    def __init__(self, predictor: Any, pool: ThreadPoolExecutor) -> None:
        self._predictor, self._pool = predictor, pool

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._predictor, name)
        if not callable(found) or name in _LIGHT:
            return found
        if name == "stream":
            return lambda **options: self._steps(found(**options))
        return lambda *args, **options: self._do(lambda: found(*args, **options))

    def fresh(self) -> _OneThread:
        """For another visitor: no scan yet, the same models, the same thread."""
        return _OneThread(self._predictor.fresh(), self._pool)

    def set_scan(self, *args: Any, **options: Any) -> _OneThread:
        """As the predictor's, in the caller's thread: no model runs."""
        self._predictor.set_scan(*args, **options)
        return self

    def _do(self, work: Callable[[], Any]) -> Any:
        # What belongs to the request (whose it is) goes along.
        return self._pool.submit(contextvars.copy_context().run, work).result()

    def _steps(self, steps: Iterator[Any]) -> Iterator[Any]:
        try:
            while (step := self._do(lambda: next(steps, _END))) is not _END:
                yield step
        finally:
            self._do(steps.close)  # type: ignore[attr-defined]
