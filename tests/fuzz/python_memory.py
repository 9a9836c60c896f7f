"""Writes the memory that names some functions of this CPython, as the target python_memory takes
it: see tracer-user/src/stacks/python/fuzz.rs. Pointers lead to where the target has the memory."""

import ctypes
import json
import struct
import sys

BASE = 0x10_0000_0000
TEXT_TYPE, VERSION, FRAMES, CODE_TYPE, FREE = 0x200, 0x208, 0x210, 0x400, 0x600
CODE_BYTES, TYPE_BYTES, MEMBER_BYTES = 256, 408, 40
THREAD_BYTES, SLOT_OF_KEYS, SLOT_OF_LOCALS = 2304, 0x310, -16
# interpreters_head, threads_head, next state, thread: see tracer-user/src/stacks/python/layout.rs.
STATES = {8: (32, 8, 8, 176), 9: (32, 8, 8, 176), 10: (32, 8, 8, 176), 11: (40, 16, 8, 152), 12: (40, 72, 8, 136)}
# From 3.13 on the runtime tells; these are the words that it does so in.
WORDS = {13: (5, 9, 21, 24), 14: (5, 9, 24, 27), 15: (5, 9, 24, 30)}

minor = sys.version_info.minor
image = bytearray(0x4000)
used = FREE


def read(at, size):
    return bytearray(ctypes.string_at(at, size))


def word(memory, at):
    return struct.unpack_from("<Q", memory, at)[0]


def put(at, value):
    struct.pack_into("<Q", image, at, value)


def place(memory):
    """Where in the target's memory it comes to lie."""
    global used
    at = used
    image[at : at + len(memory)] = memory
    used = (at + len(memory) + 15) & ~15
    return at


def place_object(thing, type_at):
    memory = read(id(thing), sys.getsizeof(thing))
    struct.pack_into("<Q", memory, 8, BASE + type_at)
    return BASE + place(memory)


def place_code_type(code_type):
    memory = read(id(code_type), TYPE_BYTES)
    members_at, offsets, members = word(memory, 240), {}, bytearray()
    while True:
        member = read(members_at, MEMBER_BYTES)
        if word(member, 0) == 0:
            break
        name = ctypes.string_at(word(member, 0))
        offsets[name.decode()] = word(member, 16)
        struct.pack_into("<Q", member, 0, BASE + place(name + b"\0" * 16))
        members += member
        members_at += MEMBER_BYTES
    struct.pack_into("<Q", memory, 240, BASE + place(members + bytes(MEMBER_BYTES)))
    image[CODE_TYPE : CODE_TYPE + TYPE_BYTES] = memory
    return offsets, word(memory, 32)


def place_code(code, offsets):
    memory = read(id(code), CODE_BYTES)
    struct.pack_into("<Q", memory, 8, BASE + CODE_TYPE)
    for name in ("co_name", "co_qualname", "co_filename"):
        if name in offsets:
            text = getattr(code, name)
            struct.pack_into("<Q", memory, offsets[name], place_object(text, TEXT_TYPE))
    table = "co_linetable" if minor >= 10 else "co_lnotab"
    at = place_object(getattr(code, table), TEXT_TYPE + 4)
    struct.pack_into("<Q", memory, offsets[table], at)
    return BASE + place(memory)


def place_thread(head):
    heads, threads, following, thread = STATES.get(minor) or (word(head, at * 8) for at in WORDS[minor])
    state = place(bytes(512))
    block = place(bytes(512 + THREAD_BYTES)) + 512
    slot = SLOT_OF_KEYS if minor < 15 else SLOT_OF_LOCALS
    put(state + thread, BASE + block)
    put(state + following, 0)
    put(block + slot, BASE + state)
    # The interpreter itself is large, and nothing else of it is read.
    put(heads, BASE + place(struct.pack("<Q", BASE + state)) - threads)


head = read(ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime")), 512)
image[:512] = head
put(VERSION, sys.hexversion)
offsets, basic_size = place_code_type(type(place.__code__))
place_thread(head)
for index, function in enumerate((place, json.JSONEncoder.encode)):
    code = place_code(function.__code__, offsets)
    instruction = {8: 10, 9: 10, 10: 5}.get(minor, code + basic_size + 10)
    put(FRAMES + index * 16, code)
    put(FRAMES + index * 16 + 8, instruction)
sys.stdout.buffer.write(image[:used])
