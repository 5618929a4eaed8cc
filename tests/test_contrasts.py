"""Names of contrasts on a PACS: what scanners of all vendors and technicians in several languages write."""

from __future__ import annotations

import unicodedata

import pytest

from custom.serving.contrasts import contrast_of, study_and_contrast

NAMES = {
    "T1": """Ax FSPGR|IR-FSPGR 3D|Sag MEMPRAGE|mp2rage_UNI|Sag 3D T1 CUBE|t1_fl3d_sag|T1 FLASH|3D TFE|VIBE|BRAVO|3DT1
        |AX T1 C-|AX T1 -C|T1_C-_tra|T1 TSE FS KM-|t1_se_tra ohne KM|T1 nativ sag|T1 sin contraste|T1 sem contraste
        |T1 senza mdc|T1 pre mdc|T1 sans gado|T1 non injecté|T1 zonder contrast|T1 uten kontrast|T1 bez kontrastu
        |T1 kontrasts\u0131z|T1 unenhanced|T1 noncon|T1 平扫|T1 C-spine|T1 C1-C7|T1 posterior fossa|T1 post fossa
        |postop MPRAGE|T1 post surgery|prescan norm T1|T1 skm|T1 Kmart|T1 head injury|T1 presat""",
    "T1ce": """T1 tra KM|t1_mprage_sag nach KM|T1 mit Kontrastmittel|T1 SE con contraste|T1 c/ contraste|SAG T1 Dotarem
        |3D T1 Gadovist|T1 Gadavist|T1 Magnevist|Clariscan T1 VIBE|T1 Gd-DTPA|T1 gadobutrol|T1 3D gado|T1 TSE dopo mdc
        |T1 m.d.c.|T1 après injection|T1 na contrast|T1 po kontraście|T1 kontrastl\u0131|T1 增强|T1 造影|ceT1|T1+
        |T1 + Gd|T1W POST|T1 SPACE post|t1_space_sag_KM|Ax BRAVO +C|T1 C-spine +C|SAG T1 C SPINE POST
        |T1 post fossa GD|Pre-op T1 +C|post op T1 GAD|T1 basal ganglia +C|T1 POST-GAD|T1 조영
        |T1wCE|T1wGd|T1 GBCA""",
    "T2": "T2 TSE|t2_space_sag|T2 VISTA|Sag CUBE T2|T2 TFE|AXT2|eT2W|PROPELLER T2|T2 +C|T2 C-spine|t2_tirm_cor_fs",
    "FLAIR": """VISTA FLAIR|Sag CUBE T2 FLAIR|t2_spc_da-fl_sag_p2|t2_tirm_tra_dark-fluid|t2_tirm_tra|FLAIR +C
        |3D_VIEW_FLAIR""",
    "T2*": "T2_FFE|t2_fl2d_tra_hemo|SWAN|SWIp|T2 star",
    "": """SPACE|Sag CUBE|TSE|STIR|pd+t2_tse_tra|pd_tse|T1+T2|t1_tirm_tra_dark-fluid|mp2rage_INV1|MP2RAGE INV2|t1map
        |T1 MAP|T1 mapping|T1 SUBTRACTION|T12 spine|T1 loc|T2 localiser|DTI|ep2d_diff|SWI phase|+C|post contrast""",
}


@pytest.mark.parametrize(
    ("text", "contrast"),
    [(text.strip(), contrast or None) for contrast, texts in NAMES.items() for text in texts.split("|")],
)
def test_contrast_of_a_series(text: str, contrast: str | None) -> None:
    assert contrast_of(text) == contrast
    assert contrast_of(unicodedata.normalize("NFD", text)) == contrast
    assert contrast_of(text.upper()) == contrast


@pytest.mark.parametrize(
    ("file", "study", "contrast"),
    [
        ("sub-01_ce-gadolinium_T1w.nii.gz", "sub-01", "T1ce"),
        ("sub-01_ses-1_ce-Gd_acq-x_T1w.nii.gz", "sub-01_ses-1_acq-x", "T1ce"),
        ("P1-T1-Gd.nii.gz", "P1", "T1ce"),
        ("anna_t1_km.nii", "anna", "T1ce"),
        ("sub-km_T1w.nii", "sub-km", "T1"),  # a subject's name is no agent
        ("sub-01_ce-gadolinium_T2w.nii.gz", "sub-01", "T2"),
        ("POST_T1.nii.gz", "POST", "T1ce"),
        ("POST_T2.nii.gz", "POST", "T2"),
        ("T1_ax_post.nii.gz", "ax_post", "T1ce"),
        ("P1_T1_post.nii.gz", "P1", "T1ce"),
        ("T1_ax_pre.nii.gz", "ax_pre", "T1"),
        ("postop_T1.nii.gz", "postop", "T1"),  # surgery
        ("sub-KM01_T1w.nii.gz", "sub-KM01", "T1"),
        ("sub-KM01_ses-post_T1w.nii.gz", "sub-KM01_ses-post", "T1"),
        ("sub-KM01_ce-gadolinium_T1w.nii.gz", "sub-KM01", "T1ce"),
        ("P1_T1wCE.nii.gz", "P1", "T1ce"),
    ],
)
def test_agents_in_file_names(file: str, study: str, contrast: str) -> None:
    assert study_and_contrast(file) == (study, contrast)
