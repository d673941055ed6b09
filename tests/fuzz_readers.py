"""Feed spoiled logs to the readers for some minutes: no crash, no hang, no row lost.

    python tests/fuzz_readers.py MINUTES [SEED]

Takes sound logs in every format, plain, gzip and zip, changes some bytes or words, and reads each twice, in
blocks of different sizes: both must give the same rows, counts must add up, or one line must say what is
wrong. For text without quotes the number of rows is that of the lines. A case that fails is printed and
kept. A case may take a minute.
"""

import gzip
import random
import re
import signal
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).parent / "data"))
from test_interactions import COLUMNS, FORMS, NAMED, read_anything

from recscale.data import formats, interactions
from recscale.errors import InputError
from recscale.study import schema

WORDS = [
    b"\0", b"\xff", b"\xc3", b"\xe2\x82", b'"', b'""', b'"\n', b"\r", b"\r\n", b"\n", b"\n\n", b",", b",,",
    b"::", b":", b"\t", b";", b"|", b" ", b"nan", b"inf", b"-inf", b"-1", b"1e308", b"1e400", b"0x10",
    b"99999999999999999999", b"1_0", b"null", b"true", b"{", b"}", b"[", b"]", b"\\u0000", b"\\ud800", b"{}",
    b'{"who":', b"\xef\xbb\xbf", b"\xff\xfe", b"PK\x03\x04", b"\x1f\x8b", b"PAR1", b"<html>", b"\xe2\x80\xa8",
    b"\x85", b"\x0b", b"\x1c", b"1500000000000", b"2017-07-14", b"2017-13-45", b"A" * 5000, b"," * 3000,
    b"\n" * 500, b"sep=;\n", b"# ", b"%", b"\\N", b"NULL", b"20210105", b"1612000000", b"2021-01-05 07",
    b"BZh9", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd",
    b'\\"', b".0", b" 5 ", b"NaN", b'[{"id": 1}, {"id": 2}]', b"4,5",
]  # fmt: skip


def sound(rng: random.Random, form: dict, folder: Path) -> bytes:
    """A log in the format, of up to 40 rows."""
    rows = [
        (f"u{rng.randrange(9)}", f"i{rng.randrange(30)}", rng.randrange(1, 6), rng.randrange(10**9))
        for _ in range(rng.randrange(1, 41))
    ]
    kind = form.get("kind", "text")
    if kind == "parquet":
        frame = pl.DataFrame([(u, i, t) for u, i, _, t in rows], schema=["who", "what", "when"], orient="row")
        frame.write_parquet(folder / "sound")
        return (folder / "sound").read_bytes()
    if kind == "jsonl":
        nested = "[]" in form["columns"]["item"]
        what = [f'[{{"id": "{i}"}}, {{"id": 7}}]' if nested else f'"{i}"' for _, i, _, _ in rows]
        lines = [
            f'{{"who": "{u}", "what": {i}, "when": {t}, "more": [1]}}'
            for (u, _, _, t), i in zip(rows, what, strict=True)
        ]
    elif kind == "sequences":
        behind = form.get("time_separator")
        gap = form.get("separator", " ")
        lines = [gap.join([u, *(f"{i}{behind}{t}" if behind else i for _ in "ab")]) for u, i, _, t in rows]
        if not behind and rng.random() < 0.3:
            return (
                "{" + ", ".join(f'"{u}{n}": ["{i}", 5]' for n, (u, i, _, _) in enumerate(rows)) + "}"
            ).encode()
    else:
        separator, columns = form.get("separator", ","), form["columns"]
        names = list(columns.values()) if isinstance(columns, dict) else columns
        day = (
            "2017-07-14" if form.get("time_unit") == "iso" else "20170714" if "time_format" in form else None
        )
        fields = dict(zip(NAMED.values(), NAMED, strict=True))
        lines = [separator.join(names)] if form.get("header") else []
        for u, i, r, t in rows:
            row = {"user": u, "item": i, "rating": str(r), "timestamp": day or str(t)}
            lines.append(separator.join(row[fields.get(name, name)] for name in names))
    return "\n".join(lines).encode() + b"\n" * rng.randrange(2)


def spoiled(rng: random.Random, content: bytes) -> bytes:
    """A few cuts, copies, changed bytes and words."""
    changed = bytearray(content)
    for _ in range(rng.choice([0, 1, 1, 2, 3, 8])):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(6):
            case 0:
                del changed[at : at + rng.randrange(1, 20)]
            case 1:
                changed[at:at] = changed[at : at + rng.randrange(1, 60)] * rng.randrange(1, 4)
            case 2 if at < len(changed):
                changed[at] = rng.randrange(256)
            case 3:
                del changed[at:]
            case _:
                changed[at:at] = rng.choice(WORDS)
    return bytes(changed)


def check(path: Path, form: dict, rng: random.Random) -> None:
    """Raise AssertionError unless it is read the same in all blocks, and no line is lost."""
    small, large = read_anything(path, form, rng.randrange(1, 200)), read_anything(path, form, 2**22)
    if isinstance(large, str) or isinstance(small, str):
        assert isinstance(large, str), f"{small} in small blocks only"
        assert isinstance(small, str), f"{large} in one block only"
        assert "\n" not in large
        assert re.match(f"{re.escape(str(path))}|x: ", large)
        return
    assert small[0].equals(large[0])
    assert small[1] == large[1]
    if form.get("kind", "text") == "text":
        content = path.read_bytes()
        lines_are_rows = not {"list_separator", "comment"} & set(form) and not content.startswith(b"sep=")
        if content[:2] != b"\x1f\x8b" and b'"' not in content and lines_are_rows:
            ends = content.count(b"\n") + 1
            blank = sum(not re.sub(rb"[,;:\t\r]|^\xef\xbb\xbf", b"", line) for line in content.split(b"\n"))
            wide = sum(line.count(b",") > 3 or line.count(b"\t") > 3 for line in content.split(b"\n"))
            assert ends - blank - wide - bool(form.get("header")) <= large[1] <= ends


def quiet(line: str) -> None:
    """Says nothing."""


def guessed(path: Path) -> None:
    """A guess is legal, or one line."""
    try:
        form = formats.guess(path, None)
        interactions.log("x", [path], {"name": "x", "format": form, "files": [{"file": "x"}]}, quiet)
    except InputError as error:
        assert "\n" not in str(error)
        return
    schema.check(
        {"x": {"sources": [{"name": "a", "format": form, "files": [{"file": "log"}]}]}}, "datasets", "d"
    )


def main() -> None:
    minutes, seed = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    rng, done, end = random.Random(seed), 0, time.monotonic() + 60 * minutes
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("a minute")))
    assert COLUMNS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        while time.monotonic() < end:
            form = rng.choice(FORMS)
            content = spoiled(rng, sound(rng, form, folder))
            if rng.random() < 0.1:
                content = spoiled(rng, gzip.compress(content))
            path = folder / "log"
            path.write_bytes(content)
            signal.alarm(60)
            try:
                check(path, form, rng)
                guessed(path)
                if rng.random() < 0.05:
                    with zipfile.ZipFile(folder / "log.zip", "w", rng.choice([0, 8])) as archive:
                        archive.writestr("log", content)
                    (folder / "log.zip").write_bytes(spoiled(rng, (folder / "log.zip").read_bytes()))
                    source = {"name": "x", "format": form, "files": [{"file": "z", "members": ["log"]}]}
                    try:
                        list(interactions.log("x", [folder / "log.zip"], source, quiet).chunks())
                    except InputError as error:
                        assert "\n" not in str(error)
            except BaseException:
                kept = Path(tempfile.gettempdir()) / f"fuzz-{seed}-{done}"
                kept.write_bytes(content)
                print(
                    f"case {done} of seed {seed} fails with {form}: {content[:300]!r}; kept as {kept}",
                    flush=True,
                )
                raise
            signal.alarm(0)
            done += 1
    print(f"{done:,} cases in {minutes:g} minutes, none failed")


if __name__ == "__main__":
    main()
