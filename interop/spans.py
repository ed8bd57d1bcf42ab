"""The form in which a peer prints a span, so that every field can be compared as text.

One JSON document a line. 64-bit numbers are decimal strings, doubles are the hexadecimal digits of
their bits, ids and bytes are hexadecimal. `xtask/src/interop/document.rs` writes the same form.
"""

import json
import struct
import sys
from collections.abc import Mapping


def value(given):
    """An attribute's value with its kind."""
    if given is None:
        return ["empty"]
    if isinstance(given, bool):
        return ["bool", given]
    if isinstance(given, int):
        return ["int", str(given)]
    if isinstance(given, float):
        return ["double", struct.pack(">d", given).hex()]
    if isinstance(given, str):
        return ["string", given]
    if isinstance(given, bytes):
        return ["bytes", given.hex()]
    if isinstance(given, Mapping):
        return ["map", attributes(given)]
    return ["array", [value(element) for element in given]]


def attributes(given):
    """Attributes in their order."""
    return [[key, value(of)] for key, of in (given or {}).items()]


def write(documents):
    """Prints documents, one a line."""
    for document in documents:
        json.dump(document, sys.stdout, ensure_ascii=True)
        sys.stdout.write("\n")
    sys.stdout.flush()
