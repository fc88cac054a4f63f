"""Model folders to and from the Hugging Face hub, or a folder that mirrors one: nothing but safetensors and text, all by SHA-256.

``push`` checks a folder, writes its ``manifest.json`` (and a model card where it has none) and sends it as one commit. ``pull``
goes on at the byte where it stopped, refuses what does not fit its hash, and shows a model folder only when it is whole.
"""

from __future__ import annotations

from msmedcap.hub.fetching import pull
from msmedcap.hub.folder import manifest
from msmedcap.hub.sending import push

__all__ = ["manifest", "pull", "push"]
