"""Networks that MONAI does not have, or has in another form."""

from custom.networks.alex_net import AlexNet
from custom.networks.area_unet import AreaUNet
from custom.networks.attention_unet import AttentionUNet
from custom.networks.check_window import check_window
from custom.networks.classic_unet import ClassicUNet
from custom.networks.custom_cnn import CustomCNN
from custom.networks.dense_voxel_net import DenseVoxelNet
from custom.networks.dual_path_dense_net import DualPathDenseNet
from custom.networks.dual_single_dense_net import DualSingleDenseNet
from custom.networks.ensemble import Ensemble, ensemble_state
from custom.networks.fft_conv3d import FFTConv3d
from custom.networks.hcp_net import HCPNet, check_covariates, fit_covariates
from custom.networks.high_res_net import HighResNet
from custom.networks.hyper_dense_net import HyperDenseNet
from custom.networks.improved_unet import ImprovedUNet
from custom.networks.masked_autoencoder import MaskedAutoencoder
from custom.networks.seg_res_net_vae import SegResNetVAE
from custom.networks.single_path_dense_net import SinglePathDenseNet
from custom.networks.skip_dense_net_3d import SkipDenseNet3D
from custom.networks.subpixel_unet import SubpixelUNet
from custom.networks.unet3d import UNet3D
from custom.networks.vgg16 import VGG16
from custom.networks.vit import ViT
from custom.networks.vit_classifier import ViTClassifier
from custom.networks.vnet_light import VNetLight

__all__ = [
    "VGG16",
    "AlexNet",
    "AreaUNet",
    "AttentionUNet",
    "ClassicUNet",
    "CustomCNN",
    "DenseVoxelNet",
    "DualPathDenseNet",
    "DualSingleDenseNet",
    "Ensemble",
    "FFTConv3d",
    "HCPNet",
    "HighResNet",
    "HyperDenseNet",
    "ImprovedUNet",
    "MaskedAutoencoder",
    "SegResNetVAE",
    "SinglePathDenseNet",
    "SkipDenseNet3D",
    "SubpixelUNet",
    "UNet3D",
    "VNetLight",
    "ViT",
    "ViTClassifier",
    "check_covariates",
    "check_window",
    "ensemble_state",
    "fit_covariates",
]
