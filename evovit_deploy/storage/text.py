"""Text files as people's programs write them."""

from __future__ import annotations

import codecs
from pathlib import Path

from ..errors import InputError
from .files import printable
from .missing import no_such_file

__all__ = ["read_text"]


def read_text(path: Path, what: str, legacy: bool = False) -> tuple[str, str | None]:
    """Read UTF-8, with a byte order mark or without, or UTF-16 with one, as Windows PowerShell and Excel write it.

    Args:
        path: Text file.
        what: Names its content in an error: ``the labels``.
        legacy: Other bytes are taken as Windows-1252, which Excel writes to CSV files in western countries.

    Returns:
        (text, encoding if it had to be guessed).

    Raises:
        InputError: Unreadable, or in an unknown encoding.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise no_such_file(path, InputError, f"It should hold {what}.") from None
    except OSError as error:
        raise InputError(f"{printable(path)}: {what} cannot be read: {error.strerror or error}.") from error
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig"), None
    except UnicodeDecodeError as error:
        if legacy and not utf16:
            try:
                return data.decode("cp1252"), "Windows-1252"
            except UnicodeDecodeError:  # five bytes have no meaning there
                pass
        raise InputError(
            f"{printable(path)}: {what} are not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8, "
            "for example: iconv -f WINDOWS-1252 -t UTF-8"
        ) from error
