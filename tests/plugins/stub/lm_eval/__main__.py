import argparse
import json
import sys
from types import SimpleNamespace

from lm_eval.api.registry import MODEL_REGISTRY


def cli_evaluate():
    """Score one continuation and print what happened."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--model_args")
    parser.add_argument("--tasks")
    args = parser.parse_args()
    pairs = (pair.split("=") for pair in args.model_args.split(","))
    model = MODEL_REGISTRY[args.model](
        **{key: int(value) if value.isdecimal() else value for key, value in pairs},
        batch_size=1,
        device="cuda:0",
    )
    requests = [SimpleNamespace(args=("The", " people"))]
    result = {
        "argv": sys.argv[1:],
        "models": list(MODEL_REGISTRY),
        "answers": model.loglikelihood(requests, disable_tqdm=True),
    }
    print(json.dumps(result))
