"""Kinds of logs that people have: each read right without a word of how it is written, or refused in a line.

The right sequences are written down with each; no other reader is asked.
"""

import bz2
import io
import json
import lzma
import zipfile

import polars as pl
import pyarrow
import pytest

from recscale.data import interactions
from recscale.errors import InputError
from recscale.next_item import prepare

S = 1_612_000_000  # 2021-01-30 09:46:40


def histories(paths, dataset=None, source=None):
    """user -> items in order of time (rows of one time in their order), by a guessed format."""
    source = {"name": "x", "files": [{"file": str(path)} for path in paths]} | (source or {})
    log = interactions.log("x", paths, source, lambda line: None, dataset)
    frame = pl.concat([chunk.frame for chunk in log.chunks(1000)])
    frame = frame.sort("timestamp", maintain_order=True)
    return {user: rows["item"].to_list() for (user,), rows in frame.group_by("user", maintain_order=True)}


def rejected(paths, dataset=None):
    source = {"name": "x", "files": [{"file": str(path)} for path in paths]}
    chunks = list(interactions.log("x", paths, source, lambda line: None, dataset).chunks())
    return {reason: n for chunk in chunks for reason, n in chunk.rejected.items()}


def file(folder, content, name="log"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


RIGHT = {"1": ["a", "b", "c"], "2": ["b", "a"]}


def rows(times, head="user_id,item_id,timestamp\n", separator=","):
    """The rows of RIGHT in an order that is not theirs, with five times that rise."""
    t = times
    order = [("1", "b", t[1]), ("2", "b", t[3]), ("1", "c", t[2]), ("1", "a", t[0]), ("2", "a", t[4])]
    return head + "".join(separator.join(row) + "\n" for row in order)


STEPS = [
    # s, ms, us, ns: by size alone
    *([str((S + k) * 10**power) for k in range(5)] for power in (0, 3, 6, 9)),
    # digits that are a calendar
    [f"20210105{hour}" for hour in ("07", "08", "12", "13", "14")],
    [f"20210105070{minute}" for minute in range(5)],
    [f"202101050700{second}" for second in (10, 11, 12, 13, 14)],
    # text
    [f"2021/01/0{day} 07:06:37" for day in range(1, 6)],
    [f"2021-01-0{day}" for day in range(1, 6)],
    [f"{day}.01.2021 16:08:42" for day in (13, 14, 15, 16, 17)],
    [f"01/{day}/2021 05:46:33 AM" for day in (13, 14, 15, 16, 17)],
    [f"{day}/01/2021 16:08" for day in (13, 14, 15, 16, 17)],
    ["01/13/2021 11:00:00 AM", "01/13/2021 12:30:00 PM", *(f"01/13/2021 0{k}:00:00 PM" for k in (1, 2, 3))],
    [f"Thu Feb 04 14:39:4{k} +0000 2021" for k in range(5)],
    [f"2021-02-02 {hour}" for hour in (10, 11, 12, 20, 21)],
    [f"2021-01-30 04:02:56,{k}00" for k in range(5)],
    [f"20210120T09132{k}Z" for k in range(5)],
    [f"0{k}-Feb-2021 10:00:00" for k in range(1, 6)],
    [f"Mon, 04 Jan 2021 10:11:1{k} GMT" for k in range(5)],
]


@pytest.mark.parametrize("times", STEPS, ids=lambda times: times[0])
def test_times(tmp_path, times):
    assert histories([file(tmp_path, rows(times, "user_id\titem_id\ttime\n", "\t"))]) == RIGHT


CSV = rows(STEPS[0])
FIELDS = [line.split(",") for line in CSV.splitlines()[1:]]
SPACED = rows(STEPS[0], "", " ")
LISTS = '1,"a,b,c","5,4,5","{},{},{}"\n2,"b,a","1,2","{},{}"\n'.format(*STEPS[0])
MISSING = ("NULL", "\\N", "nan", "None", "NA", "null", "undefined", "", "NaN")
RATED = "user_id,item_id,rating,timestamp\n"


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (CSV.replace(",", ", "), "a blank behind each comma, in the header too"),
        (CSV.replace("\n1,", "\n1 ,"), "blanks around ids"),
        (CSV.replace("\n1,b", "\n1.0,b"), "whole numbers as text of a float column"),
        (rows(STEPS[0], "% bip weighted\n% 5 2 3\n", " "), "comments with %"),
        (rows(STEPS[0], "# by us\nuser_id\titem_id\ttime\n", "\t"), "comments with #"),
        ("sep=;\n" + CSV.replace(",", ";"), "a line for Excel"),
        ('"user_id"\t"item_id"\t"time"\n' + rows([f'"{t}"' for t in STEPS[0]], "", "\t"), "a quoted TSV"),
        (SPACED, "columns by blanks"),
        (SPACED.replace("\n", " \n", 1), "a trailing blank"),
        (rows([f"3 {t}" for t in STEPS[0]], "", " "), "user item rating time by blanks"),
        (rows([f"{t},0" for t in STEPS[0]], ""), "a category of one value"),
        (rows([f"2021-01-0{k}T07:00:00Z" for k in range(1, 6)], ""), "no header and no number"),
        (rows([f'4,5";"{t}' for t in STEPS[0]], 'user;item;"rating";"time"\n', ";").replace(
            '4,5"', '4,5').replace(';"1', ";1"), "a decimal comma"),
        ("index,user_id,sequence_item_ids,sequence_ratings,sequence_timestamps\n"
         + "".join(f"{k},{line}\n" for k, line in enumerate(LISTS.splitlines())), "lists in quotes"),
        ("user_id,title,item_id,time\n" + "".join(
            f'{line.split(",")[0]},"The \\"Best\\", {line.split(",")[1]}",{",".join(line.split(",")[1:])}\n'
            for line in rows(STEPS[0], "").splitlines()), "quotes behind a backslash"),
        ("user_id,user,item_id,item,timestamp\n" + "".join(
            f"{u},same,{i},same,{t}\n" for u, i, t in FIELDS), "names beside keys"),
        ("user_id,date,item_id,time_ms\n" + "".join(
            f"{u},20210105,{i},{t}000\n" for u, i, t in FIELDS), "a date beside"),
        *((RATED + rows([f"{word},{t}" for t in STEPS[0]], ""), f"rating {word!r}") for word in MISSING),
    ],
    ids=lambda value: value if len(value) < 60 and "\n" not in value else "",
)  # fmt: skip
def test_text(tmp_path, content, name):
    path = file(tmp_path, content)
    assert histories([path]) == RIGHT
    assert rejected([path]) == {}


@pytest.mark.parametrize("word", MISSING)
def test_a_missing_user_item_or_time_is_one_whatever_it_is_written_as(tmp_path, word):
    more = f"{word},a,{S}\n1,{word},{S}\n1,a,{word}\n"
    path = file(tmp_path, CSV + more)
    found = {"missing_user": 1, "missing_item": 1, "missing_timestamp": 1}
    assert histories([path]) == RIGHT
    assert rejected([path]) == found
    first = file(tmp_path, "user_id,item_id,timestamp\n" + more + CSV.partition("\n")[2])
    assert histories([first]) == RIGHT  # among those that are looked at
    assert rejected([first]) == found


@pytest.mark.parametrize(
    "content",
    [
        b"u1 i5 i7 i9\nu2 i7 i5\n",
        b"u1\ti5 i7 i9\nu2\ti7 i5\n",
        b"u1,i5,i7,i9\nu2,i7,i5\n",
        b'{"session": "u1", "item_ids": ["i5", "i7", "i9"]}\n{"session": "u2", "item_ids": ["i7", "i5"]}\n',
    ],
)
def test_what_is_in_order_and_has_no_times(tmp_path, content):
    right = {"u1": ["i5", "i7", "i9"], "u2": ["i7", "i5"]}
    assert histories([file(tmp_path, content)]) == right


def test_pairs_whose_users_stand_together_are_in_order(tmp_path):
    assert histories([file(tmp_path, "1 5\n1 7\n1 5\n2 7\n2 5\n")]) == {"1": ["5", "7", "5"], "2": ["7", "5"]}


def events(**keys):
    """RIGHT as JSON lines, with a further key and with what json.dumps writes for it."""
    t = STEPS[0]
    order = [("1", "b", t[1]), ("2", "b", t[3]), ("1", "c", t[2]), ("1", "a", t[0]), ("2", "a", t[4])]
    return "".join(json.dumps({"user_id": u, "item_id": i, "ts": int(s)} | keys) + "\n" for u, i, s in order)


def test_json_lines(tmp_path):
    for odd in (float("nan"), float("inf"), None):
        path = file(tmp_path, events(rating=odd))
        assert histories([path]) == RIGHT
        assert rejected([path]) == {}
    path = file(tmp_path, events(parent_asin="p").replace('"item_id"', '"asin"'))
    assert histories([path]) == {"1": ["p", "p", "p"], "2": ["p", "p"]}
    lines = [json.loads(line) for line in events().splitlines()]
    for line in lines:
        line["ts"] = {"$date": f"2021-01-01T00:00:{line['ts'] - S:02d}Z"}
    assert histories([file(tmp_path, "\n".join(map(json.dumps, lines)))]) == RIGHT


def sessions(items):
    return {"session": 1, "events": [{"aid": i, "ts": 1000 * S + k, "type": kind} for k, (i, kind) in items]}


def test_events_inside_of_sessions_and_a_choice_of_them(tmp_path):
    first = sessions([(2, ("b", "clicks")), (1, ("a", "clicks")), (3, ("c", "orders"))])
    path = file(tmp_path, json.dumps(first) + "\n")
    assert histories([path]) == {"1": ["a", "b", "c"]}
    assert histories([path], {"keep": {"events[].type": ["clicks"]}}) == {"1": ["a", "b"]}
    assert histories([path], {"drop": {"events[].type": ["clicks"]}}) == {"1": ["c"]}


def parquet(folder, frame, name="log"):
    frame.write_parquet(folder / name)
    return folder / name


def test_parquet(tmp_path):
    t = [S + 1, S + 3, S + 2, S, S + 4]
    keys, items = ["1", "2", "1", "1", "2"], ["b", "b", "c", "a", "a"]
    frame = pl.DataFrame({"user_id": [float(k) for k in keys], "item_id": items, "timestamp": t})
    assert histories([parquet(tmp_path, frame)]) == RIGHT
    more = pl.DataFrame({"user_id": [float("nan")], "item_id": ["a"], "timestamp": [S]})
    path = parquet(tmp_path, pl.concat([frame, more]))
    assert histories([path]) == RIGHT
    assert rejected([path]) == {"missing_user": 1}
    path = parquet(tmp_path, frame.with_columns(rating=pl.lit(float("nan"))))
    assert histories([path]) == RIGHT
    path = parquet(tmp_path, frame.with_columns(pl.col("user_id") + 2.0**53))
    with pytest.raises(InputError, match=r"user is floating point and has numbers above 2\^53"):
        histories([path])


def test_lists_in_parquet(tmp_path):
    lists = {"user": ["1", "2"], "items": [["a", "b", "c"], ["b", "a"]]}
    assert histories([parquet(tmp_path, pl.DataFrame(lists))]) == RIGHT
    times = {"timestamps": [[S, S + 1, S + 2], [S + 3, S + 4]]}
    path = parquet(tmp_path, pl.DataFrame(lists | times))
    assert histories([path]) == RIGHT
    path = parquet(tmp_path, pl.DataFrame(lists | {"timestamps": [[S, S + 1, S + 2], [S + 3]]}))
    assert histories([path]) == {"1": ["a", "b", "c"]}
    assert rejected([path]) == {"lists_of_unlike_length": 1}


def test_our_own_sequences_are_a_log(tmp_path, small_data):
    """Items are called as in sequences.parquet: by their numbers."""
    frame = pl.read_parquet(small_data / "sequences.parquet")
    right = {user: [str(i) for i in items] for user, items in frame.select("user", "items").iter_rows()}
    columns = {"user": "user", "item": "items", "timestamp": "timestamps"}
    form = {"kind": "parquet", "columns": columns, "time_unit": "s"}  # those of the small log are of 1970
    assert histories([small_data / "sequences.parquet"], source={"format": form}) == right


@pytest.mark.parametrize(
    "pack",
    [
        bz2.compress,
        lzma.compress,
        lambda content: pyarrow.compress(content, "zstd", asbytes=True),
        lambda content: zipped({"log.csv": content, "__MACOSX/._log.csv": b"x"}),
    ],
    ids=["bz2", "xz", "zst", "zip"],
)
def test_what_is_compressed(tmp_path, pack):
    path = file(tmp_path, pack(CSV.encode()))
    assert histories([path]) == RIGHT
    cut = file(tmp_path, path.read_bytes()[:-9])
    with pytest.raises(InputError, match="is not a readable interaction log"):
        histories([cut])


def zipped(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def test_a_folder_is_its_files_in_the_order_of_their_names(tmp_path):
    head, *lines = CSV.splitlines(keepends=True)
    for name, part in (("b/2", lines[2:]), ("a/1", lines[:2]), ("b/3", [])):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        file(tmp_path, head + "".join(part), name)
    for name in ("_SUCCESS", "a/.1.crc"):
        file(tmp_path, "no log", name)
    assert histories([tmp_path]) == RIGHT


def test_each_file_is_in_a_unit_of_its_own(tmp_path):
    head, *lines = CSV.splitlines(keepends=True)
    second = "".join(line.replace("\n", "000\n") for line in lines[2:])
    paths = [file(tmp_path, head + "".join(lines[:2]), "a"), file(tmp_path, head + second, "b")]
    assert histories(paths) == RIGHT
    columns = {"user": "user_id", "item": "item_id", "timestamp": "timestamp"}
    stated = {"format": {"header": True, "columns": columns}}
    stated["files"] = [{"file": str(paths[0])}, {"file": str(paths[1]), "time_unit": "ms"}]
    assert histories(paths, source=stated) == RIGHT


def test_times_of_another_unit_inside_of_a_file_are_no_rows(tmp_path):
    other = "".join(f"3,c,{1000 * (S + k)}\n" for k in range(3))
    path = file(tmp_path, CSV + other)
    assert histories([path]) == RIGHT
    assert rejected([path]) == {"timestamp_before_1970_or_after_2199": 3}
    path = file(tmp_path, CSV.replace(str(S), "5", 1))
    assert rejected([path]) == {"timestamp_outside_1990_to_tomorrow": 1}
    columns = {"user": "user_id", "item": "item_id", "timestamp": "timestamp"}
    stated = {"format": {"header": True, "columns": columns, "time_unit": "s"}}  # taken as they stand
    assert histories([path], source=stated) == RIGHT


def test_a_time_in_several_columns_and_a_format(tmp_path):
    t = [f"2021010{k},070{k}" for k in range(1, 6)]
    path = file(tmp_path, rows(t, "user_id,item_id,day,minute\n"))
    columns = {"user": "user_id", "item": "item_id", "timestamp": ["day", "minute"]}
    form = {"header": True, "columns": columns, "time_format": "%Y%m%d %H%M"}
    assert histories([path], source={"format": form}) == RIGHT
    placed = {"header": True, "columns": ["user", "item", "timestamp", "timestamp"]}
    assert histories([path], source={"format": placed | {"time_format": "%Y%m%d %H%M"}}) == RIGHT
    with pytest.raises(InputError, match=r"time_format: %m%d: has no year, month and day"):
        histories([path], source={"format": form | {"time_format": "%m%d"}})
    with pytest.raises(InputError, match="has time_unit and time_format; legal is one of them"):
        histories([path], source={"format": form | {"time_unit": "s"}})


def test_a_choice_of_rows_is_counted(tmp_path):
    text = "user_id,item_id,event,timestamp\n" + "".join(
        f"{line.rsplit(',', 1)[0]},{kind},{line.rsplit(',', 1)[1]}\n"
        for line, kind in zip(rows(STEPS[0], "").splitlines(), ["buy", "see", "1.0", "buy", ""], strict=True)
    )
    path = file(tmp_path, text)
    assert histories([path], {"keep": {"event": ["buy"]}}) == {"1": ["a", "b"]}
    assert histories([path], {"keep": {"event": [1]}}) == {"1": ["c"]}
    assert histories([path], {"drop": {"event": ["buy", "see"]}}) == {"1": ["c"], "2": ["a"]}
    source = {"name": "x", "files": [{"file": "log"}]}
    said = []
    log = interactions.log("x", [path], source, said.append, {"keep": {"event": ["buy"]}})
    (chunk,) = log.chunks()
    assert chunk.not_chosen == {"not_chosen_by_event": 3}
    assert chunk.rows == 5
    assert not any("not used" in line for line in said)
    interactions.log("x", [path], source, said.append)
    assert said[-1] == "x: columns that are not used: event"
    with pytest.raises(InputError, match=r"has no column evnt \(keep, drop\); its columns: user_id"):
        histories([path], {"keep": {"evnt": ["buy"]}})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (rows([f"2021010{k}" for k in range(1, 6)]), r"may be days: say time_format: '%Y%m%d'"),
        (rows(["0511", "0512", "0513", "0514", "0515"]), "no day from 1990 to tomorrow.*time_unit: s"),
        (rows([f"4423{k}.27" for k in range(5)]), "no day from 1990 to tomorrow"),
        (rows([f"0{k}/02/2021" for k in range(1, 6)]), "may be %m/%d/%Y or %d/%m/%Y; say which"),
        (rows(["01/01/2021"] * 5), "may be %m/%d/%Y or %d/%m/%Y; say which"),
        (rows(["noon"] * 5), "in no format that is known; say time_format"),
        (rows([""] * 5), "its first rows have no times; say time_unit: none"),
        (rows(STEPS[0], "kunde,ware,wann\n"), r'\{"user": "\?", "item": "\?", "timestamp": "\?"\}'),
        (rows(STEPS[0], "user_id,ware,wann\n"), r'"columns": \{"user": "user_id", "item": "\?"'),
        ("1 a\n2 b\n1 c\n", r'no column of times.*"columns": \["user", "item"\], "time_unit": "none"'),
        (rows([f"{t} 7 8" for t in STEPS[0]], "", " "), r'has no header and 5 columns.*"timestamp", "\?"'),
        ("user\titem\ttime\n" + rows(STEPS[0], "", "\t").replace("1\t", "9\t1\t").replace("2\tb", "9\t2\tb")
         .replace("2\ta", "9\t2\ta"), "one field more than its header"),
        (CSV.replace("\n", "\r"), "its lines end with carriage returns"),
        ("{'user': 1, 'item': 'a'}\n", "dicts of Python, not JSON; python -c"),
        ('[{"user": 1}]\n', "is a JSON array.*jq -c"),
        (b"ARROW1\0\0", "is a Feather file, which is not read; python -c"),
        (b"SQLite format 3\0", "is an SQLite database, which is not read; sqlite3"),
        (b"\x80\x04\x95", "is a Python pickle, which is not read"),
        (zipped({"[Content_Types].xml": b"", "xl/workbook.xml": b""}), "is an Excel file, which is not read"),
        (zipped({"a.csv": b"", "b.csv": b""}), r"name the files .* \(members\): a.csv, b.csv"),
    ],
)  # fmt: skip
def test_what_is_refused_shows_the_way_on(tmp_path, content, why):
    with pytest.raises(InputError, match=f"log: .*{why}") as caught:
        histories([file(tmp_path, content)])
    assert "\n" not in str(caught.value)


def test_a_header_that_is_a_row_is_noticed(tmp_path):
    form = {"header": True, "columns": ["user", "item"], "time_unit": "none"}
    for text in ("ann,x\nann,y\n", "5,x\nann,y\n", "bob,y\nann,y\n"):
        with pytest.raises(InputError, match=r"line 1 is no header: .*header: false"):
            histories([file(tmp_path, text)], source={"format": form})
    assert histories([file(tmp_path, "0,1\nann,y\n")], source={"format": form}) == {"ann": ["y"]}


def test_amazons_reviewers_and_products_are_told_apart(tmp_path):
    text = "B0012,A1X,5.0,1610324819\nB0013,A2X,4.0,1612430434\n"
    assert histories([file(tmp_path, text)]) == {"A1X": ["B0012"], "A2X": ["B0013"]}


def line(user, item, k):
    return {
        "user": {"id": user, "session": k},
        "item": {"id": item},
        "time": {"$date": {"$numberLong": S + k}},
    }


def test_objects_that_have_an_id(tmp_path):
    order = [("1", "b", 1), ("2", "b", 3), ("1", "c", 2), ("1", "a", 0), ("2", "a", 4)]
    assert histories([file(tmp_path, "\n".join(json.dumps(line(*row)) for row in order))]) == RIGHT


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (rows([f"view,{t}" for t in STEPS[0]], "").replace("1,", "u1,").replace("2,", "u2,"), "a category"),
        (rows([f"{t}," for t in STEPS[0]], ""), "a separator at the end"),
        (rows([f"{t}," for t in STEPS[0]]), "a separator at the end of the rows, not of the header"),
        (rows([f"movie,{t}" for t in STEPS[0]], ""), "a category that is the name of a column"),
        ("\n\n" + CSV, "blank lines before the header"),
        (rows([f"2021-01-05,07:00:0{k}" for k in range(5)], "user_id,item_id,date,time\n"), "day and clock"),
        (rows([f"20210105,{k:02d}" for k in range(5)], "user_id,item_id,date,hour\n"), "day and hour"),
        (rows([f"2021-01-05 07:00:0{k}+00" for k in range(5)]), "a zone as Postgres writes it"),
        (rows([f"Tue Jan 05 07:00:0{k} UTC 2021" for k in range(5)]), "a zone in the middle"),
        (rows([f'"good, but\nlong",{t}' for t in STEPS[0]], "user_id,item_id,text,timestamp\n"), "line ends"),
        ('"user_id", "item_id", "timestamp"\n' + "".join(
            f'"{u}", "{i}", {t}\n' for u, i, t in FIELDS), "blanks before quotes"),
    ],
    ids=lambda value: value if len(value) < 60 and "\n" not in value else "",
)  # fmt: skip
def test_text_that_strangers_brought(tmp_path, content, name):
    path = file(tmp_path, content)
    assert {u.removeprefix("u"): items for u, items in histories([path]).items()} == RIGHT
    assert rejected([path]) == {}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (rows(["1.60E+09"] * 5), "have lost their digits"),
        ("u1,1600000000,1400000097\nu1,1600000001,1400000098\n", "more than one column of times"),
        (rows([f"  {t}" for t in STEPS[0]], "user_id item_id  timestamp\n", " "), "aligned by blanks; tr -s"),
        ('{"user_id": [1], "item_id": ["a"], "timestamp": [1612000000]}\n', "an object of columns.*pandas"),
        ("user,item\nCaf\xe9,1\nCaf\xe9,2\n".encode("latin-1"), "not text in UTF-8 .iconv"),
        (b"\x5d\0\0\x80\0", "is an LZMA file"),
    ],
)  # fmt: skip
def test_what_strangers_brought_and_is_refused(tmp_path, content, why):
    with pytest.raises(InputError, match=f"log: .*{why}"):
        histories([file(tmp_path, content)])


def test_signs_before_keys_are_no_comments(tmp_path):
    text = f"#u1,a,{S}\n#u1,b,{S + 1}\nu2,b,{S}\n"
    assert histories([file(tmp_path, text)]) == {"#u1": ["a", "b"], "u2": ["b"]}


def test_a_column_that_is_read_may_choose_rows(tmp_path):
    path = file(tmp_path, rows([f"{k},{t}" for k, t in zip((5, 4, 5, 1, 5), STEPS[0], strict=True)], RATED))
    assert histories([path], {"drop": {"user_id": [2]}}) == {"1": ["a", "b", "c"]}
    assert histories([path], {"keep": {"rating": [5.0]}}) == {"1": ["a", "c"], "2": ["a"]}
    form = {"columns": ["user", "item", "rating", "timestamp"], "header": True}
    assert histories([path], {"drop": {"user": [2]}}, {"format": form}) == {"1": ["a", "b", "c"]}


@pytest.mark.parametrize("words", [("True", "False"), ("TRUE", "FALSE"), ("true", "false"), ("1", "0")])
def test_yes_and_no_choose_rows_however_they_are_written(tmp_path, words):
    order = [words[0], words[1], words[0], words[0], words[1]]
    lines = rows(
        [f"{word},{t}" for word, t in zip(order, STEPS[0], strict=True)], "user_id,item_id,ok,time\n"
    )
    path = file(tmp_path, lines)
    # In the order of the times: 1 a, 1 b, 1 c, 2 b, 2 a; rows stand as 1 b, 2 b, 1 c, 1 a, 2 a.
    kept = histories([path], {"keep": {"ok": [True]}})
    dropped = histories([path], {"drop": {"ok": [False]}})
    assert kept == dropped
    assert sum(map(len, kept.values())) == 3


def test_a_value_that_no_row_has_is_named(tmp_path):
    lines = "user_id,item_id,event,time\n" + "".join(f"u{k % 3},{k},view,{S + k}\n" for k in range(30))
    path = file(tmp_path, lines)
    source = {"name": "x", "files": [{"file": "log"}]}
    dataset = {"drop": {"event": ["veiw"]}}
    log = interactions.log("x", [path], source, lambda line: None, dataset)
    with pytest.raises(InputError, match=r"x: drop\.event: no row has 'veiw'; its values: view"):
        prepare.prepare(log, dataset, tmp_path / "out")


def test_parquet_that_strangers_brought(tmp_path):
    keys, items = ["1", "2", "1", "1", "2"], ["b", "b", "c", "a", "a"]
    frame = pl.DataFrame({"user_id": keys, "item_id": items, "timestamp": [S + 1, S + 3, S + 2, S, S + 4]})
    decimal = frame.with_columns(pl.col("user_id").cast(pl.Decimal(12, 2)))
    assert histories([parquet(tmp_path, decimal)]) == RIGHT
    category = frame.with_columns(pl.col("timestamp").cast(pl.String).cast(pl.Categorical))
    assert histories([parquet(tmp_path, category)]) == RIGHT
    moments = frame.with_columns(pl.from_epoch("timestamp").alias("timestamp"))
    apart = moments.select(
        "user_id", "item_id", date=pl.col("timestamp").dt.date(), time=pl.col("timestamp").dt.time()
    )
    assert histories([parquet(tmp_path, apart)]) == RIGHT
    with pytest.raises(InputError, match=r"column item_id \(item\) is a struct"):
        histories([parquet(tmp_path, frame.with_columns(item_id=pl.struct("item_id")))])
    odd = frame.with_columns(user_id=pl.Series([b"\xff"] * 5))
    with pytest.raises(InputError, match="is not a readable interaction log"):
        histories([parquet(tmp_path, odd)])


def test_the_empty_first_part_of_a_folder(tmp_path):
    file(tmp_path, b"", "part-0.csv")
    file(tmp_path, CSV, "part-1.csv")
    assert histories([tmp_path]) == RIGHT


def test_day_and_month_may_be_told_apart_in_the_file_before_alone(tmp_path):
    one = file(tmp_path, "user_id,item_id,date\n1,a,13/01/2021\n1,b,14/01/2021\n", "a")
    two = file(tmp_path, "user_id,item_id,date\n1,d,02/02/2021\n1,c,01/02/2021\n", "b")
    assert histories([one, two]) == {"1": ["a", "b", "c", "d"]}


def test_an_empty_member_that_is_named_is_refused(tmp_path):
    path = file(tmp_path, zipped({"a.csv": CSV, "b.csv": ""}), "log.zip")
    columns = {"user": "user_id", "item": "item_id", "timestamp": "timestamp"}
    source = {"format": {"header": True, "columns": columns}}
    source["files"] = [{"file": str(path), "members": ["a.csv", "b.csv"]}]
    with pytest.raises(
        InputError, match=r"b\.csv: is not a readable interaction log: it has no interactions"
    ):
        histories([path], source=source)
