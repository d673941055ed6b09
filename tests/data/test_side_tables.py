"""Tables beside a log: domains and keys, from the file as a user has it."""

import json
import zipfile

import polars as pl
import pytest

from conftest import prepare
from recscale.data import interactions, side_tables
from recscale.data.fetch import check_record, fetch
from recscale.errors import InputError

TEXT = {"separator": "::", "columns": ["item", "title", "domain"]}


def table(folder, content, column="item", **entry):
    path = folder / "table"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return side_tables.read(path, {"file": "table", "format": TEXT} | entry, column)


def test_the_first_of_several_genres_is_the_domain(tmp_path):
    found = table(
        tmp_path, "1::Toy Story (1995)::Animation|Children's|Comedy\n2::Heat::Action\n3::X::\n", first_of="|"
    )
    assert found.rows() == [("1", None, "Animation"), ("2", None, "Action"), ("3", None, None)]


def test_text_that_is_no_utf_8_is_latin_1(tmp_path):
    assert table(tmp_path, "1::Misérables, Les::Drama\n".encode("latin-1"))["domain"].to_list() == ["Drama"]


@pytest.mark.parametrize("character", ["\x85", "\x0b", "\u2028"])
def test_a_row_ends_with_its_line_and_not_with_a_character_of_a_title(tmp_path, character):
    found = table(tmp_path, f"1::A{character}B::Drama\r\n2::C::Action\r\n")
    assert found.rows() == [("1", None, "Drama"), ("2", None, "Action")]


def test_columns_by_header_quotes_and_keys(tmp_path):
    form = {"header": True, "columns": ["key", "item", "domain"]}
    assert table(tmp_path, 'k,i,d\n"B,1",7,Books\n', format=form).rows() == [("7", "B,1", "Books")]


def test_json_of_keys_and_of_keys_with_domains(tmp_path):
    users = table(tmp_path, '{"A1": 0, "A2": 1}', "user", format={"kind": "json"})
    assert users.rows() == [("0", "A1", None), ("1", "A2", None)]
    items = table(
        tmp_path, '{"B1": [1, 0], "B2": [2, 1]}', format={"kind": "json"}, domains=["Food", "Kitchen"]
    )
    assert items.rows() == [("1", "B1", "Food"), ("2", "B2", "Kitchen")]


@pytest.mark.parametrize(
    ("content", "entry", "message"),
    [
        ("1::a\n", {}, "a row has 2 fields, not 3"),
        ("1::a::b\n1::c::d\n", {}, "has the item '1' more than once"),
        ("", {}, "has no items"),
        ("[]", {"format": {"kind": "json"}}, "is no table of items"),
        ('{"B1": [1, 2]}', {"format": {"kind": "json"}, "domains": ["Food"]}, "list index out of range"),
        ('{"B1": [1, 0]}', {"format": {"kind": "json"}}, "is no table of items as its entry says: 'domains'"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path, content, entry, message):
    with pytest.raises(InputError, match=message) as caught:
        table(tmp_path, content, **entry)
    assert str(caught.value).startswith(str(tmp_path / "table"))
    assert "\n" not in str(caught.value)


@pytest.fixture
def two_pairs(tmp_path):
    """Two logs with numbers of their own for users and items, as ABXI has them; user A is in both."""
    raw, files = tmp_path / "raw", []
    raw.mkdir()
    one = {"F1": [1, 0], "F2": [2, 0], "K1": [3, 1]}, {"A": 0, "B": 1}
    two = {"S1": [1, 0], "E1": [2, 1]}, {"A": 7}
    for name, log, (items, users), domains in (
        ("one", "0 1|5 2|6 3|9\n1 2|1 1|2 3|3\n", one, ["Food", "Kitchen"]),
        ("two", "7 1|7 2|8\n", two, ["Beauty", "Electronics"]),
    ):
        for kind, content in (("log", log), ("items", json.dumps(items)), ("users", json.dumps(users))):
            (raw / f"{name}.{kind}").write_text(content)
        file, form = {"file": f"{name}.log"}, {"kind": "json"}
        file["items"] = {"file": f"{name}.items", "format": form, "domains": domains}
        file["users"] = {"file": f"{name}.users", "format": form}
        files.append(file)
    form = {"kind": "sequences", "time_separator": "|"}
    return raw, {"sources": [{"name": "s", "format": form, "files": files}]}


def log_of_source(raw, entry):
    record = fetch("x", entry, raw, print)
    (source,) = entry["sources"]
    return interactions.log("x", check_record(record, source, raw / "source.json"), source, print)


def test_users_of_two_logs_become_one_by_their_keys(two_pairs):
    sequences, items, _ = prepare(log_of_source(*two_pairs))
    keys = dict(items.select("id", "item").rows())
    histories = {user: [keys[i] for i in row] for user, row in sequences.select("user", "items").rows()}
    assert histories == {"A": ["F1", "F2", "S1", "E1", "K1"], "B": ["F2", "F1", "K1"]}
    domains = {"F1": "Food", "F2": "Food", "K1": "Kitchen", "S1": "Beauty", "E1": "Electronics"}
    assert dict(items.select("item", "domain").rows()) == domains


def test_an_item_that_its_table_has_not_is_one_line(two_pairs):
    raw, entry = two_pairs
    (raw / "one.log").write_text("0 1|5 2|6 9|9\n")
    with pytest.raises(InputError, match=r"one\.log: has the item '9', which its table has not"):
        prepare(log_of_source(raw, entry))


def test_a_table_is_a_file_of_its_source(two_pairs):
    raw, entry = two_pairs
    (raw / "two.users").unlink()
    with pytest.raises(InputError, match=r"put there by hand: .*two\.users"):
        fetch("x", entry, raw, print)
    (raw / "two.users").write_text('{"A": 7}')
    entry["sources"][0]["files"][1]["users"]["sha256"] = "0" * 64
    with pytest.raises(InputError, match=r"two\.users: sha256 is"):
        fetch("x", entry, raw, print)


def test_log_and_table_of_one_archive_as_grouplens_packs_them(tmp_path):
    films = "1::Toy Story (1995)::Animation|Comedy\n2::Les Misérables (1995)::Drama\n3::Heat (1995)::Action\n"
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
        archive.writestr("ml/ratings.dat", "u::1::5::1\nu::2::4::2\nu::3::3::3\nu::4::3::4\n")
        archive.writestr("ml/movies.dat", films.encode("latin-1"))
    file = {"file": "ml.zip", "members": ["ml/ratings.dat"]}
    file["items"] = {"file": "ml.zip", "member": "ml/movies.dat", "format": TEXT, "first_of": "|"}
    form = {"separator": "::", "columns": ["user", "item", "rating", "timestamp"]}
    entry = {"sources": [{"name": "s", "format": form, "files": [file]}]}
    assert [f["path"] for f in fetch("x", entry, tmp_path, print)["files"]] == [str(tmp_path / "ml.zip")]
    _, items, _ = prepare(log_of_source(tmp_path, entry))
    assert items["domain"].to_list() == ["Animation", "Drama", "Action", None]


def test_domains_of_ml_1m_are_first_genres(ml_1m):
    _, items, _ = ml_1m
    domain = dict(items.select("item", "domain").rows())
    assert items["domain"].null_count() == 0
    assert items["domain"].n_unique() == 18
    assert domain["Toy Story (1995)"] == "Animation"
    assert domain["Heat (1995)"] == "Action"
    assert items.schema["domain"] == pl.String
