"""The scans of a visit: opened, captioned together, compared, taken home."""
