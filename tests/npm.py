"""Packages of npm for the tests that run Node.js."""

import shutil
import subprocess
from pathlib import Path

import pytest

INSTALLING = 45.0
"""Seconds to wait for npm."""


def install(directory: Path, *packages: str) -> None:
    """Install `packages`, or those of package.json; skip without Node.js, npm or a registry."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js and npm are not installed")
    options = ["--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
    command = ["npm", "install", *options, *packages]
    try:
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, timeout=INSTALLING, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not answer in time")
    if done.returncode != 0:
        pytest.skip(f"npm cannot install {packages or 'package.json'}: is there a registry?")
