"""recscale: scaling laws for recommender models, from raw interaction logs to fitted laws."""


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for: it stands in pyproject.toml alone."""
    if name == "__version__":
        from importlib.metadata import version

        return version("recscale")
    raise AttributeError(f"module 'recscale' has no attribute {name!r}")
