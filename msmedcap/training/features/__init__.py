"""Frozen encoders run once per picture: their features on disk, made by any number of processes, read without filling memory.

Comes in: the frozen encoders and a function that gives the views of rows. Goes out: :class:`FeatureCache` (any list of samples
with ids, through :func:`dataset_cache`) and :class:`PoolCache` (the demo recipe's pool, through :func:`cache_features`).
"""

from msmedcap.training.features.cache import FeatureCache, dataset_cache, demand_room
from msmedcap.training.features.pooled import PoolCache, cache_features
from msmedcap.training.features.shelf import StoredCache, list_caches

__all__ = ["FeatureCache", "PoolCache", "StoredCache", "cache_features", "dataset_cache", "demand_room", "list_caches"]
