"""What a layout's configuration has room for."""

import json
from pathlib import Path
from typing import Any

import pytest

from idlm_ds.checkpoints.conversion import ConversionOptions, convert
from idlm_ds.errors import UserError
from tests.checkpoints.models_on_disk import write_sedd


@pytest.fixture
def retold(tmp_path: Path):
    """A model of SEDD in a layout that says more, with some of it changed."""

    def retold(**changes: Any) -> Path:
        folder = tmp_path / "told"
        convert(write_sedd(tmp_path / "sedd")[0], folder, ConversionOptions(layout="hugging_face"))
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return retold


def test_a_schedule_that_is_not_held_is_told(retold, tmp_path: Path):
    folder = retold(process={"name": "sedd", "schedule": "geometric", "sigma_max": 9.0})
    outcome = convert(folder, tmp_path / "there", ConversionOptions(layout="sedd"))
    assert outcome.lost == ("schedule geometric", "sigma_max 9.0")
    outcome = convert(folder, tmp_path / "there.ckpt", ConversionOptions(layout="lightning"))
    assert outcome.lost == ()


def test_a_network_that_is_not_shown_the_time_does_not_fit_everywhere(retold, tmp_path: Path):
    folder = retold(time_conditioning=False)
    with pytest.raises(UserError, match="no room to say that the network is not shown the time"):
        convert(folder, tmp_path / "there.pth", ConversionOptions(layout="sedd_training"))
