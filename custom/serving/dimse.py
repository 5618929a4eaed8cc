"""Results sent by DICOM's own network protocol (C-STORE), with pynetdicom."""

from __future__ import annotations

import re

from pydicom import Dataset

from custom.errors import ConfigError
from custom.serving.dicomweb import PacsError

_ADDRESS = re.compile(r"(?P<title>[ -\[\]-~]{1,16})@(?P<host>[^@\s]+):(?P<port>\d{1,5})")  # a title has no backslash
_OWN_TITLE = "BRAINMRI"
_SECONDS = 30  # to connect, and for each answer


class Dimse:
    """A DICOM node that takes results.

    Args:
        address: TITLE@host:port, like ORTHANC@127.0.0.1:4242.

    Raises:
        ConfigError: the address has another form.
    """

    def __init__(self, address: str) -> None:
        parts = _ADDRESS.fullmatch(address)
        if parts is None or not 0 < int(parts["port"]) < 65536:
            raise ConfigError(
                f"--store_to must be like ORTHANC@127.0.0.1:4242 (AE title, host, port), got {address!r}."
            )
        self.address = address
        self._title, self._host, self._port = parts["title"], parts["host"].strip("[]"), int(parts["port"])

    def store(self, instance: Dataset) -> None:
        """Sends one object. Raises PacsError if the node does not answer, or refuses it."""
        from pynetdicom import AE  # only servers that send by C-STORE need it

        node = AE(_OWN_TITLE)
        node.acse_timeout = node.dimse_timeout = node.network_timeout = node.connection_timeout = _SECONDS
        node.add_requested_context(instance.SOPClassUID, instance.file_meta.TransferSyntaxUID)
        association = node.associate(self._host, self._port, ae_title=self._title)
        if not association.is_established:
            what = "refuses" if association.is_rejected else "does not answer, or does not take"
            raise PacsError(
                f"The DICOM node {self.address} {what} objects of {_OWN_TITLE}. Check its address, AE title and rights."
            )
        try:
            if not association.accepted_contexts:
                raise PacsError(
                    f"The DICOM node {self.address} takes no {instance.SOPClassUID.name}. "
                    "Use --format seg, or DICOMweb."
                )
            try:
                status = association.send_c_store(instance).get("Status")
            except (RuntimeError, ValueError, AttributeError) as error:  # it ended the association, or took others only
                raise PacsError(
                    f"The DICOM node {self.address} took no {instance.SOPClassUID.name} ({error}). See its log."
                ) from error
        finally:
            association.release()
        if status not in (0x0000, 0xB000, 0xB006, 0xB007):  # success, and stored with a warning
            shown = "none" if status is None else f"0x{status:04X}"
            raise PacsError(f"The DICOM node {self.address} did not store the object (status {shown}). See its log.")
