"""A DeepSpeed file is read strictly: whatever would be ignored or crash later is one line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import idlm_ds
from idlm_ds.engine.config import read_engine_json
from idlm_ds.engine.json_check import LARGEST
from idlm_ds.engine.json_fields import FIELDS
from idlm_ds.engine.json_values import Flag, Ours, Rejected, Whole, Word, Works
from idlm_ds.errors import UserError

ROOT = Path(idlm_ds.__file__).parents[1]
NEVER = [None, "auto", "", "1", "true", [], [1], {}, {"enabled": True}, -1, 0.5, 1e300, "\ud800"]
"""Values that no field takes."""

NOT = {Flag: [0, 1, "True"], Whole: [True, False, 10**30, -(10**400)], Word: [True, 0, "fp64"]}
"""Values that no field of a kind takes."""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(fields: Any) -> str:
    """The line that a file is refused with, without its path."""
    path = Path("zero.json")
    path.write_bytes(fields if isinstance(fields, bytes) else json.dumps(fields).encode())
    with pytest.raises(UserError) as error:
        read_engine_json(path)
    line = str(error.value)
    assert line.isprintable()
    assert len(f"error: {line}") <= 200
    assert line.startswith(f"--config {path}: ")
    return line.removeprefix(f"--config {path}: ")


def setting(dotted: str, value: Any, *, stage: int | None = None) -> dict[str, Any]:
    """The least file that sets one field."""
    row = FIELDS[dotted]
    stages = row.stages if isinstance(row, Works) else (3,)
    fields: dict[str, Any] = {"zero_optimization": {"stage": stage or stages[-1]}}
    *sections, name = dotted.split(".")
    place = fields
    for section in sections:
        place = place.setdefault(section, {"device": "cpu"} if "offload" in section else {})
    place[name] = value
    return fields


def good(row: Works) -> Any:
    match row.value:
        case Flag():
            return True
        case Word(words):
            return words[0]
        case Whole(least, multiple):
            return max(least, 1) * multiple
    raise AssertionError(row)


WORKS = [name for name, row in FIELDS.items() if isinstance(row, Works)]


@pytest.mark.parametrize("name", WORKS)
def test_a_field_that_works_is_handed_on(name: str, tmp_path: Path):
    row = FIELDS[name]
    assert isinstance(row, Works)
    for stage in row.stages:
        value = stage if name == "zero_optimization.stage" else good(row)
        path = tmp_path / "zero.json"
        path.write_text(json.dumps(setting(name, value, stage=stage)))
        place: Any = read_engine_json(path).fields
        for part in name.split("."):
            place = place[part]
        assert place == value
        assert type(place) is type(value)


@pytest.mark.parametrize("name", WORKS)
def test_a_field_that_works_takes_no_other_value(name: str):
    row = FIELDS[name]
    assert isinstance(row, Works)
    for value in [*NEVER, *NOT[type(row.value)]]:
        message = refusal(setting(name, value))
        is_stage = name == "zero_optimization.stage"
        expected = f"{name} is " if is_stage else f"{name}: must be {row.value.rule}, got "
        assert message.startswith(expected), (value, message)


@pytest.mark.parametrize("name", [name for name in WORKS if len(FIELDS[name].stages) < 3])  # type: ignore[union-attr]
def test_a_field_is_refused_where_it_does_nothing(name: str):
    row = FIELDS[name]
    assert isinstance(row, Works)
    for stage in {1, 2, 3} - set(row.stages):
        message = refusal(setting(name, good(row), stage=stage))
        assert "does something at stage " in message
        assert message.endswith(f" only, and this is {stage}")


@pytest.mark.parametrize("name", [n for n, row in FIELDS.items() if isinstance(row, Rejected)])
def test_a_refused_field_is_one_line_with_the_reason(name: str):
    row = FIELDS[name]
    assert isinstance(row, Rejected)
    for value in [False, {"enabled": False}, 1]:
        assert refusal(setting(name, value)) == f"{name}: {row.reason}"


def test_what_the_recipe_decides_is_read_and_compared_later(tmp_path: Path):
    for name in [n for n, row in FIELDS.items() if isinstance(row, Ours)]:
        path = tmp_path / "zero.json"
        path.write_text(json.dumps(setting(name, "auto")))
        assert read_engine_json(path).fields[name] == "auto"


ZERO_3 = {"zero_optimization": {"stage": 3}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**ZERO_3, "data_types": {"grad_acum_dtype": "fp32"}},
         "data_types.grad_acum_dtype: unknown field; did you mean grad_accum_dtype?"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"devise": "cpu"}}},
         "zero_optimization.offload_param.devise: unknown field; did you mean device?"),
        ({"zero_optimization": {"stage": 3, "offload_param": "cpu"}},
         "zero_optimization.offload_param: must be an object of fields, got 'cpu'"),
        ({"zero_optimization": {"stage": 3, "offload_param": {}}},
         "zero_optimization.offload_param.device: is missing; write cpu, or leave out "
         "offload_param"),
        ({**ZERO_3, "data_types": None}, "data_types: must be an object of fields, got None"),
        ({**ZERO_3, "flops_profiler": {"enabeld": True}},
         "flops_profiler: counts torch's functions only; metrics.jsonl has MFU"),
        ({"zero_optimization": {"stage": 3, "prefetch_bucket_size": 5}},
         "zero_optimization.prefetch_bucket_size: write stage3_prefetch_bucket_size"),
        ({**ZERO_3, "zero optimization\n": 1}, "'zero optimization\\n': unknown field; did you "
         "mean zero_optimization?"),
        ({"zero_optimization": True}, "zero_optimization.stage is required (1, 2 or 3)"),
    ],
)  # fmt: skip
def test_mistakes_at_any_depth_are_named(fields: Any, message: str):
    assert refusal(fields) == message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"zero_optimization": {"stage": 3, "reduce_bucket_size": NaN}}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'{"a": 1e999, "zero_optimization": {"stage": 1}}', "a: unknown field"),
        (b'{"zero_optimization": {"stage": 1e999}}', "zero_optimization.stage is inf; allowed"),
        (b'{"zero_optimization": {"stage": ' + b"9" * 5000 + b"}}", "not readable as JSON: "),
        (b"\xef\xbb\xbf{}", "not readable as JSON: Unexpected UTF-8 BOM"),
        (b"\xff\xfe{\x00}\x00", "not readable as JSON: 'utf-8' codec"),
        (b"[" * 100_000, "not readable as JSON: nested too deeply"),
        (b'{"zero_optimization": {"stage": ' + b"[" * 900 + b"]" * 900 + b"}}", "stage is "),
        (b'{"a":' * 60_000 + b"1" + b"}" * 60_000, "not readable as JSON: nested too deeply"),
        (b"null", "expected an object, got NoneType"),
        (b'"zero3"', "expected an object, got str"),
        (b'{"a": {"b\\n": 1, "b\\n": 2}}', "not readable as JSON: 'b\\n' appears twice"),
        (b" " * (LARGEST + 1), "not readable as JSON: larger than"),
        (b'{"stage": 3', "not readable as JSON: "),
    ],
)
def test_what_is_no_plain_json_is_one_line(text: bytes, words: str):
    assert refusal(text).startswith(words) or words in refusal(text)


def test_a_long_or_unprintable_path_still_makes_one_line(tmp_path: Path):
    folder = tmp_path / ("x" * 100) / "new\nline\x1b[31m"
    folder.mkdir(parents=True)
    for path in (folder / "absent.json", folder):
        with pytest.raises(UserError) as error:
            read_engine_json(path)
        assert str(error.value).isprintable()
        assert len(str(error.value)) <= 193


def test_the_name_of_a_file_is_printable():
    path = Path("new\nline\x1b[31m" + "y" * 100 + ".json")
    path.write_text(json.dumps(ZERO_3))
    name = read_engine_json(path).name
    assert name.isprintable()
    assert name.endswith("yyy.json")
    assert len(name) == 60


def test_numbers_may_be_written_with_an_exponent(tmp_path: Path):
    path = tmp_path / "zero.json"
    path.write_text('{"zero_optimization": {"stage": 3.0, "reduce_bucket_size": 5e8}}')
    zero = read_engine_json(path).fields["zero_optimization"]
    assert zero == {"stage": 3, "reduce_bucket_size": 500_000_000}
    assert [type(value) for value in zero.values()] == [int, int]


def test_what_is_offloaded_nowhere_is_left_out(tmp_path: Path):
    path = tmp_path / "zero.json"
    none = {"device": "none", "pin_memory": True}
    path.write_text(
        json.dumps({"zero_optimization": {"stage": 3, "offload_param": none,
                                          "offload_optimizer": none}})
    )  # fmt: skip
    read = read_engine_json(path)
    assert read.fields == ZERO_3
    assert read.in_world(1, "fp32").stage == 1


def test_a_bad_file_is_refused_before_torch_is_imported(tmp_path: Path):
    path = tmp_path / "bad.json"
    path.write_text('{"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 8}}')
    program = (
        "import sys; sys.path.insert(0, 'launchers'); import distill\n"
        "from idlm_ds.errors import UserError\n"
        "try:\n    distill.main(['--config', sys.argv[1]])\n"
        "except UserError as error:\n    print(error)\n"
        "print(sorted({'torch', 'deepspeed', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    line, modules = done.stdout.splitlines()
    assert "zero_optimization.zero_hpz_partition_size: hpZ is not supported" in line
    assert modules == "[]"
