"""The file format: exact round trips of values, and one clear error for whatever is wrong with a file."""

import datetime
import decimal
import hashlib
import json
import os
import pickle
import stat
import uuid

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fewshot.errors import SerializationError
from fewshot.serialization import Packer, Unpacker, read, write


def through_json(value):
    """The value after packing, writing as JSON and unpacking."""
    packer = Packer()
    packed = json.loads(json.dumps(packer.pack(value, "value"), allow_nan=False))
    return Unpacker(packer.tensors).unpack(packed)


def same(a, b):
    """Equal in type and value, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, np.ndarray | np.generic):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        if a.dtype == object:
            return same(a.tolist(), b.tolist())
        return np.asarray(a).tobytes() == np.asarray(b).tobytes()
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    return a == b or (a != a and b != b)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
NESTED = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.booleans()), inner, max_size=3)
    ),
    max_leaves=8,
)
ARRAYS = hnp.arrays(
    st.one_of(
        hnp.boolean_dtypes(),
        hnp.integer_dtypes(),
        hnp.unsigned_integer_dtypes(),
        hnp.floating_dtypes(),
        hnp.complex_number_dtypes(sizes=(64, 128)),
        hnp.unicode_string_dtypes(),
        hnp.byte_string_dtypes(),
        hnp.datetime64_dtypes(),
        hnp.timedelta64_dtypes(),
    ),
    hnp.array_shapes(min_dims=0, min_side=0),
)


@settings(max_examples=60, deadline=None)
@given(NESTED)
def test_plain_values_come_back_exactly(value):
    assert same(through_json(value), value)


@settings(max_examples=60, deadline=None)
@given(ARRAYS)
def test_arrays_come_back_exactly(array):
    back = through_json(array)
    assert same(back, array.astype(array.dtype.newbyteorder("=")))
    assert back.flags.writeable


@pytest.mark.parametrize(
    "value",
    [
        np.float32(0.1),
        np.int8(3),
        np.str_("x"),
        np.datetime64("2024-02-29"),
        float("nan"),
        -0.0,
        "\ud800",
        np.array(["a", None, 1.5, ("b", 2)], dtype=object),
        np.array([[pd.Timestamp("2024-01-01 12:00:00.000000001"), pd.Timestamp("2020-01-01", tz="Europe/Berlin")]]),
        [datetime.date(2024, 2, 29), datetime.datetime(2024, 1, 1, 2, 3, 4, 5), datetime.time(1, 2)],
        [datetime.timedelta(-1, 2, 3), pd.Timedelta(-1, "ns"), pd.Period("2024Q1"), pd.Interval(0, 1.5, closed="left")],
        [b"\x00\xff", uuid.UUID(int=7), decimal.Decimal("1.10")],
        torch.arange(6.0).reshape(2, 3).T,
        torch.tensor(2, dtype=torch.int16),
        torch.zeros(0, 3),
        torch.ones(3, dtype=torch.bfloat16),
    ],
    ids=str,
)
def test_a_value_comes_back_exactly(value):
    assert same(through_json(value), value)


def test_frames():
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, np.nan], 3: [True, False]}, index=["x", "y"])
    pd.testing.assert_frame_equal(through_json(frame), frame, check_index_type=False)
    frame = frame.reset_index(drop=True)
    pd.testing.assert_frame_equal(through_json(frame), frame)
    assert through_json(pd.DataFrame(index=range(3))).shape == (3, 0)


def test_columns_of_pandas_become_arrays():
    assert same(through_json(pd.Series([1, 2])), np.array([1, 2]))
    assert same(through_json(pd.Index(["a"], dtype=object)), np.array(["a"], dtype=object))


def test_equal_tensors_are_stored_once_and_come_back_apart():
    packer = Packer()
    packed = packer.pack([torch.ones(3), torch.ones(3), torch.ones(3, 1), torch.zeros(3)], "x")
    assert list(packer.tensors) == ["x[0]", "x[2]", "x[3]"]
    first, second, *_ = Unpacker(packer.tensors).unpack(packed)
    first += 1
    assert second.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (lambda: 0, "function '.*lambda"),
        (len, "builtin_function_or_method 'len'"),
        ({1}, "a set"),
        (np.zeros(2, dtype=[("a", int)]), "an array of type"),
        (np.zeros(1, dtype=np.longdouble), "an array of type"),
        (np.array([object()]), "got an object"),
        (torch.eye(2).to_sparse(), "a Tensor"),
        (datetime.UTC, "a timezone"),
        (bool, "the type 'bool'"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(value, what):
    with pytest.raises(SerializationError, match=rf"part\[0\].*{what}.*cannot be saved"):
        Packer().pack([value], "part")


def test_subclasses_are_refused():
    class Text(str):
        pass

    with pytest.raises(SerializationError, match="a Text, which cannot be saved"):
        Packer().pack(Text("x"), "name")


DOCUMENT = {"a": [1, 2.5, None, "é"], "b": {"c": True}}
TENSORS = {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor([1, 2])}


@pytest.fixture
def file(tmp_path):
    write(tmp_path / "file", DOCUMENT, TENSORS)
    return tmp_path / "file"


def refused(path, match="^path: "):
    with pytest.raises(SerializationError, match=match) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_round_trip_and_readable_beginning(file):
    document, tensors = read(file)
    assert document == DOCUMENT
    assert tensors.keys() == TENSORS.keys() and all(torch.equal(tensors[k], TENSORS[k]) for k in TENSORS)
    first, second = file.read_bytes().split(b"\n")[:2]
    assert first.startswith(b"fewshot 1 ")
    assert json.loads(second) == DOCUMENT
    assert os.listdir(file.parent) == ["file"]


def test_every_flipped_bit_is_found(file):
    content = file.read_bytes()
    for i in range(len(content)):
        changed = bytearray(content)
        changed[i] ^= 1 << (i % 8)
        file.write_bytes(changed)
        refused(file)


def test_every_truncation_and_any_addition_is_found(file):
    content = file.read_bytes()
    for n in range(len(content)):
        file.write_bytes(content[:n])
        refused(file)
    file.write_bytes(content + b"\n")
    refused(file, "is damaged: it holds")


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300))
def test_foreign_content_is_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "foreign"
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not a file that fewshot wrote"),
        (b"PK\x03\x04" + bytes(100), "not a file that fewshot wrote"),
        (b"fewshot 2 anything at all", "has format 2, and this version of fewshot reads up to 1; update"),
        (b"fewshot 1 5", "first line is incomplete"),
        (b"fewshot 1 999999999999999999 5 " + b"0" * 64 + b"\n", "it holds 0 bytes"),
    ],
)
def test_each_cause_has_its_message(tmp_path, content, match):
    (tmp_path / "file").write_bytes(content)
    refused(tmp_path / "file", match)


def forged(body, data):
    """A file of any content whose checksum is right."""
    start = b"fewshot 1 %d %d " % (len(body), len(data))
    return start + hashlib.sha256(start + body + data).hexdigest().encode() + b"\n" + body + data


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b"{", b""),
        (b"[" * 200_000 + b"]" * 200_000, b""),
        (b"1" * 10_000, b""),
        (b"\xff", b""),
        (b"{}", b"\xff" * 50),
        (b"{}", (2**62).to_bytes(8, "little") + b"{}"),
        (b"{}", pickle.dumps(print)),
    ],
    ids=["half", "deep", "long number", "not text", "noise", "huge header", "pickle"],
)
def test_invalid_content_with_the_right_checksum_is_refused(tmp_path, body, data):
    (tmp_path / "file").write_bytes(forged(body, data))
    refused(tmp_path / "file", "has no valid content")


@pytest.mark.parametrize("dtype", ["O", "|O", "V8", "i8,O", "<U999999999", "nonsense"])
def test_types_of_arrays_are_checked(dtype):
    node = {"$": "array", "dtype": dtype, "shape": [1], "name": "t"}
    with pytest.raises((SerializationError, ValueError, TypeError)):
        Unpacker({"t": torch.zeros(8, dtype=torch.uint8)}).unpack(node)


def test_paths(tmp_path, file):
    refused(tmp_path / "absent", "absent' cannot be read .No such file")
    refused(tmp_path, "cannot be read")
    with pytest.raises(SerializationError, match="nowhere.*lies in a folder that does not exist"):
        write(tmp_path / "nowhere" / "file", {}, {})
    with pytest.raises(SerializationError, match="is a folder; give the name of a file"):
        write(tmp_path, {}, {})
    write(str(file), [], {})
    assert read(str(file)) == ([], {})


@pytest.mark.skipif(os.name != "posix", reason="links and modes are POSIX's")
def test_links_and_modes_are_those_of_an_ordinary_file(tmp_path, file):
    link = tmp_path / "link"
    link.symlink_to(file)
    write(link, "through", {})
    assert link.is_symlink() and read(file)[0] == "through"
    (tmp_path / "plain").write_bytes(b"")
    write(tmp_path / "new", {}, {})
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failure_while_writing_leaves_the_old_file(file, monkeypatch, function):
    def fail(*args):
        raise OSError(28, "No space left on device")

    before = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(SerializationError, match="cannot be written .*No space left"):
            write(file, {"new": 1}, {})
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == ["file"]


def test_an_interruption_while_writing_leaves_the_old_file(file, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    before = file.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fsync", interrupt)
        write(file, {"new": 1}, {})
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == ["file"]


def test_documents_and_tensors_that_cannot_be_written(file):
    before = file.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write(file, float("nan"), {})
    with pytest.raises(SerializationError, match="tensors: cannot be written"):
        write(file, {}, {"x": torch.eye(2).to_sparse()})
    assert file.read_bytes() == before
