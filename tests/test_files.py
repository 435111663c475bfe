"""Files that are whole or absent, JSON that is JSON, and what is no file at all."""

import os

import pytest

from memrl_jax.run import files


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a"
    path.write_text("before")
    with files.replacing(path) as file:
        file.write(b"after")
        assert path.read_text() == "before"
        (new,) = (x for x in tmp_path.iterdir() if x != path)
        assert files.is_temporary(new) and files.is_temporary(new, of="a")
        assert not files.is_temporary(new, of="b") and not files.is_temporary(path)
    assert path.read_text() == "after" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_or_stays_as_it_is(tmp_path, error):
    path = tmp_path / "a"
    path.write_text("before")
    with pytest.raises(type(error), match=f"^$|No space left on device: '{path}'"):  # noqa: SIM117
        with files.replacing(path) as file:
            file.write(b"half")
            raise error
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_file():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        files.append(files.Path("/dev/full"), "line")


def test_lines_are_added_and_a_new_file_survives_a_power_cut(tmp_path, monkeypatch):
    synced: list[files.Path] = []
    monkeypatch.setattr(files, "sync", synced.append)
    files.append(tmp_path / "a", "one")
    files.append(tmp_path / "a", "two é")
    assert synced == [tmp_path]
    assert (tmp_path / "a").read_text() == "one\ntwo é\n"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_not_waited_for(tmp_path, make):
    make(tmp_path / "a")
    with pytest.raises(OSError, match=f"(Not a regular file|Is a directory): '{tmp_path}/a'"):
        files.read(tmp_path / "a")


@pytest.mark.parametrize(
    "text, what",
    [
        (b"\xff", "codec can't decode"),
        (b"{", "Expecting property name"),
        (b"9" * 10_000, "Exceeds the limit"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 33 + b"]" * 33, "nested too deeply"),
        (b'{"a":' * 33 + b"{}" + b"}" * 33, "nested too deeply"),
    ],
)
def test_what_is_no_json(text, what):
    with pytest.raises(ValueError, match=what):
        files.parse(text)


def test_json():
    assert files.parse(b'{"a": [1, 2.5, null, "\xc3\xa9"]}') == {"a": [1, 2.5, None, "é"]}
    assert files.parse(b"[" * 31 + b"1" + b"]" * 31)


def test_reasons_are_one_line():
    assert files.reason(ValueError("a\n  b")) == "a b"
    assert files.reason(OSError(2, "No such file", "a")) == "No such file"
    assert files.reason(EOFError()) == "EOFError"
