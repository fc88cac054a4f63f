"""SEG-SAM at work: :class:`Regions` answers prompts on one scan, the results say where and what, and are written as files.

The predictor holds one :class:`Regions` for its scan; visitors share one :class:`SharedSegmenter`.
"""

from msmedcap.segmenting.files import structure_record, write_segmentations
from msmedcap.segmenting.regions import HotSpot, Regions, Segmentation, SharedSegmenter, hottest

__all__ = [
    "HotSpot", "Regions", "Segmentation", "SharedSegmenter", "hottest", "structure_record", "write_segmentations",
]
