"""The folder of a run, begun anew."""

from pathlib import Path

from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import DistillRecipe
from idlm_ds.runs.measurement import KEPT
from idlm_ds.runs.output import FOLDERS, prepare_output


def test_a_run_begun_anew_has_no_sets_of_an_earlier_one_and_what_is_not_its_own_stays(
    tmp_path: Path,
):
    assert KEPT in FOLDERS
    for name in (*FOLDERS, "mine"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "file").touch()
    recipe = load_recipe(DistillRecipe, "quickstart")
    prepare_output(tmp_path, recipe, world=1, resume=False, fresh=True)
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "recipe.yaml", "run.json"}
    assert (tmp_path / "mine" / "inner" / "file").exists()
