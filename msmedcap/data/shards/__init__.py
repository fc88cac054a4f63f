"""Cases as WebDataset shards: tar files that a cluster streams, each sample a bare picture, a ``.json`` and a ``.txt`` caption.

Comes in: the cases of a dataset. Goes out: ``shard-000000.tar`` … with an ``index.json`` of counts and SHA-256
(:func:`write_shards`), and back as :class:`Sample`, split among processes without overlap (:func:`read_shards`). No metadata of
a file travels, no member is ever unpickled or extracted. The format's own rules (what names make a sample) are those of the
``webdataset`` package, which writes and groups the members here and reads these shards like any others.
"""

from __future__ import annotations

from msmedcap.data.shards.index import Shard, ShardIndex, check_shards, read_index
from msmedcap.data.shards.read import Sample, read_shards
from msmedcap.data.shards.write import write_shards

__all__ = ["Sample", "Shard", "ShardIndex", "check_shards", "read_index", "read_shards", "write_shards"]
