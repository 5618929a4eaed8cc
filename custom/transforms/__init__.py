"""Per-sample array work that MONAI lacks."""

from custom.transforms.encode_labels import EncodeLabelsd
from custom.transforms.load_scan import LoadScand
from custom.transforms.load_volumes import LoadVolumesd
from custom.transforms.pad_to_size import PadToSized
from custom.transforms.refine_tissues import RefineTissuesd
from custom.transforms.synthesize_scan import Structures, SynthesizeScand
from custom.transforms.write_atomically import AtomicNibabelWriter

__all__ = [
    "AtomicNibabelWriter",
    "EncodeLabelsd",
    "LoadScand",
    "LoadVolumesd",
    "PadToSized",
    "RefineTissuesd",
    "Structures",
    "SynthesizeScand",
]
