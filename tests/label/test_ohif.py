"""OHIF in headless Chromium, as a person would use it: study list, viewer, panel, Run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import requests
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.label.conftest import INFANT, TISSUE, Orthanc, Server

TISSUE_CODES = {"CSF": 1, "GM": 2, "WM": 3}
# the labelmap that OHIF draws: its size, directions, origin, spacing and voxels
LABELMAP = """
const volume = window.services.segmentationService.getLabelmapVolume('1');
return volume && [volume.dimensions, Array.from(volume.direction), volume.origin, volume.spacing,
                  Array.from(volume.voxelManager.getCompleteScalarDataArray())];
"""
SEGMENTS = """
const segments = Object.values(window.services.segmentationService.getSegmentation('1').segments);
return segments.map((segment) => [segment.segmentIndex, segment.label]);
"""


def until(browser: webdriver.Chrome, done: Any, seconds: float = 90) -> Any:
    return WebDriverWait(browser, seconds).until(done)


def text_of(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "body").text


def as_image(found: list[Any]) -> nibabel.Nifti1Image:
    size, directions, origin, spacing, values = found
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(directions, (3, 3)).T * spacing
    affine[:3, 3] = origin
    return nibabel.Nifti1Image(np.reshape(values, size, order="F").astype(np.uint8), np.diag([-1, -1, 1, 1]) @ affine)


def study_of(orthanc: Orthanc, uid: str) -> str:
    found = requests.get(f"{orthanc.dicomweb}/series?SeriesInstanceUID={uid}", timeout=30).json()
    return found[0]["0020000D"]["Value"][0]


def check_shown(browser: webdriver.Chrome, served: nibabel.Nifti1Image, codes: dict[str, int]) -> None:
    """What OHIF draws is what the server gave, voxel for voxel and at the same place.

    OHIF numbers the segments of all models itself: its numbers become codes, {"GM": 2, ...}, by their names.
    """
    shown, given = map(nibabel.as_closest_canonical, (as_image(browser.execute_script(LABELMAP)), served))
    np.testing.assert_allclose(shown.affine, given.affine, atol=1e-3)
    code_of = np.zeros(256, np.uint8)
    for number, name in browser.execute_script(SEGMENTS):
        code_of[number] = codes.get(name, 0)
    np.testing.assert_array_equal(code_of[np.asarray(shown.dataobj)], np.asarray(given.dataobj))


def run(browser: webdriver.Chrome, address: str, model: str) -> list[str]:
    """Opens a study, connects the panel, chooses a model and presses Run; the models that it listed."""
    browser.get(address)
    until(browser, lambda one: one.find_elements(By.ID, "monailabelServerURL"))
    until(browser, lambda one: one.find_elements(By.CSS_SELECTOR, "canvas"))
    browser.find_element(By.CSS_SELECTOR, ".settingsTable button").click()
    chooser = until(browser, lambda one: one.find_elements(By.CSS_SELECTOR, "select.selectBox"))[0]
    models = [one.text.strip() for one in Select(chooser).options]
    Select(chooser).select_by_value(model)
    until(browser, lambda one: one.execute_script(LABELMAP))
    button = browser.find_element(By.CSS_SELECTOR, "button[title='Run Segmentation']")
    browser.execute_script("arguments[0].click()", button)  # a message may lie over it
    until(browser, lambda one: any(one.execute_script(LABELMAP)[4]), 180)
    return models


def test_the_panel_segments(
    browser: webdriver.Chrome, pacs: Server, orthanc: Orthanc, series: dict[str, str], tmp_path: Path, request: Any
) -> None:
    pictures = Path(request.config.getoption("--pictures") or tmp_path)
    pictures.mkdir(exist_ok=True)
    browser.get(f"{pacs.url}/ohif/")
    until(browser, lambda one: "sub-01" in text_of(one))
    assert "Study List" in text_of(browser)
    for button in browser.find_elements(By.TAG_NAME, "button"):
        if "Confirm and Hide" in button.text:
            button.click()
    browser.save_screenshot(pictures / "ohif-studies.png")

    uid = series["MNI152"]
    models = run(browser, f"{pacs.url}/ohif/monai-label?StudyInstanceUIDs={study_of(orthanc, uid)}", TISSUE)
    assert models == [INFANT, TISSUE, f"{TISSUE}_structures", f"{TISSUE}_areas"]
    assert browser.find_element(By.ID, "monailabelServerURL").get_attribute("value") == f"{pacs.url}/"
    assert "T1w MNI152" in text_of(browser)
    assert "sub-02" not in text_of(browser)
    until(browser, lambda one: "Running Segmentation - Successful" not in text_of(one))
    served = pacs.infer(TISSUE, uid, tmp_path / "served.nii.gz")
    check_shown(browser, served, TISSUE_CODES)
    assert set(np.unique(np.asarray(served.dataobj))) == {0, 1, 2, 3}


def test_slices_of_another_direction(
    browser: webdriver.Chrome, pacs: Server, orthanc: Orthanc, series: dict[str, str], tmp_path: Path
) -> None:
    uid = series["sagittal"]
    run(browser, f"{pacs.url}/ohif/monai-label?StudyInstanceUIDs={study_of(orthanc, uid)}", TISSUE)
    check_shown(browser, pacs.infer(TISSUE, uid, tmp_path / "served.nii.gz"), TISSUE_CODES)
