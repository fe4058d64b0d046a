"""Archives of strangers, read strictly and extracted where they cannot reach anything else."""

from swapd.archive.extractor import Extracted, extract_archive
from swapd.archive.limits import Limits

__all__ = ["Extracted", "Limits", "extract_archive"]
