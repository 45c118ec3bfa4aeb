"""Ranges, checked on sections built in code."""

import math
import subprocess
import sys

import pytest

from idlm_ds.recipes import checkpoint, sections, student
from idlm_ds.recipes.errors import RecipeError

GOOD = {
    sections.ProcessSection: {"name": "mdlm"},
    sections.ModelSection: {"hidden": 64, "blocks": 1, "heads": 4},
    sections.TeacherSection: {},
    student.LatentSection: {},
    sections.DataSection: {"length": 8},
    sections.DistillTrain: {"student_steps": 1, "global_batch": 1, "micro_batch": 1},
    sections.PretrainTrain: {"steps": 1, "global_batch": 1, "micro_batch": 1},
    sections.OptimSection: {"lr": 1.0},
    sections.DistillObjective: {},
    sections.EmaSection: {},
    sections.EvalSection: {},
    sections.LogSection: {},
    checkpoint.CheckpointSection: {},
}
STEPS = ((4, 4), (8, 4), (0, 4), (-1,))
# Section, field, values inside the range and at its ends, values just outside.
RANGES = [
    (sections.ProcessSection, "sigma_min", (1e-9, 19.0), (0.0, math.inf)),
    (sections.ProcessSection, "sigma_max", (0.1,), (1e-4, math.inf, math.nan)),
    (sections.ProcessSection, "gamma_min", (-39.0, -2.0), (-40.0, math.nan)),
    (sections.ProcessSection, "gamma_max", (-3.0, 39.0), (-3.55, 40.0, math.nan)),
    (sections.ProcessSection, "tau", (1e-9,), (0.0, math.inf, math.nan)),
    (sections.EvalSection, "nucleus", (0.1, 1.0), (0.0, 1.1, math.nan)),
    (sections.DistillObjective, "rounds", (1,), (0,)),
    (sections.DistillObjective, "grid", (1,), (0,)),
    (sections.DistillObjective, "t_min", (None, 0.0, 0.999), (-0.1, 1.0, math.nan)),
    (sections.DistillObjective, "full_noise_fraction", (0.0, 0.999), (-0.1, 1.0, math.nan)),
    (student.LatentSection, "size", (0, 64), (-1,)),
    (student.LatentSection, "scale", (0.1, 2.0), (0.0, math.inf, math.nan)),
    (student.LatentSection, "rate", (0.1, 9.0), (0.0, math.inf, math.nan)),
    (sections.DistillObjective, "input_t_min", (None, 0.0, 0.999), (-0.1, 1.0, math.nan)),
    (sections.ProcessSection, "eps", (1e-9, 0.5), (0.0, 1.0, math.nan)),
    (sections.ProcessSection, "t_min", (0.0, 0.999), (-0.1, 1.0, math.nan)),
    (sections.ModelSection, "hidden", (8, 128), (0, 66, 68)),
    (sections.ModelSection, "blocks", (1,), (0,)),
    (sections.ModelSection, "heads", (1, 32), (0,)),
    (sections.ModelSection, "cond", (1,), (0,)),
    (sections.ModelSection, "mlp_ratio", (1,), (0,)),
    (sections.ModelSection, "dropout", (0.0, 0.99), (-0.1, 1.0, math.nan)),
    (checkpoint.CheckpointSection, "every_minutes", (0.0, 0.5, 90.0), (-1.0, math.inf, math.nan)),
    (
        checkpoint.CheckpointSection,
        "keep_every_hours",
        (0.0, 0.5, 24.0),
        (-1.0, math.inf, math.nan),
    ),
    (sections.TeacherSection, "path", ("x",), ("", " ")),
    (sections.DataSection, "corpus", ("x",), ("",)),
    (sections.DataSection, "tokenizer", ("x",), ("",)),
    (sections.DataSection, "length", (1,), (0,)),
    (sections.DataSection, "heldout_every", (2,), (1,)),
    (sections.DataSection, "prefetch", (1,), (0,)),
    (sections.DistillTrain, "student_steps", (1,), (0,)),
    (sections.DistillTrain, "global_batch", (1,), (0,)),
    (sections.DistillTrain, "micro_batch", (1,), (0,)),
    (sections.PretrainTrain, "steps", (1,), (0,)),
    (sections.PretrainTrain, "global_batch", (1,), (0,)),
    (sections.PretrainTrain, "micro_batch", (1,), (0,)),
    (sections.OptimSection, "lr", (1e-9,), (0.0, -1.0, math.inf, math.nan)),
    (sections.OptimSection, "fake_lr_scale", (0.1, 10.0), (0.0, math.inf, math.nan)),
    (sections.OptimSection, "eps", (1e-12,), (0.0, math.nan)),
    (sections.OptimSection, "betas", ((0.0, 0.0),), ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9))),
    (sections.OptimSection, "weight_decay", (0.0,), (-0.1, math.inf, math.nan)),
    (sections.OptimSection, "clip", (0.0,), (-0.1, math.nan)),
    (sections.OptimSection, "warmup_steps", (0,), (-1,)),
    (sections.OptimSection, "decay_fraction", (0.0, 1.0), (-0.1, 1.1, math.nan)),
    (sections.DistillObjective, "fake_steps", (1,), (0,)),
    (sections.EmaSection, "decay", (0.0, 0.99999), (-0.1, 1.0, math.nan)),
    (sections.EvalSection, "num_samples", (2,), (1,)),
    (sections.EvalSection, "steps", ((1,), (1, 2)), (*STEPS, ())),
    (sections.EvalSection, "teacher_steps", ((1, 2, 3),), STEPS),
    (sections.EvalSection, "matched_steps", ((1, 1024),), STEPS),
    (sections.EvalSection, "judge", ("x",), ("",)),
    (sections.EvalSection, "batch", (1,), (0,)),
    (sections.EvalSection, "seed", (0,), (-1,)),
    (sections.LogSection, "every", (1,), (0,)),
    (sections.LogSection, "sample_every", (0,), (-1,)),
    (sections.LogSection, "project", ("x",), ("",)),
    (checkpoint.CheckpointSection, "every", (0,), (-1,)),
    (checkpoint.CheckpointSection, "keep", (1,), (0,)),
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
        sections.ModelSection(hidden=100, blocks=1, heads=20)
    rule = "model.hidden: must be model.heads 20 times an even width, got 100"
    assert str(caught.value) == rule


def test_reading_recipes_imports_neither_torch_nor_more_of_the_package_than_its_names():
    code = "import sys, idlm_ds.recipes.load, idlm_ds.recipes.batch; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    assert "torch" not in loaded
    ours = {module.split(".")[1] for module in loaded if module.startswith("idlm_ds.")}
    assert ours == {"recipes", "registry", "errors"}
