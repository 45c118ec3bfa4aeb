"""Values are read as pickle reads them; classes and calls become inert records."""

import pickle
import random
import time
from collections import Counter, OrderedDict
from fractions import Fraction
from typing import Any

import pytest

from idlm_ds.checkpoints.pickle_reader.allowed import Global, Inert, Refused
from idlm_ds.checkpoints.pickle_reader.unpickle import unpickle
from tests.checkpoints.gadgets import name, text

SHARED = ["shared"]

VALUES = [
    None,
    True,
    [0, 1, -1, 255, 256, 65536, -(2**31), 2**40, -(2**70), 3**200],
    [0.0, -0.5, 1e300, float("inf")],
    ["", "a", "\u00e9\u4e2d\U0001f600", "x" * 300, "line\nend\\ 'quoted'"],
    [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    {"a": {"b": [1, {"c": (2,)}]}, 3: None, ("x", "y"): 1, None: 2, True: 3},
    [SHARED, SHARED, {"again": SHARED}],
    list(range(2000)),
    {str(i): i for i in range(2000)},
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", VALUES, ids=lambda v: repr(v)[:20])
def test_plain_values_are_those_of_pickle(value: Any, protocol: int):
    assert unpickle(pickle.dumps(value, protocol)) == value


def test_what_is_shared_stays_shared():
    first, second = unpickle(pickle.dumps([SHARED, SHARED], 2))
    assert first is second


def test_a_list_can_hold_itself():
    value: list[Any] = []
    value.append(value)
    got = unpickle(pickle.dumps(value, 2))
    assert got[0] is got


@pytest.mark.parametrize("protocol", range(2, 6))
def test_an_ordered_dictionary_is_a_dictionary(protocol: int):
    value = OrderedDict(b=1, a=OrderedDict())
    assert list(unpickle(pickle.dumps(value, protocol)).items()) == [("b", 1), ("a", {})]


def test_an_admitted_class_becomes_a_record_of_what_the_pickle_says():
    fragment = (
        name("omegaconf.DictConfig") + b")\x81}" + text("_content") + b"K\x07sb" + b"(K\x01K\x02e"
    )
    got = unpickle(b"\x80\x02" + fragment + text("key") + b"K\x05s.")
    assert isinstance(got, Inert)
    assert got.kind == Global("omegaconf", "DictConfig")
    assert (got.state, got.items, got.entries) == ({"_content": 7}, [1, 2], {"key": 5})


def test_bytes_of_protocol_2_are_noted_and_not_decoded():
    got = unpickle(pickle.dumps({"json": b"\x00\xff"}, 2))["json"]
    assert got.kind == Global("_codecs", "encode")


@pytest.mark.parametrize(
    "stream",
    [
        b"", b".", b"\x80\x02", b"N", b"N..", b"0.", b"a.", b"\x86.", b"K\x01\x86.", b"h\x00.",
        b"t.", b"e.", b"(K\x01u.", b"}(K\x01u.", b"R.", b"b.", b"Q.", b"\x93.", b"2.", b"\xff.",
        b"X\xff\xff\xff\xffabc", b"X\x01\x00\x00\x00\xff.", b"I" + b"9" * 5000 + b"\n.",
        b"\x8b\xff\xff\xff\x7f.", b"cos\n", b"c\xff\n\xff\n.", b"F1e\n.", b"S'a\n.", b"g9\n.",
    ],
)  # fmt: skip
def test_a_damaged_stream_is_an_error_of_value(stream: bytes):
    if stream == b"N..":
        assert unpickle(stream) is None
        return
    with pytest.raises((ValueError, Refused)):
        unpickle(stream)


def test_a_stream_of_too_many_instructions_is_given_up(monkeypatch):
    monkeypatch.setattr("idlm_ds.checkpoints.pickle_reader.unpickle.MAX_OPCODES", 100)
    with pytest.raises(ValueError, match="too long"):
        unpickle(b"N0" * 60 + b"N.")


def test_deep_nesting_is_read_without_recursion():
    depth = 200_000
    value = unpickle(b"]" * depth + b"a" * (depth - 1) + b".")
    for _ in range(depth - 1):
        (value,) = value
    assert value == []


@pytest.mark.parametrize(
    ("what", "fragment"),
    [
        ("doubling tuples as a key", b"}K\x01" + b"2\x86" * 200 + b"Ns."),
        ("one long key again and again", b"}(" + b"N" * 9 + b"tNs."),
        ("keys that collide", b"}\x8a\x09" + b"\xff" * 7 + b"\x1f\x01Ns."),
        ("a name again and again", text("typing") + text("A" * 100_000) + b"\x93."),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_would_take_for_ever_is_refused_at_once(what: str, fragment: bytes):
    began = time.perf_counter()
    with pytest.raises(Refused):
        unpickle(fragment)
    assert time.perf_counter() - began < 1, what


def test_no_change_of_a_byte_gets_another_error_out_of_the_reader():
    stream = pickle.dumps([VALUES[:8], OrderedDict(a=Fraction(1, 3)), b"bytes"], 2)
    stream = stream.replace(b"cfractions\nFraction", b"ctyping\nFraction")
    draws, outcomes = random.Random(0), Counter()
    for _ in range(1500):
        changed = bytearray(stream)
        for _ in range(draws.randint(1, 4)):
            changed[draws.randrange(len(changed))] = draws.randrange(256)
        try:
            unpickle(bytes(changed[: draws.choice([len(changed), draws.randrange(len(changed))])]))
            outcomes["read"] += 1
        except (ValueError, Refused) as error:
            outcomes["refused" if isinstance(error, Refused) else "damaged"] += 1
    assert outcomes.keys() == {"read", "damaged", "refused"}
    assert outcomes.total() == 1500


def test_random_streams_get_no_other_error_out_of_the_reader():
    draws, outcomes = random.Random(1), Counter()
    opcodes = b"(.0N]})a2sbR\x81\x85\x86teudl\x93Q\x94h\x00q\x00K\x01\x88\x8f\x90\x91\x92oicX"
    for _ in range(5000):
        stream = bytes(draws.choice(opcodes) for _ in range(draws.randint(1, 40)))
        try:
            unpickle(stream + b".")
            outcomes["read"] += 1
        except (ValueError, Refused) as error:
            outcomes["refused" if isinstance(error, Refused) else "damaged"] += 1
    assert outcomes.keys() == {"read", "damaged", "refused"}
    assert outcomes.total() == 5000
