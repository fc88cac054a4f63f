"""What kind of file some bytes are, told from the bytes alone."""

from __future__ import annotations

_PICTURES: tuple[tuple[int, bytes, str], ...] = (
    (128, b"DICM", "DICOM"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WEBP"),
    (0, b"BM", "BMP"),
)
_OTHERS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"%PDF", "a PDF document", "export the picture in it as PNG or JPEG"),
    (0, b"PK\x03\x04", "a ZIP archive or an Office document", "unpack it and choose a picture"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it and choose a picture"),
    (0, b"7z\xbc\xaf", "a 7-Zip archive", "unpack it and choose a picture"),
    (0, b"Rar!", "a RAR archive", "unpack it and choose a picture"),
    (4, b"ftyphei", "an HEIC photograph", "save it as JPEG"),
    (4, b"ftypmif", "an HEIC photograph", "save it as JPEG"),
    (4, b"ftypavif", "an AVIF picture", "save it as PNG"),
    (4, b"ftyp", "a video", "export a frame of it as PNG"),
    (0, b"\0\0\0\x0cjP", "a JPEG 2000 picture", "save it as PNG or DICOM"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture", "save it as PNG or DICOM"),
    (344, b"n+1\0", "a NIfTI volume", "export its slices as DICOM or PNG"),
    (0, b"NRRD", "an NRRD volume", "export its slices as DICOM or PNG"),
    (0, b"ObjectType", "a MetaImage volume", "export its slices as DICOM or PNG"),
    (0, b"\x89HDF", "an HDF5 file", "export its pictures as DICOM or PNG"),
    (0, b"<svg", "an SVG drawing", "save it as PNG"),
)


def sniff(data: bytes) -> str:
    """The kind of picture ``data`` is ("DICOM", "PNG", "JPEG", ...), or "" where its first bytes do not say.

    A DICOM file may lack its preamble and magic, so "" can still be one.
    """
    for offset, magic, kind in _PICTURES:
        if data.startswith(magic, offset) and (kind != "WEBP" or data.startswith(b"RIFF")):
            return kind
    return ""


def refusal(data: bytes) -> str:
    """The sentence for a file that is no picture: what it is, where that can be told, and what to do."""
    head = data[:1024].lstrip()
    for offset, magic, name, then in _OTHERS:
        if data.startswith(magic, offset) or (offset == 0 and head.startswith(magic)):
            return f"This is {name}, not a picture; {then}."
    if head and all(byte >= 32 or byte in b"\t\r\n\x0c" for byte in head):
        return "This is a text file, not a picture; choose a DICOM, PNG or JPEG file."
    return "This is not a picture this program knows; choose a DICOM, PNG, JPEG, TIFF, BMP, WebP or GIF file."
