"""Whatever the zip library raises of a file that is damaged, or made to mislead it."""

import lzma
import struct
import zipfile
import zlib

DAMAGED = (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, IndexError, struct.error, zlib.error)
DAMAGED += (lzma.LZMAError,)
