"""Questions with answers that are numbers, in files of JSON lines."""

import json
from dataclasses import dataclass
from pathlib import Path

from idlm_ds.errors import UserError
from idlm_ds.metrics.answers import answer_in

PROMPT = "{question}\n"
"""Text in front of an answer, as in TinyGSM."""


@dataclass(frozen=True, slots=True)
class Question:
    """A line of a file."""

    text: str
    answer: float

    @property
    def prompt(self) -> str:
        """Text that a model continues."""
        return PROMPT.format(question=self.text)


def read_questions(path: Path) -> list[Question]:
    """Read lines with the texts ``question`` and ``answer``; of an answer, its number counts.

    Raises:
        UserError: The file is missing, or a line is none of these.
    """
    try:
        lines = path.read_text("utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--data: cannot read {path}: {error}") from error
    return [_question(line, f"--data: {path}, line {i}") for i, line in enumerate(lines, 1)]


def _question(line: str, where: str) -> Question:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON") from error
    match record:
        case {"question": str(text), "answer": str(solution)}:
            answer = answer_in(solution)
        case _:
            raise UserError(f"{where}: expected an object with texts 'question' and 'answer'")
    if answer is None:
        raise UserError(f"{where}: its answer gives no number")
    return Question(text, answer)
