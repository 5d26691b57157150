"""Options and settings that every test shares."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fc7", "real data, which the repository does not hold")
    group.addoption("--images", metavar="FOLDER", help="a folder of real photographs (JPEG)")
    group.addoption("--cifar", metavar="GLOB", help="CIFAR-10's training images as Parquet files")
