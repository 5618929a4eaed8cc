"""Finding, reading and checking 2D image files (JPEG or PNG)."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps

from custom.errors import DataError, MissingDataError
from custom.reading.volumes import natural_order

SUFFIXES = (".jpg", ".jpeg", ".png")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # Pillow's names of grey and RGB images with at most 8 bits a channel
SMALLEST = 16  # pixels along an axis


def image_files(folder: Path) -> list[Path]:
    """All JPEG and PNG files of a folder and below it, in natural order, without hidden ones (macOS's `._` files)."""
    paths = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not any(part[0] == "." for part in path.relative_to(folder).parts)
    ]
    return sorted(paths, key=lambda path: natural_order(path.relative_to(folder)))


def read_image(path: str | Path) -> Image.Image:
    """Reads a whole image as RGB with 8 bits a channel, turned upright where its EXIF says so.

    Grey becomes RGB of three equal channels; transparency is dropped.

    Raises:
        MissingDataError: the file does not exist.
        DataError: it can't be read, has 16 bits a channel, is CMYK or of another mode, is less than 16 pixels high or
            wide, or all of one value.
    """
    if not Path(path).is_file():
        raise MissingDataError(f"{path} does not exist. Correct its path, put the file back, or leave the image out.")
    try:
        with Image.open(path) as file:
            sixteen = file.mode.startswith("I") or any(";16" in str(tile) for tile in file.tile)
            mode, image = file.mode, ImageOps.exif_transpose(file)
            image.load()
    except Exception as error:
        raise DataError(f"{path} can't be read to its end ({error}). Copy the file again.") from error
    if sixteen:
        raise DataError(f"{path} has 16 bits a channel. Window it to 8 bits and save it again.")
    if mode not in MODES:
        raise DataError(f"{path} is a {mode} image, neither grey nor RGB. Save it again as RGB.")
    if min(image.size) < SMALLEST:
        width, height = image.size
        raise DataError(f"{path} is {width}x{height} pixels, less than {SMALLEST} along an axis. Export it again.")
    image = image.convert("RGB")
    if image.getcolors(maxcolors=1):  # None if there are more
        raise DataError(f"{path} has the same value in every pixel. Export the image again.")
    return image
