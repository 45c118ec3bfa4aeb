"""Models of other layouts, held against recipes."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from idlm_ds.build.locate import ASSETS
from idlm_ds.build.saved_model import SavedModel, family_of, find_model
from idlm_ds.checkpoints.formats.description import Description, PublicModel
from idlm_ds.checkpoints.tensors import NamedTensors
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UnsafeCheckpointError, UserError
from idlm_ds.recipes.sections import ProcessSection
from tests.checkpoints.models_on_disk import write_llada
from tests.toy_models import random_teacher

SIZES = {"hidden": 8, "blocks": 1, "heads": 1, "cond": 4, "mlp_ratio": 2, "dropout": 0.1}
WORDS = 50_257


def model(*, vocab_size: int = WORDS + 1, **told: Any) -> SavedModel:
    """A DiT of which nothing is told but its sizes."""
    about = {
        "layout": "lightning", "kind": "dit", "family": None, "process": {}, "mask_id": None,
        "sizes": {**SIZES, "vocab_size": vocab_size}, "vocab_size": vocab_size, "length": None,
        "dtype": "float32", "parameters": 1, "ema": None, "is_ema": False, "stripped": (),
        "ignored": (), "files": (),
    }  # fmt: skip
    content = PublicModel(Description(**{**about, **told}), NamedTensors("it", {}))
    return SavedModel("it", "teacher.path", Path("it"), content, None)


class _Words:
    folder = "words"

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count


MDLM, DUO = ProcessSection(name="mdlm"), ProcessSection(name="duo")


@pytest.mark.parametrize(
    ("found", "asked", "mask"),
    [
        (model(), None, WORDS),
        (model(), 17, 17),
        (model(vocab_size=30_522), None, 103),
        (model(mask_id=126), None, 126),
        (model(mask_id=126), 126, 126),
    ],
)
def test_the_mask_is_the_models_the_recipes_or_the_usual_one(found, asked, mask):
    section = ProcessSection(name="mdlm", mask_id=asked)
    process = found.process(section)
    assert process.mask_id == mask
    assert process.vocab_size == found.about.vocab_size
    card = found.network(section, 64).card
    assert card.process["mask_id"] == mask


@pytest.mark.parametrize(
    ("found", "asked", "words"),
    [
        (model(mask_id=126), 127, r"^process\.mask_id: 127, but the mask of it is 126$"),
        (model(), WORDS + 1, r"^process\.mask_id: 50258, but it has a vocabulary of 50258$"),
    ],
)
def test_another_mask_is_refused(found, asked, words):
    with pytest.raises(UserError, match=words):
        found.process(ProcessSection(name="mdlm", mask_id=asked))


@pytest.mark.parametrize(("name", "is_told"), [("mdlm", False), ("sedd", True), ("udlm", True)])
def test_whether_the_time_is_shown_is_as_the_file_or_the_family_says(name, is_told):
    section = ProcessSection(name=name)
    assert model().network(section, 64).card.network["time_conditioning"] is is_told
    sizes = {**SIZES, "vocab_size": 9, "time_conditioning": not is_told}
    network = model(sizes=sizes).network(section, 64)
    assert network.card.network["time_conditioning"] is not is_told


def test_a_card_says_what_the_model_told_and_else_what_the_recipe_does():
    found = model(process={"name": "udlm", "eps": 1e-3, "nickname": "x"}, length=32)
    card = found.network(ProcessSection(name="duo", tau=0.5, mask_id=3), 64).card
    wanted = ProcessSection(name="udlm", tau=0.5)
    assert (card.process, card.length) == (asdict(wanted), 32)
    assert model().network(DUO, 64).card.length == 64


@pytest.mark.parametrize("words", [WORDS, WORDS + 1])
def test_a_tokenizer_may_lack_one_id(words):
    for section in (MDLM, DUO):
        found = model()
        found.check_tokenizer(_Words(words), found.process(section))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (model(), WORDS - 1),
        (model(), WORDS + 2),
        (model(), 2048),
        (model(vocab_size=2049, mask_id=2048), WORDS),
        (model(vocab_size=30_522), 30_521 - 1),
    ],
)
def test_a_tokenizer_of_another_vocabulary_is_refused(found, words):
    with pytest.raises(UserError, match=rf"^teacher\.path: it has .* words has {words} words; it"):
        found.check_tokenizer(_Words(words), found.process(MDLM))


@pytest.mark.parametrize(("words", "fits"), [(11, True), (10, True), (9, False), (12, False)])
def test_lladas_table_is_padded_but_holds_the_mask(words, fits, tmp_path):
    write_llada(tmp_path / "llada")
    found = find_model(str(tmp_path / "llada"), "teacher.path")
    process = found.process(MDLM)
    assert (process.vocab_size, process.mask_id) == (11, 9)
    if fits:
        found.check_tokenizer(_Words(words), process)
    else:
        with pytest.raises(UserError, match="vocabulary of 11 with mask 9"):
            found.check_tokenizer(_Words(words), process)


def test_sequences_may_be_shorter_than_in_training_but_not_longer():
    found = model(length=64)
    found.check_length(64)
    found.check_length(16)
    model().check_length(9999)
    with pytest.raises(UserError, match=r"^data\.length: 65, but it was trained .* of 64$"):
        found.check_length(65)


def test_a_family_is_told_or_given_but_not_both_ways():
    told = model(process={"name": "sedd", "eps": 0.5})
    assert family_of(told) == family_of(told, "sedd") == ProcessSection(name="sedd", eps=0.5)
    assert family_of(model(), "duo") == DUO
    with pytest.raises(UserError, match="^it: a Lightning checkpoint .*; pass --process$"):
        family_of(model())
    with pytest.raises(UserError, match="^--process: 'mdlm', but it was trained with 'sedd'$"):
        family_of(told, "mdlm")


def test_a_file_that_could_run_code_is_still_told_apart(tmp_path):
    path = tmp_path / "evil.ckpt"
    path.write_bytes(b"\x80\x04c__builtin__\neval\n(S'1'\ntR.")
    with pytest.raises(UnsafeCheckpointError, match=r"^teacher\.path: .*evil\.ckpt"):
        find_model(str(path), "teacher.path")


def test_a_tokenizer_of_other_words_is_refused_by_both_hashes(tmp_path):
    tokenizer = Tokenizer(ASSETS / "tokenizer")
    random_teacher(tmp_path / "teacher", tokenizer)
    found = find_model(str(tmp_path / "teacher"), "teacher.path")
    found.check_tokenizer(tokenizer, found.process(MDLM))
    file = tmp_path / "teacher" / "tokenizer.json"
    text = file.read_text()
    first, second = json.loads(text)["model"]["merges"][:2]
    swapped = json.loads(text)
    swapped["model"]["merges"][:2] = [second, first]
    words = swapped["model"]["vocab"]
    a, b = list(words)[-2:]
    words[a], words[b] = words[b], words[a]
    file.write_text(json.dumps(swapped))
    own, other = Tokenizer(tmp_path / "teacher").fingerprint[:12], tokenizer.fingerprint[:12]
    assert own != other
    with pytest.raises(UserError, match=f"^teacher.path: .* with tokenizer {own}, but .* {other}$"):
        found.check_tokenizer(tokenizer, found.process(MDLM))
