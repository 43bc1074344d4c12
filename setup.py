"""The compiled build, for who wants it: the same modules as C, which the hops do with a quarter less processor time.

    COMPILE_HOPS=1 pip wheel --no-deps --no-build-isolation .

in an environment with Cython, as `make setup` makes it, and with a C compiler and Python's headers; `make compiled` does that.

Without the variable everything is plain Python, and the wheel is for every machine. pyproject.toml says the rest.
"""

from __future__ import annotations

import os

from setuptools import Extension, setup

HOPS = (
    "orderstream.addresses",
    "orderstream.catalogue.index",
    "orderstream.catalogue.resolve",
    "orderstream.catalogue.units",
    "orderstream.detect",
    "orderstream.engine.partitioner",
    "orderstream.identity",
    "orderstream.normalise",
    "orderstream.pages",
    "orderstream.phones",
    "orderstream.places",
    "orderstream.reading",
    "orderstream.route",
    "orderstream.rules.closures",
    "orderstream.rules.pack",
    "orderstream.shelf",
    "orderstream.times",
    "orderstream.verdict",
    "orderstream.windows",
    "orderstream.wire",
    "agents.detect",
    "agents.normalise",
    "agents.route",
)
"""What runs for every order and waits for nobody. The rest would gain nothing and be harder to look into."""


def extensions() -> list[Extension]:
    from Cython.Build import cythonize  # noqa: PLC0415  nobody else needs it

    modules = [Extension(name, [f"{name.replace('.', '/')}.py"], extra_compile_args=["-O3", "-g0"]) for name in HOPS]
    # annotations are for people and mypy: Cython would refuse a defaultdict where one says dict
    said = {"language_level": 3, "annotation_typing": False}
    made: list[Extension] = cythonize(modules, nthreads=os.cpu_count() or 1, build_dir="build/c", compiler_directives=said)
    return made


if os.environ.get("COMPILE_HOPS") == "1":
    setup(ext_modules=extensions(), options={"build_ext": {"parallel": os.cpu_count()}})
else:
    setup()
