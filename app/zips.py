"""Zip files from elsewhere: the ways of packing that are taken, and what the zip library raises of damaged ones."""

import struct
import zipfile
import zlib

TAKEN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of bzip2 and LZMA, zipfile unpacks a whole block at any one read
DAMAGED = (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, IndexError, struct.error, zlib.error)
