"""What a file is that is no scan: an archive, a picture, a web page, or a pointer to a file that was not fetched."""

from __future__ import annotations

from pathlib import Path

from custom.reading.containers import is_packed, open_unpacked

UNPACK = "Unpack it, or save the scan as NIfTI"
SIGNS = {
    b"PK\x03\x04": f"is a zip archive. {UNPACK}",
    b"\xfd7zXZ\0": f"is packed by xz. {UNPACK}",
    b"\x28\xb5\x2f\xfd": f"is packed by zstandard. {UNPACK}",
    b"7z\xbc\xaf\x27\x1c": f"is a 7z archive. {UNPACK}",
    b"Rar!": f"is a RAR archive. {UNPACK}",
    b"\x1f\x8b": f"is packed twice by gzip. {UNPACK}",  # found inside of gzip only
    b"\x89PNG": "is a PNG picture. Give the scan that it was made from",
    b"\xff\xd8\xff": "is a JPEG picture. Give the scan that it was made from",
    b"%PDF": "is a PDF. Give the scan itself",
    b"version https://git-lfs": "is only a pointer of Git LFS. Fetch the file itself with git lfs pull",
    b"/annex/objects/": "is only a pointer of git-annex. Fetch the file itself with datalad get",
}


def what_it_is(path: Path) -> str | None:
    """What is wrong with a file that no reader of scans knows, and what to do; None if its kind is unknown."""
    try:
        with open_unpacked(path) as file:
            start: bytes = file.read(512)
    except (OSError, EOFError):
        return None
    for sign, sentence in SIGNS.items():
        if start.startswith(sign):
            return sentence
    if not start and not is_packed(path):
        return "is empty (0 bytes). Copy it again"
    if start[257:262] == b"ustar":
        return f"is a tar archive. {UNPACK}"
    if start and all(byte >= 32 or byte in b"\t\r\n" for byte in start):
        begins = " ".join(start[:40].decode("latin-1").split())
        return f"is a text ({begins!r}...) and no scan. Download or copy the scan again"
    return None
