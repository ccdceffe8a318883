"""What the mark says, and its error-correcting code: 84 bits in, 368 soft carriers out, and back.

The message is version (4 bits), record id (32), keyed code (32) and a CRC-16 over them, sent through a convolutional code of
rate 1/4 and constraint length 9 (generators 463, 535, 733, 745 octal; Larsen 1973, free distance 24), decoded by the Viterbi
algorithm on soft values. A Reed-Solomon or BCH library was not taken: they want hard bits, which throws away about 2 dB here.
"""

from __future__ import annotations

import binascii
import functools
import hashlib
import hmac
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib_vitface.errors import InputError

VERSION = 1
CRC_BITS = 16
VERSION_BITS = 4
_FIELDS = (VERSION_BITS, 32, 32)
_GENERATORS = (0o463, 0o535, 0o733, 0o745)
_MEMORY = 8
_STATES = 1 << _MEMORY
MESSAGE_BITS = sum(_FIELDS) + CRC_BITS
CODED_BITS = (MESSAGE_BITS + _MEMORY) * len(_GENERATORS)

Bits = NDArray[np.uint8]
Soft = NDArray[np.float64]


@dataclass(frozen=True)
class Payload:
    """`record_id` is 8 lower-case hex digits; `code` is the keyed code, 0 where it was made without a key."""

    record_id: str
    code: int = 0
    version: int = VERSION


def short_id(record_id: str) -> str:
    """The first 8 hex digits of a consent record's id: what fits into the mark. Raises `InputError`."""
    text = record_id.replace("-", "").lower()[:8]
    if len(text) < 8 or set(text) - set("0123456789abcdef"):
        raise InputError(f"{record_id!r} is no record id; give at least 8 hexadecimal digits.")
    return text


def keyed_code(record_id: str, key: bytes) -> int:
    """32 bits of HMAC-SHA-256 over version and record id."""
    text = f"vitface {VERSION} {record_id}".encode()
    return int.from_bytes(hmac.new(key, text, hashlib.sha256).digest()[:4], "big")


def message(payload: Payload) -> Bits:
    """The 84 bits of a payload, most significant first."""
    values = (payload.version, int(payload.record_id, 16), payload.code)
    text = "".join(f"{value:0{width}b}" for value, width in zip(values, _FIELDS, strict=True))
    text += f"{binascii.crc_hqx(_octets(text), 0xFFFF):0{CRC_BITS}b}"
    return np.frombuffer(text.encode(), np.uint8) - ord("0")


def payload_of(bits: Bits) -> Payload | None:
    """The payload of 84 bits, or None when the CRC or the version says that these are none of ours."""
    text = "".join(map(str, bits.tolist()))
    body, check = text[:-CRC_BITS], int(text[-CRC_BITS:], 2)
    version, record, code = (int(body[at : at + width], 2) for at, width in zip((0, 4, 36), _FIELDS, strict=True))
    if check != binascii.crc_hqx(_octets(body), 0xFFFF) or version != VERSION:
        return None
    return Payload(f"{record:08x}", code, version)


def _octets(text: str) -> bytes:
    return int(text, 2).to_bytes((len(text) + 7) // 8, "big")


@functools.lru_cache(maxsize=1)
def _trellis() -> tuple[NDArray[np.intp], Soft]:
    """For each state and each of its two predecessors: the predecessor `[256, 2]` and the four signs sent `[256, 2, 4]`."""
    state = np.arange(_STATES)
    before = np.stack([(state << 1) & (_STATES - 1), ((state << 1) & (_STATES - 1)) | 1], axis=1)
    register = ((state >> (_MEMORY - 1)) << _MEMORY)[:, None] | before  # newest bit on top of the old state
    parity = [[[bin(int(r) & g).count("1") & 1 for g in _GENERATORS] for r in row] for row in register]
    return before, 1.0 - 2.0 * np.array(parity, np.float64)


def encode(payload: Payload) -> Bits:
    """368 coded bits of a payload; the encoder ends in state 0."""
    state, coded = 0, []
    for bit in [*message(payload).tolist(), *[0] * _MEMORY]:
        register = (bit << _MEMORY) | state
        coded += [bin(register & g).count("1") & 1 for g in _GENERATORS]
        state = register >> 1
    return np.array(coded, np.uint8)


def decode(soft: Soft) -> Payload | None:
    """Most likely payload of 368 soft values (positive means 0; any common scale), or None when its CRC fails."""
    before, signs = _trellis()
    gains = np.einsum("spk,tk->tsp", signs, soft.reshape(-1, len(_GENERATORS)))
    metric = np.full(_STATES, -np.inf)
    metric[0] = 0.0
    choices = np.empty(gains.shape[:2], np.uint8)
    for step, gain in enumerate(gains):
        paths = metric[before] + gain
        choices[step] = paths[:, 1] > paths[:, 0]
        metric = paths.max(axis=1)
    state, bits = 0, []
    for choice in choices[::-1]:
        bits.append(state >> (_MEMORY - 1))
        state = int(before[state, choice[state]])
    return payload_of(np.array(bits[::-1][:MESSAGE_BITS], np.uint8))
