import zipfile

import pytest

from recscale import interactions
from recscale.errors import InputError

COLUMNS = ["user", "item", "rating", "timestamp"]


def test_the_formats_of_the_sources_give_one_table(tmp_path):
    titles = 'u\ti\tr\tt\np_1\tIt\'s "A", B\t5\t100\np_2\tC::D\t3.5\t99\n'
    (tmp_path / "a.inter").write_text(titles)
    tsv = {"format": {"separator": "\t", "header": True, "columns": COLUMNS}}
    frame = interactions.read(tmp_path / "a.inter", tsv | {"strip_user_prefix": "p_"})
    assert frame.rows() == [("1", 'It\'s "A", B', 5.0, 100), ("2", "C::D", 3.5, 99)]
    (tmp_path / "b.dat").write_text("1::9::5::100\n2::7::3::99\n")
    dat = {"format": {"separator": "::", "columns": COLUMNS}}
    assert interactions.read(tmp_path / "b.dat", dat).rows() == [
        ("1", "9", 5.0, 100),
        ("2", "7", 3.0, 99),
    ]


def test_members_are_read_one_after_the_other(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", "1::9::5::100\n")
        archive.writestr("y", "2::7::3::99\n")
    source = {"format": {"separator": "::", "columns": COLUMNS}, "members": ["y", "x"]}
    assert interactions.read(tmp_path / "a.zip", source)["user"].to_list() == ["2", "1"]


@pytest.mark.parametrize(
    ("content", "members"),
    [
        (b"<html>not found</html>", ["ratings.dat"]),
        (b"PK\x03\x04 cut off", ["ratings.dat"]),
        (b"1::9::five::100\n", []),
        (b"", []),
    ],
)
def test_what_is_not_a_log_is_named_in_one_line(tmp_path, content, members):
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    source = {"format": {"separator": "::", "columns": COLUMNS}, "members": members}
    with pytest.raises(InputError, match=r"a\.zip.*: is not a readable interaction log") as caught:
        interactions.read(path, source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "row", ["::7::3::99", "2::::3::99", "2::7::3::", "", "2::7::3::1.5", "2::7::3::nan", "2::7::3::inf"]
)
def test_rows_without_a_place_in_a_sequence_are_counted_and_refused(tmp_path, row):
    path = tmp_path / "r.dat"
    path.write_text(f"1::9::5::100\n{row}\n3::9::5::100\n")
    with pytest.raises(InputError, match=r"r\.dat: 1 of 3 rows lack .*the first is row 2"):
        interactions.read(path, {"format": {"separator": "::", "columns": COLUMNS}})


def test_a_missing_member_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", "1::9::5::100\n")
    source = {"format": {"separator": "::", "columns": COLUMNS}, "members": ["ratings.dat"]}
    with pytest.raises(InputError, match=r"a\.zip: ratings\.dat: "):
        interactions.read(tmp_path / "a.zip", source)
