"""``satlight route``: what it reads, what it prints, what it refuses."""

import io
import json
import subprocess
import sys

import pytest

from satlight.cli import main
from satlight.cli.route import candidate_names
from satlight.errors import SatlightError
from satlight.routing import Router
from satlight.types import Candidate, Request

NAMES = ["org/good-7b", "org/poor-1b", "other/odd"]


@pytest.fixture
def route(router_folder, capsys, monkeypatch):
    """Run the command; return its exit code, the lines on stdout and the text on stderr."""

    def run(*words, stdin=None, encoding="utf-8", router=None):
        if stdin is not None:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = None
        try:
            main(["route", "--router", str(router or router_folder), *map(str, words)])
        except SystemExit as error:
            code = error.code
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err

    return run


def instructions(lines):
    return [json.loads(line)["instruction"] for line in lines]


# -- input -------------------------------------------------------------------------------------------------


def test_lines_on_standard_input_are_never_json(route):
    code, lines, err = route(stdin=b'\xef\xbb\xbf{"a": 1} is what?\r\nOne\rTwo\n\n  \nLast')
    assert code is None
    assert instructions(lines) == ['{"a": 1} is what?', "One", "Two", "Last"]
    assert "--input-format jsonl" in err
    assert not sys.stdin.closed


def test_a_prompt_of_several_lines(route, tmp_path):
    code, lines, _ = route("--input-format", "text", stdin=b'{\n  "a": 1\r\n}\nWhat is it?\n')
    assert code is None
    assert instructions(lines) == ['{\n  "a": 1\n}\nWhat is it?']
    (tmp_path / "prompt.txt").write_bytes("Café?\nOui.".encode())
    code, lines, _ = route("--input-format", "text", "--file", tmp_path / "prompt.txt")
    assert instructions(lines) == ["Café?\nOui."]


def test_a_file_of_lines_and_json_on_standard_input(route, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "lines.txt").write_text("One\nTwo\n")
    assert instructions(route("--file", "~/lines.txt", "--input-format", "lines")[1]) == ["One", "Two"]
    code, lines, _ = route("--input-format", "jsonl", stdin=b'{"instruction": "One", "id": 7}\n')
    assert code is None
    assert json.loads(lines[0])["id"] == 7


BAD = [
    (b'{"instruction": "caf\xe9"}', "line 2: byte 0xe9 is not UTF-8"),
    (b'{"instruction": "a\0b"}', "line 2: a NUL byte"),
    (b'{"instruction": "\\ud800"}', "line 2: a lone surrogate"),
    (b'{"instruction": NaN}', "line 2: not valid JSON"),
    (b"[" * 3000, "line 2: not valid JSON (nested"),
    (b"{broken", "line 2: not valid JSON"),
    (b'{"text": "Hi"}', "line 2: 'instruction' must be a text that is not empty, or chat messages with one, got None"),
    (b'{"instruction": [{"role": "user"}]}', "line 2: 'instruction' must be a text"),
    (b'["Hi"]', "line 2: 'instruction' must be a text"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
@pytest.mark.parametrize("size", [1, 2, 32])
def test_a_bad_line_costs_no_good_one(route, tmp_path, bad, message, size):
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b'{"instruction": "One"}\n' + bad + b'\n{"instruction": "Three"}\r\n')
    code, lines, err = route("--file", path, "--batch-size", size)
    assert (code, instructions(lines)) == (1, ["One"])
    assert message in err
    code, lines, err = route("--file", path, "--batch-size", size, "--on-error", "skip")
    assert (code, instructions(lines)) == (1, ["One", "Three"])
    assert f"skipped: {path}, " in err
    assert message in err
    assert "1 of the lines" in err


@pytest.mark.parametrize(
    ("words", "stdin", "message"),
    [
        (["--batch-size", "0", "Hi"], None, "--batch-size is 0; it must be 1 or more"),
        (["--input-format", "text"], b"caf\xe9", "standard input, line 1: byte 0xe9 is not UTF-8"),
        (["--input-format", "text"], b" \n", "The instruction is empty"),
        (["caf\udce9"], None, "half of a character"),
        (["--candidates", "", "Hi"], None, "list of candidates to choose from is empty"),
    ],
)
def test_mistakes_are_named(route, words, stdin, message):
    code, lines, err = route(*words, stdin=stdin)
    assert (code, lines) == (1, [])
    assert message in err


# -- candidates and output ---------------------------------------------------------------------------------


def test_candidates_may_be_repeated_and_hold_commas():
    known = ["a,b", "a", "b", "c"]
    assert candidate_names(None, known) is None
    assert candidate_names(["a,b"], known) == ["a,b"]
    assert candidate_names(["a, c", "a,b", "a"], known) == ["a", "c", "a,b"]


@pytest.fixture
def odd_router(make_router, tmp_path):
    """A router whose candidates have names that terminals and rich could misread."""
    router = make_router()
    long = "org/" + "long-name-" * 12
    router.candidates = tuple(Candidate(name) for name in ("m[/bold]x", f"{long}1", f"{long}2,b"))
    router.save(tmp_path / "odd")
    return tmp_path / "odd"


def test_names_are_printed_as_they_are_and_in_full(route, odd_router):
    code, lines, err = route("--format", "table", "[bold]Hi[/bold] \x1b[31m there", router=odd_router)
    assert code is None, err
    shown = "\n".join(lines)
    assert "[bold]Hi[/bold]" in shown
    assert "\x1b[31m" not in shown
    assert "m[/bold]x" in shown
    cells = "".join(line.split("│")[2].strip() for line in lines if line.count("│") > 3)
    for name in Router.from_pretrained(odd_router).model_ids:
        assert name in cells  # folded over several lines, not cut off


def test_a_name_with_a_comma_is_chosen(route, odd_router):
    (name,) = (one for one in Router.from_pretrained(odd_router).model_ids if "," in one)
    _, lines, _ = route("--candidates", name, "--candidates", "m[/bold]x", "Hi", router=odd_router)
    assert {choice["model_id"] for choice in json.loads(lines[0])["ranking"]} == {name, "m[/bold]x"}


@pytest.mark.parametrize("style", ["table", "json"])
def test_a_terminal_that_is_not_utf8(router_folder, monkeypatch, style):
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", output)
    main(["route", "--router", str(router_folder), "--format", style, "Où est 東京?"])
    output.flush()
    text = output.buffer.getvalue().decode("ascii")
    if style == "json":
        assert json.loads(text)["instruction"] == "Où est 東京?"
    else:
        assert "O? est ??" in text


# -- Python ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["  "], "the request is empty"),
        ([["Hi", ""]], r"requests\[1\] is empty"),
        ([["Hi", 7]], r"requests\[1\] is 7 \(int\)"),
        ([b"Hi"], "give a text, a Request, or a list"),
        ([None], "route got None"),
        ([Request(None)], "the request is None"),
        (["\ud800"], "lone surrogate"),
        (["Hi", NAMES[0]], "give a list of names"),
        (["Hi", None, True], "top_k is True"),
        (["Hi", None, 1.5], "top_k is 1.5"),
        (["Hi", None, "2"], "top_k is '2'"),
        (["Hi", None, 0], "top_k is 0"),
    ],
)
def test_python_checks_its_arguments(router, arguments, message):
    with pytest.raises(SatlightError, match=message):
        router.route(*arguments)


def test_python_routes_texts_and_requests(router):
    assert [len(one.choices) for one in router.route(["Hi", Request("Ho")], top_k=2)] == [2, 2]
    assert router.route([]) == []


def test_each_line_is_answered_when_it_arrives(router_folder):
    argv = [sys.executable, "-m", "satlight", "route", "--router", str(router_folder), "--format", "json"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        for text in ("One", "Two"):
            process.stdin.write(f"{text}\n")
            assert json.loads(process.stdout.readline())["instruction"] == text
        process.stdin.close()
        assert process.wait(60) == 0


def test_an_error_ends_the_command_while_more_input_may_come(router_folder):
    argv = [sys.executable, "-m", "satlight", "route", "--router", str(router_folder), "--input-format", "jsonl"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, text=True, bufsize=1, **pipes) as process:
        process.stdin.write("no JSON\n")
        assert process.wait(100) == 1
        error = process.stderr.read()
    assert error.startswith("error: standard input, line 1: not valid JSON")
    assert "Fatal" not in error
