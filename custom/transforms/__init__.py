"""Per-sample array work that MONAI lacks."""

from custom.transforms.areas_of_cells import AreasOfCellsd
from custom.transforms.correct_bias import CorrectBiasd
from custom.transforms.crop_to_head import CropToHeadd, head_mask
from custom.transforms.crop_with_enough import RandCropWithEnoughd
from custom.transforms.draw_shares import DrawSharesd, RandSharesd
from custom.transforms.encode_labels import EncodeLabelsd
from custom.transforms.fill_sulci import FillSulcid
from custom.transforms.from_disk import CropFromDiskd, FromDiskd
from custom.transforms.ignored_voxels import LabelIndicesd, MaskIgnoredd
from custom.transforms.keep_on_disk import KeepOnDiskd
from custom.transforms.label_areas import FindAreasd, LabelAreasd
from custom.transforms.label_scan import LabelScand
from custom.transforms.label_structures import LabelStructuresd
from custom.transforms.load_rgb import LoadRGBd
from custom.transforms.load_scan import LoadScand
from custom.transforms.load_slice import LoadSliced
from custom.transforms.load_volumes import LoadVolumesd
from custom.transforms.measure_brain import MeasureBraind
from custom.transforms.measures import Outputs
from custom.transforms.merge_channels import MergeChannelsd
from custom.transforms.normalize_slices import NormalizeSlicesd
from custom.transforms.pad_to_size import PadToSized
from custom.transforms.refine_tissues import RefineTissuesd
from custom.transforms.regions import AddBackgroundd, LabelsToRegionsd, RegionsToLabelsd
from custom.transforms.require_shape import RequireShaped
from custom.transforms.resample_scan import ResampleScand
from custom.transforms.resize_brain import ResizeBraind
from custom.transforms.scale_intensity import DivideByMaximumd, ScaleForegroundd
from custom.transforms.synthesis_structures import Structures
from custom.transforms.synthesize_scan import SynthesizeScand
from custom.transforms.write_atomically import AtomicNibabelWriter

__all__ = [
    "AddBackgroundd",
    "AreasOfCellsd",
    "AtomicNibabelWriter",
    "CorrectBiasd",
    "CropFromDiskd",
    "CropToHeadd",
    "DivideByMaximumd",
    "DrawSharesd",
    "EncodeLabelsd",
    "FillSulcid",
    "FindAreasd",
    "FromDiskd",
    "KeepOnDiskd",
    "LabelAreasd",
    "LabelIndicesd",
    "LabelScand",
    "LabelStructuresd",
    "LabelsToRegionsd",
    "LoadRGBd",
    "LoadScand",
    "LoadSliced",
    "LoadVolumesd",
    "MaskIgnoredd",
    "MeasureBraind",
    "MergeChannelsd",
    "NormalizeSlicesd",
    "Outputs",
    "PadToSized",
    "RandCropWithEnoughd",
    "RandSharesd",
    "RefineTissuesd",
    "RegionsToLabelsd",
    "RequireShaped",
    "ResampleScand",
    "ResizeBraind",
    "ScaleForegroundd",
    "Structures",
    "SynthesizeScand",
    "head_mask",
]
