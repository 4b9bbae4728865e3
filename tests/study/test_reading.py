import numpy as np
import pandas as pd
import pytest

from fewshot.errors import DataNotFoundError, InvalidDataError, MissingDependencyError
from fewshot.study import read_table

BAD = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\n", "is empty"),
    "one column": (b"a\n1\n2\n", "one column only"),
    "header only": (b"a,b\n", "no rows"),
    "web page": (b"<!DOCTYPE html>\n<html></html>", "web page"),
    "workbook": (b"PK\x03\x04" + bytes(40), "Excel"),
    "gzip": (b"\x1f\x8b\x08" + bytes(40), "unpack"),
    "binary": (b"\x89PNG\r\n\x1a\n\0\0\0", "binary"),
    "latin-1": ("site,y\né,1\n".encode("latin1"), "not in UTF-8"),
    "ragged": (b"a,b\n1,2\n1,2,3,4\n", "not a table separated by comma"),
    "rows longer than the header": (b"a,b\n1,2,3\n1,2,3\n", "not a table separated by comma"),
    "damaged parquet": (b"PAR1 and nothing else", "damaged Parquet"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_a_table(tmp_path, case):
    content, message = BAD[case]
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidDataError, match=message):
        read_table(path)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(DataNotFoundError, match="no such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(InvalidDataError, match="is a folder"):
        read_table(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_and_encodings(tmp_path, separator, encoding):
    frame = pd.DataFrame({"town": ["Łódź", "Köln"], "y": [1.5, 2.0]})
    path = tmp_path / "table.txt"
    frame.to_csv(path, sep=separator, index=False, encoding=encoding)
    pd.testing.assert_frame_equal(read_table(path), frame)


def test_decimal_commas(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("town;y;z\na;1,5;1\nb;-2,25;2\n")
    assert read_table(path)["y"].tolist() == [1.5, -2.25]


def test_parquet_is_told_by_its_content(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"town": ["a", "b"], "y": [1.5, np.nan]})
    frame.to_parquet(tmp_path / "table.data")
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.data"), frame)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    def refuse(path):
        raise ImportError("pyarrow")

    monkeypatch.setattr(pd, "read_parquet", refuse)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingDependencyError, match=r"fewshot\[data\]"):
        read_table(tmp_path / "t.parquet")
