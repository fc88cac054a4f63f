"""Everything about pictures and text before a model sees them.

``scans`` opens a file and lets only pixels, geometry, windows and allow-listed facts through; ``views`` turns a picture into
each encoder's tensor and leads points, boxes, masks and heatmaps back. Models never import from here, nor this from models.
"""
