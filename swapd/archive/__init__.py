"""Archives of strangers, read strictly and extracted where they cannot reach anything else."""

from swapd.archive.extractor import Extracted, extract_archive
from swapd.archive.jailed import extract_jailed
from swapd.archive.limits import Limits
from swapd.archive.sizes import Least, read_least

__all__ = ["Extracted", "Least", "Limits", "extract_archive", "extract_jailed", "read_least"]
