"""Makes the engine's bench a fixture of the tests in this folder."""

from engine_bench import bench

__all__ = ["bench"]
