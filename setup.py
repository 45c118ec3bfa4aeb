from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name="idlm_ds",
    version="0.1.0",
    description="Turn a slow diffusion language model into a few-step generator, on DeepSpeed.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["idlm_ds", "idlm_ds.*"]),
    package_data={"idlm_ds": ["assets/*", "assets/*/*"]},
    install_requires=[
        "torch>=2.6,<2.14",
        # Three engines in one process rest on behaviour first right in 0.19.6 (gradient scaling of
        # chained engines) and checked against plain PyTorch in tests/distributed on 0.19.8.
        "deepspeed==0.19.8",
        "transformers>=5.3,<6",
        "datasets>=3",
        "pyarrow>=15",
        "tokenizers>=0.21",
        "sentencepiece>=0.2",
        "safetensors>=0.5",
        "huggingface_hub>=1",
        "wandb>=0.18",
        "pyyaml>=6",
        "jaxtyping>=0.3.7",
        "tqdm>=4.66",
        "matplotlib>=3.8",
        "tensorboard>=2.16",
    ],
    entry_points={
        # Read by releases of lm-eval after 0.4.13; before, tools/lm_eval.py registers the model.
        "lm_eval.models": ["idlm_ds = idlm_ds.plugins.lm_eval_model:DiffusionLM"],
    },
    extras_require={
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "beartype>=0.22",
            "hypothesis>=6.100",
            "gguf>=0.19",
            "mauve-text>=0.4",
            "faiss-cpu>=1.9",
            # Runs its interpreter on a CPU, and compiles for a GPU without one. The release is left
            # open: torch for CUDA brings its own.
            "triton>=3.2",
            "ruff==0.17.6",
            "mypy==2.4.1",
            "import-linter==2.16",
            "types-PyYAML",
            "types-setuptools",
        ],
        "gpu": ["flash-attn>=2.7", "triton>=3.2"],
        "eval": ["mauve-text>=0.4", "faiss-cpu>=1.9", "gguf>=0.19", "lm-eval>=0.4.13"],
    },
)
