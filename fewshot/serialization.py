"""One file of plain values: numbers, strings, containers, arrays, tensors. Nothing in it can be executed.

A file is a line of text, a JSON document and the tensors in safetensors format, one after the other::

    fewshot <format> <bytes of the document> <bytes of the tensors> <SHA-256 of all but itself>
    {...}
    ...

Reading checks lengths and checksum before it looks at the content, so a damaged file gives one clear error, and nothing is
ever allocated beyond the size of the file. The checksum finds accidents, not forgery: what makes a hostile file harmless is
that no part of the format names code. :class:`Packer` turns values into the document and the tensors, :class:`Unpacker` back,
exactly: tuples stay tuples, arrays keep their type.
"""

from __future__ import annotations

import contextlib
import datetime
import decimal
import hashlib
import json
import math
import os
import re
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import safetensors.torch
import torch
from torch import Tensor

from .errors import SerializationError

__all__ = ["Packer", "Unpacker", "read", "write"]

FORMAT = 1
BEGINNING = re.compile(rb"fewshot ([0-9]{1,9}) ")  # the same in every format
FIRST_LINE = re.compile(rb"fewshot 1 ([0-9]{1,18}) ([0-9]{1,18}) ([0-9a-f]{64})\n")
LONGEST_FIRST_LINE = 256


def write(path: str | os.PathLike[str], document: Any, tensors: Mapping[str, Tensor]) -> None:
    """Write a file, or leave what was there as it is.

    Parameters
    ----------
    path : str or path-like
        The file; an existing one is replaced in one go once everything is on disk.
    document : JSON value
        Of None, bool, int, finite float, str, list, and dict with string keys.
    tensors : dict of str to Tensor
        Dense tensors.

    Raises
    ------
    SerializationError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(f"{folder}/file", {"answer": 42}, {"x": torch.ones(2)})
    ...     read(f"{folder}/file")
    ({'answer': 42}, {'x': tensor([1., 1.])})
    """
    body = json.dumps(document, allow_nan=False).encode("ascii") + b"\n"
    try:
        data = safetensors.torch.save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})
    except (KeyError, RuntimeError, ValueError) as error:
        raise SerializationError(f"tensors: cannot be written ({_first_line(error)}).") from error
    start = b"fewshot %d %d %d " % (FORMAT, len(body), len(data))
    digest = hashlib.sha256(start + body)
    digest.update(data)
    _replace(path, [start + digest.hexdigest().encode("ascii") + b"\n", body, data])


def _replace(path: str | os.PathLike[str], parts: list[bytes]) -> None:
    """Write the parts to a new file beside `path`, make sure they are on disk, and put it in the place of `path`."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise SerializationError(f"path: {os.fspath(path)!r} is a folder; give the name of a file.")
    if not target.parent.is_dir():
        raise SerializationError(f"path: {os.fspath(path)!r} lies in a folder that does not exist; create it first.")
    temporary = target.parent / f".fewshot-{uuid.uuid4().hex}.tmp"
    try:
        try:
            with open(temporary, "xb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)
    except OSError as error:
        raise SerializationError(f"path: {os.fspath(path)!r} cannot be written ({error}).") from error


def _sync_folder(folder: Path) -> None:
    """Make a renaming last through a power cut, where the system can be asked to."""
    if os.name == "posix":
        with contextlib.suppress(OSError):  # some network drives refuse, and the file is in place already
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def read(path: str | os.PathLike[str]) -> tuple[Any, dict[str, Tensor]]:
    """Read a file that :func:`write` wrote.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    document : JSON value
    tensors : dict of str to Tensor

    Raises
    ------
    SerializationError
        If there is no such file, or it is damaged, of another kind or of a newer format.
    """
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            line = file.readline(LONGEST_FIRST_LINE)
            beginning = BEGINNING.match(line)
            if beginning is None:
                raise SerializationError(
                    f"path: {name!r} is not a file that fewshot wrote, or its beginning is damaged."
                )
            if int(beginning[1]) > FORMAT:
                raise SerializationError(
                    f"path: {name!r} has format {int(beginning[1])}, and this version of fewshot reads up to {FORMAT}; update "
                    "fewshot."
                )
            content = file.read()
    except OSError as error:
        raise SerializationError(f"path: {name!r} cannot be read ({error.strerror or error}).") from error
    complaint = None
    found = FIRST_LINE.fullmatch(line)
    if found is None:
        complaint = "its first line is incomplete"
    elif len(content) != int(found[1]) + int(found[2]):
        complaint = f"it holds {len(content)} bytes in place of {int(found[1]) + int(found[2])}"
    else:
        digest = hashlib.sha256(line[: found.start(3)])
        digest.update(content)
        if digest.hexdigest().encode("ascii") != found[3]:
            complaint = "its checksum is wrong"
    if complaint is not None or found is None:
        raise SerializationError(f"path: {name!r} is damaged: {complaint}; save it again or fetch another copy.")
    n_body = int(found[1])
    try:
        return json.loads(content[:n_body]), safetensors.torch.load(content[n_body:])
    except Exception as error:  # with the right checksum: not by accident, so whatever a parser raises
        raise SerializationError(f"path: {name!r} has no valid content ({_first_line(error)}).") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__


# Values that are made of few others: type -> (tag, to parts, from parts).
SCALARS: dict[type, tuple[str, Callable[[Any], list[Any]], Callable[..., Any]]] = {
    bytes: ("bytes", lambda v: [v.hex()], bytes.fromhex),
    uuid.UUID: ("uuid", lambda v: [v.hex], uuid.UUID),
    decimal.Decimal: ("decimal", lambda v: [str(v)], decimal.Decimal),
    datetime.date: ("date", lambda v: [v.isoformat()], datetime.date.fromisoformat),
    datetime.datetime: ("datetime", lambda v: [v.isoformat()], datetime.datetime.fromisoformat),
    datetime.time: ("time", lambda v: [v.isoformat()], datetime.time.fromisoformat),
    datetime.timedelta: ("timedelta", lambda v: [v.days, v.seconds, v.microseconds], datetime.timedelta),
    pd.Timestamp: (
        "pandas.Timestamp",
        lambda v: [v.isoformat(), v.unit, None if v.tz is None else str(v.tz)],
        lambda text, unit, zone: (pd.Timestamp(text) if zone is None else pd.Timestamp(text).tz_convert(zone)).as_unit(
            unit
        ),
    ),
    pd.Timedelta: (
        "pandas.Timedelta",
        lambda v: [v.isoformat(), v.unit],
        lambda text, unit: pd.Timedelta(text).as_unit(unit),
    ),
    pd.Period: ("pandas.Period", lambda v: [v.ordinal, v.freqstr], lambda n, freq: pd.Period(ordinal=n, freq=freq)),
    pd.Interval: ("pandas.Interval", lambda v: [v.left, v.right, v.closed], pd.Interval),
}
NATIVE = "biuf"  # kinds of array that safetensors has types for; the others travel as bytes
OTHERS = "cUSMm"


class Packer:
    """Turns values into a JSON document and named tensors.

    None, bool, int, float, str, list, tuple, dict, NumPy scalars and arrays, tensors, data frames, and the usual scalars of dates
    and times. Equal tensors are stored once. Series, indices and pandas' own arrays become NumPy arrays.

    Attributes
    ----------
    tensors : dict of str to Tensor
        What the packed values refer to.

    Examples
    --------
    >>> packer = Packer()
    >>> packer.pack({"hidden": (40, 40)}, "settings")
    {'$': 'dict', 'items': [['hidden', {'$': 'tuple', 'items': [40, 40]}]]}
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._known: dict[object, str] = {}

    def pack(self, value: Any, where: str) -> Any:
        """Return `value` as a JSON value; `where` names it in errors and in the names of tensors.

        Raises
        ------
        SerializationError
            If the value is of a type that a file cannot hold.
        """
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"$": "float", "value": repr(value)}
        if kind is list:
            return [self.pack(v, f"{where}[{i}]") for i, v in enumerate(value)]
        if kind is tuple:
            return {"$": "tuple", "items": [self.pack(v, f"{where}[{i}]") for i, v in enumerate(value)]}
        if kind is dict:
            return {
                "$": "dict",
                "items": [[self.pack(k, where), self.pack(v, join(where, k))] for k, v in value.items()],
            }
        if kind in SCALARS:
            return self._scalar(value, where)
        if isinstance(value, np.generic):
            return {"$": "scalar", "value": self._array(np.asarray(value), where)}
        if kind in (np.ndarray, np.memmap):
            return self._array(value, where)
        if isinstance(value, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
            return self._array(np.asarray(value), where)
        if kind is pd.DataFrame:
            return self._frame(value, where)
        if kind in (Tensor, torch.nn.Parameter) and value.layout == torch.strided and not value.is_quantized:
            return {"$": "tensor", "name": self.add(value, where)}
        return self.other(value, where)

    def other(self, value: Any, where: str) -> Any:
        """Pack what this class does not know; for subclasses."""
        raise SerializationError(
            f"{where}: got {describe(value)}, which cannot be saved; expected numbers, strings, arrays, tensors, or lists, "
            "tuples and dicts of them."
        )

    def add(self, tensor: Tensor, name: str) -> str:
        """Add a tensor, under `name` or, if an equal one is there, that one's; return the name it has."""
        tensor = tensor.detach().cpu().contiguous()
        content: Any = tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b""
        key = (tensor.dtype, tensor.shape, hashlib.sha256(content).digest())
        if key not in self._known:
            while name in self.tensors:
                name += "'"
            self.tensors[name] = tensor
            self._known[key] = name
        return self._known[key]

    def _scalar(self, value: Any, where: str) -> Any:
        tag, to_parts, from_parts = SCALARS[type(value)]
        parts = to_parts(value)
        try:
            exact = bool(from_parts(*parts) == value)
        except (TypeError, ValueError, LookupError):  # a time zone without a name, ...
            exact = False
        return {"$": tag, "parts": [self.pack(v, where) for v in parts]} if exact else self.other(value, where)

    def _array(self, array: npt.NDArray[Any], where: str) -> Any:
        shape = list(array.shape)
        if array.dtype.kind == "O":
            items = [self.pack(v, f"{where}[{i}]") for i, v in enumerate(array.reshape(-1).tolist())]
            return {"$": "objects", "shape": shape, "items": items}
        if array.dtype.kind not in NATIVE + OTHERS or (array.dtype.itemsize > 8 and array.dtype.kind in NATIVE):
            return self.other(array, where)
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(-1)
        stored = array if array.dtype.kind in NATIVE else np.frombuffer(array.tobytes(), dtype=np.uint8)
        name = self.add(torch.from_numpy(stored.astype(stored.dtype.newbyteorder("="))), where)
        return {"$": "array", "dtype": array.dtype.str, "shape": shape, "name": name}

    def _frame(self, frame: pd.DataFrame, where: str) -> dict[str, Any]:
        index: Any = len(frame)
        if not frame.index.equals(pd.RangeIndex(index)):
            index = self.pack(frame.index, f"{where}.index")
        return {
            "$": "frame",
            "columns": [self.pack(c, where) for c in frame.columns],
            "values": [self.pack(frame.iloc[:, i], join(where, c)) for i, c in enumerate(frame.columns)],
            "index": index,
        }


class Unpacker:
    """Turns what :class:`Packer` made back into values.

    Parameters
    ----------
    tensors : dict of str to Tensor
        As in :attr:`Packer.tensors`.

    Examples
    --------
    >>> packer = Packer()
    >>> packed = packer.pack([("a", np.arange(3))], "example")
    >>> Unpacker(packer.tensors).unpack(packed)
    [('a', array([0, 1, 2]))]
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.readers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "float": lambda node: float(node["value"]),
            "tuple": lambda node: tuple(self.unpack(node["items"])),
            "dict": lambda node: {self.unpack(k): self.unpack(v) for k, v in node["items"]},
            "scalar": lambda node: self.unpack(node["value"])[()],
            "tensor": lambda node: self.tensors[node["name"]].clone(),
            "array": self._array,
            "objects": self._objects,
            "frame": self._frame,
        }
        for tag, _, from_parts in SCALARS.values():
            self.readers[tag] = partial(self._scalar, from_parts)

    def unpack(self, node: Any) -> Any:
        """Return the value of a packed one; anything else may raise whatever it leads to."""
        if isinstance(node, list):
            return [self.unpack(item) for item in node]
        if isinstance(node, dict):
            return self.readers[node["$"]](node)
        return node

    def _scalar(self, from_parts: Callable[..., Any], node: dict[str, Any]) -> Any:
        return from_parts(*self.unpack(node["parts"]))

    def _array(self, node: dict[str, Any]) -> npt.NDArray[Any]:
        dtype = np.dtype(node["dtype"])
        if dtype.kind not in NATIVE + OTHERS:
            raise SerializationError(f"content: an array of type {dtype} was not expected.")
        stored = self.tensors[node["name"]].numpy()
        if dtype.kind in NATIVE and stored.dtype != dtype:
            raise SerializationError(f"content: an array of type {dtype} is stored as {stored.dtype}.")
        array = stored if dtype.kind in NATIVE or not stored.size else np.frombuffer(stored.tobytes(), dtype=dtype)
        return array.reshape(node["shape"]).astype(dtype.newbyteorder("="))

    def _objects(self, node: dict[str, Any]) -> npt.NDArray[Any]:
        array = np.empty(len(node["items"]), dtype=object)
        for i, item in enumerate(node["items"]):
            array[i] = self.unpack(item)
        return array.reshape(node["shape"])

    def _frame(self, node: dict[str, Any]) -> pd.DataFrame:
        columns = dict(enumerate(self.unpack(node["values"])))
        index = node["index"]
        frame = pd.DataFrame(columns, index=pd.RangeIndex(index) if isinstance(index, int) else self.unpack(index))
        if columns:
            frame.columns = pd.Index(self.unpack(node["columns"]))
        return frame


def join(where: str, name: object) -> str:
    """Name of a part of what is named `where`."""
    return f"{where}.{name}" if where else str(name)


def describe(value: Any) -> str:
    """Say what `value` is, in an error."""
    if isinstance(value, np.ndarray):
        return f"an array of type {value.dtype}"
    name = getattr(value, "__qualname__", None)
    kind = type(value).__name__
    article = "an" if kind[0] in "aeiouAEIOU" else "a"
    return f"the {kind} {name!r}" if isinstance(name, str) else f"{article} {kind}"
