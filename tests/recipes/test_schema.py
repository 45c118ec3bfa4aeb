"""Ranges, checked on sections built in code."""

import math
import subprocess
import sys

import pytest

from idlm_ds.recipes import schema
from idlm_ds.recipes.schema import RecipeError

GOOD = {
    schema.ProcessSection: {"name": "mdlm"},
    schema.ModelSection: {"hidden": 64, "blocks": 1, "heads": 4},
    schema.TeacherSection: {},
    schema.DataSection: {"length": 8},
    schema.DistillTrain: {"student_steps": 1, "global_batch": 1, "micro_batch": 1},
    schema.PretrainTrain: {"steps": 1, "global_batch": 1, "micro_batch": 1},
    schema.OptimSection: {"lr": 1.0},
    schema.DistillObjective: {},
    schema.EmaSection: {},
    schema.EvalSection: {},
    schema.LogSection: {},
    schema.CheckpointSection: {},
}
STEPS = ((4, 4), (8, 4), (0, 4), (-1,))
# Section, field, values inside the range and at its ends, values just outside.
RANGES = [
    (schema.ProcessSection, "sigma_min", (1e-9, 19.0), (0.0, math.inf)),
    (schema.ProcessSection, "sigma_max", (0.1,), (1e-4, math.inf, math.nan)),
    (schema.ProcessSection, "gamma_min", (-39.0, -2.0), (-40.0, math.nan)),
    (schema.ProcessSection, "gamma_max", (-3.0, 39.0), (-3.55, 40.0, math.nan)),
    (schema.ProcessSection, "tau", (1e-9,), (0.0, math.inf, math.nan)),
    (schema.EvalSection, "nucleus", (0.1, 1.0), (0.0, 1.1, math.nan)),
    (schema.DistillObjective, "rounds", (1,), (0,)),
    (schema.DistillObjective, "grid", (1,), (0,)),
    (schema.DistillObjective, "t_min", (None, 0.0, 0.999), (-0.1, 1.0, math.nan)),
    (schema.DistillObjective, "input_t_min", (None, 0.0, 0.999), (-0.1, 1.0, math.nan)),
    (schema.ProcessSection, "eps", (1e-9, 0.5), (0.0, 1.0, math.nan)),
    (schema.ProcessSection, "t_min", (0.0, 0.999), (-0.1, 1.0, math.nan)),
    (schema.ModelSection, "hidden", (8, 128), (0, 66, 68)),
    (schema.ModelSection, "blocks", (1,), (0,)),
    (schema.ModelSection, "heads", (1, 32), (0,)),
    (schema.ModelSection, "cond", (1,), (0,)),
    (schema.ModelSection, "mlp_ratio", (1,), (0,)),
    (schema.ModelSection, "dropout", (0.0, 0.99), (-0.1, 1.0, math.nan)),
    (schema.TeacherSection, "path", ("x",), ("", " ")),
    (schema.DataSection, "corpus", ("x",), ("",)),
    (schema.DataSection, "tokenizer", ("x",), ("",)),
    (schema.DataSection, "length", (1,), (0,)),
    (schema.DataSection, "heldout_every", (2,), (1,)),
    (schema.DataSection, "prefetch", (1,), (0,)),
    (schema.DistillTrain, "student_steps", (1,), (0,)),
    (schema.DistillTrain, "global_batch", (1,), (0,)),
    (schema.DistillTrain, "micro_batch", (1,), (0,)),
    (schema.PretrainTrain, "steps", (1,), (0,)),
    (schema.PretrainTrain, "global_batch", (1,), (0,)),
    (schema.PretrainTrain, "micro_batch", (1,), (0,)),
    (schema.OptimSection, "lr", (1e-9,), (0.0, -1.0, math.inf, math.nan)),
    (schema.OptimSection, "fake_lr_scale", (0.1, 10.0), (0.0, math.inf, math.nan)),
    (schema.OptimSection, "eps", (1e-12,), (0.0, math.nan)),
    (schema.OptimSection, "betas", ((0.0, 0.0),), ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9))),
    (schema.OptimSection, "weight_decay", (0.0,), (-0.1, math.inf, math.nan)),
    (schema.OptimSection, "clip", (0.0,), (-0.1, math.nan)),
    (schema.OptimSection, "warmup_steps", (0,), (-1,)),
    (schema.OptimSection, "decay_fraction", (0.0, 1.0), (-0.1, 1.1, math.nan)),
    (schema.DistillObjective, "fake_steps", (1,), (0,)),
    (schema.EmaSection, "decay", (0.0, 0.99999), (-0.1, 1.0, math.nan)),
    (schema.EvalSection, "num_samples", (2,), (1,)),
    (schema.EvalSection, "steps", ((1,), (1, 2)), (*STEPS, ())),
    (schema.EvalSection, "teacher_steps", ((1, 2, 3),), STEPS),
    (schema.EvalSection, "matched_steps", ((1, 1024),), STEPS),
    (schema.EvalSection, "judge", ("x",), ("",)),
    (schema.EvalSection, "batch", (1,), (0,)),
    (schema.EvalSection, "seed", (0,), (-1,)),
    (schema.LogSection, "every", (1,), (0,)),
    (schema.LogSection, "sample_every", (0,), (-1,)),
    (schema.LogSection, "project", ("x",), ("",)),
    (schema.CheckpointSection, "every", (0,), (-1,)),
    (schema.CheckpointSection, "keep", (1,), (0,)),
]
IDS = [f"{section.prefix}.{field}" for section, field, _, _ in RANGES]


@pytest.mark.parametrize(("section", "field", "good", "bad"), RANGES, ids=IDS)
def test_a_range_holds_its_ends_and_refuses_what_lies_beyond(section, field, good, bad):
    for value in good:
        assert getattr(section(**{**GOOD[section], field: value}), field) == value
    for value in bad:
        with pytest.raises(RecipeError) as caught:
            section(**{**GOOD[section], field: value})
        line = str(caught.value)
        assert line.startswith(f"{section.prefix}.{field}: must be ")
        assert line.endswith(f", got {value!r}")


def test_a_width_that_heads_cannot_share_evenly_is_refused_and_says_why():
    with pytest.raises(RecipeError) as caught:
        schema.ModelSection(hidden=100, blocks=1, heads=20)
    rule = "model.hidden: must be model.heads 20 times an even width, got 100"
    assert str(caught.value) == rule


def test_reading_recipes_imports_neither_torch_nor_other_folders_of_the_package():
    code = "import sys, idlm_ds.recipes.load, idlm_ds.recipes.batch; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    assert "torch" not in loaded
    ours = {module.split(".")[1] for module in loaded if module.startswith("idlm_ds.")}
    assert ours == {"recipes", "errors"}
