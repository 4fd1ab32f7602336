"""How much a checkpoint file may claim before it is refused; published files stay far below."""

from __future__ import annotations

MAX_FILE_BYTES = 64 * 2**30  # of any one file; tensors are memory-mapped where that is possible
MAX_PICKLE_BYTES = 256 * 2**20  # of the pickle in a torch zip file, which holds no tensor data
MAX_INDEX_BYTES = 32 * 2**20  # of a TensorFlow .index file
MAX_ZIP_ENTRIES = 200_000
MAX_SHARDS = 10_000

MAX_OPCODES = 5_000_000  # of all pickles in one file
MAX_LINE_BYTES = 4096  # a number or a name that a pickle spells as a line of text
MAX_INT_BYTES = 64
MAX_NAME_CHARACTERS = 300  # of a pickled global
MAX_TUPLE_KEYS = 10_000  # hashes of tuples can be made to collide
EXTRA_COPIED_BYTES = 2**20  # what a pickle may have copied, beyond the size of its file

MAX_DEPTH = 100
MAX_ITEMS = 5_000_000  # counting a shared object once for each place where it stands
MAX_DIMENSIONS = 64
