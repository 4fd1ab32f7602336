"""Sources of images: places that are listed the same each time, in work units."""

from qscore_fast.images.sources.class_list import class_list
from qscore_fast.images.sources.folder import FolderSource
from qscore_fast.images.sources.open import open_source
from qscore_fast.images.sources.source import Sample, Source, Unit
from qscore_fast.images.sources.subset import Subset

__all__ = ["FolderSource", "Sample", "Source", "Subset", "Unit", "class_list", "open_source"]
