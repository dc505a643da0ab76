"""WS: each weight vector stays for all pixels of a tile, whose psums go through the accumulation buffer."""

from __future__ import annotations

from accelsim.machine.arch import Arch
from accelsim.machine.dataflows.base import PsumStore, buffer_pixels
from accelsim.machine.dataflows.os_lws import OutputStationaryLocalWeight


class WeightStationary(OutputStationaryLocalWeight):
    """The steps of OS-LWS over as many pixels as half of the accumulation buffer holds."""

    psum_store: PsumStore = "accumulation_buffer"

    def tile_pixels(self, arch: Arch) -> int:
        return buffer_pixels(arch)
