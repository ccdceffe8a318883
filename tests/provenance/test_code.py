"""The message of the mark and its error-correcting code."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest

from lib_vitface.errors import InputError
from lib_vitface.provenance.code import (
    CODED_BITS,
    MESSAGE_BITS,
    VERSION,
    Payload,
    decode,
    encode,
    keyed_code,
    message,
    payload_of,
    short_id,
)

PAYLOADS = [Payload("00000000", 0), Payload("ffffffff", 2**32 - 1), Payload("0123abcd", 0xDEADBEEF)]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_round_trip(payload: Payload) -> None:
    assert payload_of(message(payload)) == payload
    coded = encode(payload)
    assert coded.shape == (CODED_BITS,) == (368,) and set(np.unique(coded)) <= {0, 1}
    assert decode(1.0 - 2.0 * coded) == payload
    assert decode((1.0 - 2.0 * coded) * 1e-6) == payload, "any scale"


def test_every_single_changed_bit_is_noticed() -> None:
    bits = message(PAYLOADS[2])
    assert len(bits) == MESSAGE_BITS == 84
    for place in range(len(bits)):
        changed = bits.copy()
        changed[place] ^= 1
        assert payload_of(changed) is None


def test_another_version_is_none_of_ours() -> None:
    assert payload_of(message(Payload("0123abcd", 1, VERSION + 1))) is None


def test_the_code_corrects_what_its_distance_promises() -> None:
    """Free distance 24: eleven wrong bits anywhere are put right, and many more where they are spread."""
    random = np.random.default_rng(1)
    signs = 1.0 - 2.0 * encode(PAYLOADS[2])
    for _ in range(20):
        soft = signs.copy()
        soft[random.choice(CODED_BITS, 11, replace=False)] *= -1
        assert decode(soft) == PAYLOADS[2]
    start = int(random.integers(CODED_BITS - 11))
    burst = signs.copy()
    burst[start : start + 11] *= -1
    assert decode(burst) == PAYLOADS[2]


def test_soft_values_count() -> None:
    """Noise as strong as the signal: hard decisions alone have one bit in six wrong."""
    random = np.random.default_rng(2)
    signs = 1.0 - 2.0 * encode(PAYLOADS[2])
    right = sum(decode(signs + random.normal(0, 1, CODED_BITS)) == PAYLOADS[2] for _ in range(20))
    assert right >= 19


def test_noise_rarely_passes_the_check() -> None:
    random = np.random.default_rng(3)
    assert sum(decode(random.normal(size=CODED_BITS)) is not None for _ in range(100)) == 0


def test_short_ids() -> None:
    assert short_id("0123ABCD-4567-89ab-cdef") == "0123abcd"
    assert short_id("0123abcd") == "0123abcd"
    for bad in ("", "0123abc", "xyz", "0123abcg" + "0" * 24, "山田花子山田花子"):
        with pytest.raises(InputError, match="8 hexadecimal digits"):
            short_id(bad)


def test_keyed_code_is_the_hmac() -> None:
    expected = hmac.new(b"key", b"vitface 1 0123abcd", hashlib.sha256).hexdigest()[:8]
    assert keyed_code("0123abcd", b"key") == int(expected, 16)
    assert keyed_code("0123abcd", b"other") != keyed_code("0123abcd", b"key") != keyed_code("0123abce", b"key")
