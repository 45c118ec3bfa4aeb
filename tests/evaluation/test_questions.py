import json
import re

import pytest

from idlm_ds.errors import UserError
from idlm_ds.evaluation.questions import Question, read_questions


def test_a_question_has_a_prompt_and_a_number(tmp_path):
    lines = [
        {"question": "How many?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5", "id": 7},
        {"question": "And now?", "answer": "1,000"},
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert read_questions(path) == [Question("How many?", 5.0), Question("And now?", 1000.0)]
    assert read_questions(path)[0].prompt == "How many?\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: not JSON"),
        ('{"question": "a", "answer": "1"}\n\n', "line 2: not JSON"),
        ("[1]", "line 1: expected an object with texts 'question' and 'answer'"),
        ('{"question": "a"}', "line 1: expected an object"),
        ('{"question": "a", "answer": 5}', "line 1: expected an object"),
        ('{"question": "a", "answer": "five"}', "line 1: its answer gives no number"),
    ],
    ids=lambda text: text[:30],
)
def test_a_line_that_is_no_question_is_named(text, message, tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=f"^--data: {re.escape(str(path))}, {message}"):
        read_questions(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="^--data: cannot read .*nowhere"):
        read_questions(tmp_path / "nowhere")
