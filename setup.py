"""Brain MRI Bundles: the package `custom`, and the bundles beside it as package data."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "custom" / "__init__.py").read_text())[1]
MODEL_FILES = ("models/*.pt", "models/*.ts", "models/*.json")
BUNDLE_FILES = ("LICENSE", "configs/**/*.json", "configs/*.conf", "docs/*", *MODEL_FILES)

setup(
    name="brain-mri-bundles",
    version=VERSION,
    description="MONAI bundles for brain MRI: tissue and tumor segmentation, classification",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["custom", "custom.*"]), "custom.bundles"],
    package_dir={"custom": "custom", "custom.bundles": "bundles"},
    package_data={
        "custom": ["py.typed"],
        "custom.bundles": [f"*/{pattern}" for pattern in BUNDLE_FILES],
        "custom.serving": ["constraints-label.txt", "shims/*", "shims/*/*"],
    },
    install_requires=[
        "torch>=2.8",
        "monai[nibabel,ignite,itk,tensorboard,fire,tqdm,einops,skimage]>=1.6.1,<1.7",
        "nibabel>=5.2",
        "itk>=5.4",
        "pytorch-ignite>=0.5",
        "tensorboard>=2.16",
        "fire>=0.6",
        "nilearn>=0.12",
        "scikit-learn>=1.6",
        "pandas>=2.2",
        "matplotlib>=3.9",
        "pillow>=11",
        "scipy>=1.13",
        "joblib>=1.4",
        "h5py>=3.11",
        "ImageHash>=4.3",
    ],
    extras_require={
        "onnx": ["onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20"],
        "dev": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "ruff>=0.12",
            "mypy>=1.15",
            "jsonschema>=4.20",
            "build>=1.2",
            "onnx>=1.17",
            "onnxscript>=0.5",
            "onnxruntime>=1.20",
            "triton>=3.4; platform_system == 'Linux'",  # of CUDA builds of torch: here for its interpreter, in tests
        ],
    },
    entry_points={"console_scripts": ["brainmri = custom.cli:main"]},
)
