"""recscale: scaling laws for recommender models, from raw interaction logs to fitted laws."""

__version__ = "0.2.0"
