"""Runs exported folders in a process that has torch and transformers only; see ``isolated.py``.

Nothing of the tests or of this package is imported.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()
warnings.simplefilter("error")
warnings.simplefilter("ignore", DeprecationWarning)


def main(job_path):
    job = json.loads(job_path.read_text())
    inputs = load_file(job["inputs"])
    found, told = {}, {}
    for name, task in job["models"].items():
        for key, value in run(task, inputs).items():
            if isinstance(value, torch.Tensor):
                found[f"{name}/{key}"] = value.detach().contiguous()
            else:
                told[f"{name}/{key}"] = value
    save_file(found, job_path.with_suffix(".safetensors"))
    job_path.with_suffix(".told.json").write_text(json.dumps(told))


def run(task, inputs):
    auto = getattr(transformers, task["auto"])
    place = {"revision": task["revision"], "trust_remote_code": True}
    model = auto.from_pretrained(task["folder"], **place)
    tokenizer = transformers.AutoTokenizer.from_pretrained(task["folder"], **place)
    found = {"class": type(model).__name__, "dtype": str(model.dtype), "words": len(tokenizer)}
    ids = inputs[task["ids"]]
    sigma = inputs["sigma"] if task["is_told_time"] else None
    more = {"latents": inputs["latents"]} if task["has_latent"] else {}
    with torch.no_grad():
        found["logits"] = model(ids, timesteps=sigma, **more).logits
        if task["has_mask"]:
            found["logits without timesteps"] = model(input_ids=ids, **more).logits
    for label, settings in task["samples"].items():
        prompts = settings.pop("prompts", None)
        given = None if prompts is None else torch.tensor(prompts)
        found[f"samples {label}"], found[f"last states {label}"] = watched(model, given, settings)
    found |= refusals(model, ids, inputs["latents"], task)
    if task["round_trip"]:
        model.save_pretrained(task["round_trip"])
        again = auto.from_pretrained(task["round_trip"], trust_remote_code=True)
        with torch.no_grad():
            found["logits after saving"] = again(ids, timesteps=sigma, **more).logits
        found["settings after saving"] = again.generation_config.steps
        found["family after saving"] = again.config.process
    found |= fine_tuned(model, inputs["clean"])
    return found


def watched(model, given, settings):
    """Samples, and the last state of each batch that a watcher was shown."""
    states = {}

    def keep(samples, k, t, x_t, revealed):
        states[samples] = x_t

    tokens = model.generate(given, on_step=keep, **settings)
    return tokens, torch.cat(list(states.values()))


def refusals(model, ids, latents, task):
    more = {"latents": latents} if task["has_latent"] else {}
    other = {} if task["has_latent"] else {"latents": latents}
    calls = {
        "latents": lambda: model(ids, timesteps=torch.ones(len(ids)), **other),
        "padding": lambda: model(ids, attention_mask=torch.zeros_like(ids)),
        "padded prompt": lambda: model.generate(ids, torch.zeros_like(ids)),
        "prompt": lambda: model.generate(ids, sampler="ancestral"),
        "setting": lambda: model.generate(sampler="ancestral", block=4),
        "choice": lambda: model.generate(sampler="beam"),
        "count": lambda: model.generate(num_samples=0),
    }
    if not task["has_mask"]:
        calls["mask"] = lambda: model.generate(sampler="blockwise")
        calls["timesteps"] = lambda: model(ids, labels=ids, **more)
    told = {}
    for name, call in calls.items():
        try:
            call()
            told[f"refused {name}"] = None
        except ValueError as error:
            told[f"refused {name}"] = str(error)
    return told


def fine_tuned(model, clean):
    """Ten steps on one batch."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    before = [p.detach().clone() for p in model.parameters()]
    batch, losses = model.noised(clean, seed=3), []
    for _ in range(10):
        loss = model(**batch).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    return {"losses": losses, "moved": sum(moved), "noised": batch["input_ids"]}


main(Path(sys.argv[1]))
