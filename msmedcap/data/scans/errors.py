"""The one error a bad scan gives: a single sentence that says what is wrong and what to do."""

from __future__ import annotations


class ScanError(ValueError):
    """A file that cannot be shown and described; its text is one sentence for the reader, free of paths and patient data."""


class NoPictureError(ScanError):
    """A sound file of another kind (a text, the index of a disc, a report): expected beside the pictures of a folder."""
