"""The one loader of both daemons' configurations: precedence, text and TOML, paths, and every mistake with its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BeforeValidator, Field, ValidationError

from coordinator.config.sections import load as load_coordinator
from coordinator.errors import ConfigInvalid as CoordinatorConfigInvalid
from ssd.daemon.config_loading import (
    AddressText,
    ConfigPath,
    Contradictions,
    OptionalAddressText,
    PathTable,
    Section,
    as_tuple,
    check_client_ids,
    load,
)
from ssd.daemon.config_sources import ConfigError, find_line, parse_text
from worker.config.sections import load as load_worker
from worker.errors import ConfigInvalid as WorkerConfigInvalid


class House(Section):
    """`[house]`."""

    name: str = "home"
    """Its name."""
    colour: Literal["red", "blue"] = "red"
    """One of two."""
    floors: Annotated[int, Field(ge=1)] = 2
    """How many."""
    height: float = 2.5
    """Metres."""
    people: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    """Who lives there."""
    plan: ConfigPath = Path("plans/house.pdf")
    """A file."""
    deed: ConfigPath | None = None
    """Another one."""
    rooms: PathTable = Field(default_factory=dict)
    """Name -> picture."""


class GardenShed(Section):
    """`[garden_shed]`, a table of two words."""

    door: OptionalAddressText = ""
    """Where one goes in."""
    gate: AddressText = "localhost:1"
    """Another way."""
    tools: int = 3
    """How many."""


class Estate(Section):
    """The whole tree."""

    house: House = House()
    garden_shed: GardenShed = GardenShed()
    pictures: PathTable = Field(default_factory=dict)


def contradictions(estate: Estate) -> Iterator[tuple[tuple[tuple[str, ...], ...], str]]:
    if estate.house.floors < len(estate.house.people):
        yield (("house", "floors"), ("house", "people")), "everybody wants a floor"


def made(path: Path | None = None, environ: Mapping[str, str] | None = None, /, **flags: Any) -> Estate:
    """The estate with `table__key` flags."""
    dotted = {key.replace("__", "."): value for key, value in flags.items()}
    return load(Estate, path, dotted, environ or {}, contradictions)


def mistakes(path: Path, text: str, environ: Mapping[str, str] | None = None, **flags: Any) -> list[str]:
    """What is said about a file, one mistake a line, without the folder."""
    file = path / "c.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        made(file, environ, **flags)
    return str(caught.value).replace(f"{path}/", "").splitlines()


class TestPrecedence:
    def test_flag_over_environment_over_file_over_default(self, tmp_path: Path) -> None:
        file = tmp_path / "c.toml"
        file.write_text("[house]\nname = 'file'\nfloors = 5\ncolour = 'blue'\n")
        environ = {"SSD_HOUSE_NAME": "env", "SSD_HOUSE_FLOORS": "6"}
        house = made(file, environ, house__name="flag").house
        assert (house.name, house.floors, house.colour, house.height) == ("flag", 6, "blue", 2.5)

    def test_a_flag_without_a_value_was_not_given(self, tmp_path: Path) -> None:
        file = tmp_path / "c.toml"
        file.write_text("[house]\nname = 'file'\n")
        assert made(file, house__name=None).house.name == "file"

    def test_a_table_of_two_words_is_found_in_the_environment(self) -> None:
        environ = {
            "SSD_GARDEN_SHED_TOOLS": "7",
            "SSD_GARDEN_SHED": "x",
            "SSD_GARDEN_": "x",
            "SSD_HOUSE_": "x",
        }
        assert made(None, environ).garden_shed.tools == 7

    def test_variables_of_other_programs_are_left_alone(self) -> None:
        assert (
            made(None, {"SSD_CAR_COLOUR": "x", "SSD": "1", "HOUSE_NAME": "x", "SSD_HOUSE": "x"}) == Estate()
        )

    def test_the_process_environment_is_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSD_HOUSE_FLOORS", "9")
        assert load(Estate, None, None, None, contradictions).house.floors == 9

    def test_a_misspelt_variable_is_a_mistake(self) -> None:
        with pytest.raises(
            ConfigError, match=r"SSD_HOUSE_FLOOR: \[house\] floor: unknown key; did you mean floors\?"
        ):
            made(None, {"SSD_HOUSE_FLOOR": "3"})

    @pytest.mark.parametrize("key", ["floors", "", "house.", ".floors"])
    def test_a_flag_needs_a_table_and_a_key(self, key: str) -> None:
        with pytest.raises(ConfigError, match=r"write table\.key"):
            load(Estate, None, {key: "1"}, {}, contradictions)


class TestText:
    def test_text_stays_text_and_the_rest_is_toml(self) -> None:
        environ = {
            "SSD_HOUSE_NAME": "2",
            "SSD_HOUSE_PLAN": "7",
            "SSD_HOUSE_DEED": "8",
            "SSD_HOUSE_PEOPLE": '["b", "a"]',
            "SSD_HOUSE_HEIGHT": "7",
            "SSD_HOUSE_COLOUR": "blue",
        }
        house = made(None, environ).house
        assert (house.name, house.plan, house.deed) == ("2", Path("7"), Path("8"))
        assert (house.people, house.height, house.colour) == (("b", "a"), 7.0, "blue")

    @pytest.mark.parametrize("text", ['"two words"', "'two words'"])
    def test_quoted_text_loses_its_quotes_in_a_flag_and_in_the_environment(self, text: str) -> None:
        assert made(house__name=text).house.name == "two words"
        assert made(None, {"SSD_HOUSE_NAME": text}).house.name == "two words"
        assert made(house__plan=text).house.plan == Path("two words")

    def test_what_only_begins_with_a_quote_is_taken_as_it_stands(self) -> None:
        assert made(house__name='"half').house.name == '"half'

    @pytest.mark.parametrize(
        ("text", "is_text", "value"),
        [
            ("8", False, 8),
            ("8", True, "8"),
            ("true", False, True),
            ("elastic", False, "elastic"),
            ('"8"', True, "8"),
            ("[1, 2]", False, [1, 2]),
            ("1\nother = 2", False, "1\nother = 2"),
            ("", False, ""),
        ],
    )
    def test_parse_text(self, text: str, is_text: bool, value: object) -> None:
        assert parse_text(text, is_text) == value


class TestPaths:
    def test_a_relative_path_begins_at_the_folder_of_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "site" / "c.toml"
        file.parent.mkdir()
        file.write_text(
            "[house]\ndeed = 'deed.pdf'\n[house.rooms]\nhall = 'hall.png'\nattic = '/a.png'\n[pictures]\np = '../p.png'\n"
        )
        estate = made(file)
        assert estate.house.deed == file.parent / "deed.pdf"
        assert estate.house.plan == file.parent / "plans" / "house.pdf", "a default is no exception"
        assert estate.house.rooms == {"hall": file.parent / "hall.png", "attic": Path("/a.png")}
        assert estate.pictures == {"p": file.parent / "../p.png"}

    def test_one_of_a_flag_or_a_variable_begins_at_the_working_directory(self, tmp_path: Path) -> None:
        file = tmp_path / "c.toml"
        file.write_text("[house]\ndeed = 'deed.pdf'\nplan = 'p'\n[house.rooms]\nhall = 'hall.png'\n")
        house = made(
            file, {"SSD_HOUSE_DEED": "mine.pdf"}, house__plan="q", house__rooms__attic="attic.png"
        ).house
        assert (house.deed, house.plan) == (Path("mine.pdf"), Path("q"))
        assert house.rooms == {"hall": tmp_path / "hall.png", "attic": Path("attic.png")}

    def test_without_a_file_all_begin_there(self) -> None:
        assert made().house.plan == Path("plans/house.pdf")

    def test_a_file_in_the_working_directory_changes_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "c.toml").write_text("[house]\ndeed = 'deed.pdf'\n")
        monkeypatch.chdir(tmp_path)
        assert made(Path("c.toml")).house.deed == Path("deed.pdf")

    def test_a_tilde_is_the_home_directory_wherever_it_stands(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", "/home/me")
        file = tmp_path / "c.toml"
        file.write_text("[house]\ndeed = '~/deed.pdf'\n[house.rooms]\nhall = '~/hall.png'\n")
        house = made(file, {"SSD_HOUSE_PLAN": "~/plan.pdf"}).house
        assert (house.deed, house.plan) == (Path("/home/me/deed.pdf"), Path("/home/me/plan.pdf"))
        assert house.rooms == {"hall": Path("/home/me/hall.png")}

    def test_what_was_left_out_goes_on_counting_as_left_out(self, tmp_path: Path) -> None:
        file = tmp_path / "c.toml"
        file.write_text("[house]\nfloors = 3\n")
        fields = made(file).house.model_fields_set
        assert "floors" in fields
        assert "name" not in fields


class TestMistakes:
    def test_all_of_them_at_once_each_with_its_place(self, tmp_path: Path) -> None:
        text = """
[house]
nmae = "x"
floors = "10"
tools = 1
height = inf
people = ["a", 3]
[gardn_shed]
tools = 1
[house.rooms]
hall = 3
"""
        found = mistakes(tmp_path, text, {"SSD_HOUSE_COLOUR": "loud"}, garden_shed__tools="many")
        assert sorted(found) == sorted(
            [
                "c.toml:3: [house] nmae: unknown key; did you mean name?",
                "c.toml:4: [house] floors: must be a valid integer, not '10'",
                "c.toml:5: [house] tools: unknown key; it belongs into [garden_shed]",
                "c.toml:7: [house] people.1: must be a valid string, not 3",
                "c.toml:8: [gardn_shed]: unknown table; did you mean garden_shed?",
                "c.toml:11: [house] rooms.hall: must be a path in quotes, not 3",
                "SSD_HOUSE_COLOUR: [house] colour: must be 'red' or 'blue', not 'loud'",
                "flag garden_shed.tools: [garden_shed] tools: must be a valid integer, not 'many'",
            ]
        )

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("house = 3", "[house]: must be a table"),
            ("pictures = 3", "[pictures]: "),
            ("[house]\nfloors = 0", "must be greater than or equal to 1, not 0"),
            ("[house]\nfloors = true", "must be a valid integer, not True"),
            ("[house]\nfloors = 1.5", "must be a valid integer, not 1.5"),
            ("[house]\nplan = ''", "must be a path, not ''"),
            ("[garden_shed]\ndoor = '7443'", "'7443' is no address"),
            ("[garden_shed]\ngate = ''", "'' is no address"),
            ("[garden_shed]\nzzz = 3", "unknown key; valid are door, gate, tools"),
        ],
    )
    def test_values(self, tmp_path: Path, text: str, said: str) -> None:
        (found,) = mistakes(tmp_path, text)
        assert said in found

    @pytest.mark.parametrize(
        ("written", "said"),
        [
            ("'a,b'", """must be a valid array, not 'a,b': write ["a", "b"]"""),
            ("'a'", """must be a valid array, not 'a': write ["a"]"""),
            ("'[a, b]'", """must be a valid array, not '[a, b]': write ["a", "b"]"""),
            ("'7, 8.5'", """must be a valid array, not '7, 8.5': write [7, 8.5]"""),
            ("''", "must be a valid array, not ''"),
            ("'a,,b'", "must be a valid array, not 'a,,b'"),
            ("3", "must be a valid array, not 3"),
        ],
    )
    def test_an_array_that_was_written_as_a_text_is_shown_as_one(
        self, tmp_path: Path, written: str, said: str
    ) -> None:
        assert mistakes(tmp_path, f"[house]\npeople = {written}\n") == [f"c.toml:2: [house] people: {said}"]

    def test_a_contradiction_is_told_in_the_same_breath(self, tmp_path: Path) -> None:
        found = mistakes(tmp_path, "[house]\nfloors = 1\npeople = ['a', 'b']\nname = 3\n")
        assert found == [
            "c.toml:4: [house] name: must be a valid string, not 3",
            "c.toml:2: [house] floors: everybody wants a floor",
        ]

    def test_a_consequence_of_another_mistake_is_not(self, tmp_path: Path) -> None:
        (found,) = mistakes(tmp_path, "[house]\nfloors = 0\npeople = ['a', 'b', 'c']\n")
        assert "greater than" in found

    @pytest.mark.parametrize("line_end", ["\n", "\r\n"])
    def test_a_byte_order_mark_and_an_editors_line_ends_change_nothing(
        self, tmp_path: Path, line_end: str
    ) -> None:
        plain, marked = tmp_path / "plain.toml", tmp_path / "marked.toml"
        text = "[house]\nfloors = 2\npeople = ['a']\n"
        plain.write_text(text)
        marked.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", line_end).encode())
        assert made(marked) == made(plain)
        marked.write_bytes(b"\xef\xbb\xbf" + text.replace("2", "'two'").encode())
        with pytest.raises(ConfigError, match=r"marked\.toml:2: \[house\] floors"):
            made(marked)

    def test_a_clusters_links_to_a_service_are_no_settings(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What Kubernetes gives every pod beside a service called `ssd-house`, and Docker a linked container."""
        file = tmp_path / "c.toml"
        file.write_text("[house]\nname = 'mine'\n")
        links = {
            "SSD_HOUSE_SERVICE_HOST": "10.96.13.7",
            "SSD_HOUSE_SERVICE_PORT": "7443",
            "SSD_HOUSE_SERVICE_PORT_GRPC": "7443",
            "SSD_HOUSE_PORT": "tcp://10.96.13.7:7443",
            "SSD_HOUSE_PORT_7443_TCP": "tcp://10.96.13.7:7443",
            "SSD_HOUSE_PORT_7443_TCP_PROTO": "tcp",
            "SSD_HOUSE_PORT_7443_TCP_PORT": "7443",
            "SSD_HOUSE_PORT_7443_TCP_ADDR": "fd00::7",
            "SSD_HOUSE_METRICS_PORT_53_UDP": "udp://10.0.0.1:53",
            "SSD_GARDEN_SHED_SERVICE_HOST": "10.0.0.1",
        }
        assert made(file, {**links, "SSD_HOUSE_FLOORS": "7"}).house.floors == 7
        assert "SSD_GARDEN_SHED_SERVICE_HOST and 9 others are a cluster's links" in caplog.text

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("PORT", "7443"),
            ("SERVICE_HOST", "example.org"),
            ("SERVICE_PORT", "high"),
            ("PORT_7443_TCP", "yes"),
        ],
    )
    def test_what_only_resembles_a_link_is_somebodys_mistake(
        self, tmp_path: Path, name: str, text: str
    ) -> None:
        (found,) = mistakes(tmp_path, "", {f"SSD_HOUSE_{name}": text})
        assert f"SSD_HOUSE_{name}: [house] {name.lower()}: unknown key" in found

    def test_a_missing_file_and_bad_toml(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no such file"):
            made(tmp_path / "absent.toml")
        (tmp_path / "bad.toml").write_text("[run\n")
        with pytest.raises(ConfigError, match=r"bad\.toml: not valid TOML.*line 1"):
            made(tmp_path / "bad.toml")
        (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigError, match=r"bytes\.toml: not UTF-8 \(byte 1\): save it as UTF-8"):
            made(tmp_path / "bytes.toml")
        with pytest.raises(ConfigError, match="cannot be read"):
            made(tmp_path)

    def test_lines_are_found_however_a_key_is_written(self) -> None:
        text = "a.b = 1\n[a]\nc = 1\n  [ a . d ]\n'e f' = 1\n[[g]]\nh.i = { j = 1 }\n"
        for key, line in [
            (("a", "b"), 1),
            (("a", "c"), 3),
            (("a", "d", "e f"), 5),
            (("g", "h", "i", "j"), 7),
            (("a", "zzz"), 2),
            (("nowhere", "x"), 0),
        ]:
            assert find_line(text, key) == line, key

    @pytest.mark.parametrize("ids", [("a", "a"), ("a/b",), ("",), ("x" * 129,), ("ü",)])
    def test_what_no_client_can_be_called(self, ids: tuple[str, ...]) -> None:
        with pytest.raises(ValueError, match=r"no client id|named twice"):
            check_client_ids(ids)
        check_client_ids(("a", "B.c_d-9", "x" * 128))


def test_the_tree_is_frozen() -> None:
    with pytest.raises(ValidationError):
        made().house.floors = 3  # type: ignore[misc]  # that is the point


def test_what_contradicts_nothing_is_loaded() -> None:
    def none(_: Estate) -> Contradictions:
        return ()

    assert load(Estate, None, {"house.floors": 1, "house.people": ["a", "b"]}, {}, none).house.floors == 1


@pytest.mark.parametrize(
    ("daemon", "error"), [(load_coordinator, CoordinatorConfigInvalid), (load_worker, WorkerConfigInvalid)]
)
def test_each_daemon_says_it_with_its_own_error(daemon: Any, error: type[Exception], tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[log]\nlevel = 'loud'\nfromat = 'json'\n")
    with pytest.raises(error) as caught:
        daemon(file, {}, {})
    assert len(str(caught.value).splitlines()) == 2
    assert getattr(caught.value, "exit_code") == 2  # noqa: B009  # the class is a parameter
    with pytest.raises(error, match="no such file"):
        daemon(tmp_path / "absent.toml", {}, {})
