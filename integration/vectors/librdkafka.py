#!/usr/bin/env python3
"""Reads keys in hexadecimal from standard input and prints the partitions that librdkafka gives them.

usage: librdkafka.py PARTITIONER COUNT...     PARTITIONER: consistent (crc32) or murmur2

The library is the one that PyPI's confluent-kafka carries. Its partitioners are public functions (rdkafka.h)
that need no broker. consistent is what the default, consistent_random, does with every key that is not empty.
"""
import ctypes
import glob
import os
import sys

import confluent_kafka


def library():
    folder = os.path.join(os.path.dirname(os.path.dirname(confluent_kafka.__file__)), "confluent_kafka.libs")
    found = glob.glob(os.path.join(folder, "librdkafka*.so*"))
    if len(found) != 1:
        sys.exit(f"librdkafka.py: expected one librdkafka in {folder}, found {found}")
    return ctypes.CDLL(found[0])


def main():
    name, counts = sys.argv[1], [int(n) for n in sys.argv[2:]]
    lib = library()
    partitioner = getattr(lib, "rd_kafka_msg_partitioner_" + name)
    partitioner.restype = ctypes.c_int32
    partitioner.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p]
    lib.rd_kafka_version_str.restype = ctypes.c_char_p
    version = lib.rd_kafka_version_str().decode()
    print(f"# librdkafka {version}, partitioner {name}; first line: partition counts, then one line a key of keys.txt")
    print("\t".join(map(str, counts)))
    for line in sys.stdin:
        if line.startswith("#"):
            continue
        key = bytes.fromhex(line.strip())
        print("\t".join(str(partitioner(None, key, len(key), n, None, None)) for n in counts))


main()
