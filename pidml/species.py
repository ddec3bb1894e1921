"""The particle species that networks identify, and those that a track can be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Species:
    """A particle species.

    Attributes:
        name: English name, lower case; stands in file names.
        pdg: PDG code; negative for antiparticles (of the baryons and mesons) and for positive leptons' opposites.
        sign: electric charge in units of e.
        mass: GeV/c², PDG value.
        label: Matplotlib math text.
    """

    name: str
    pdg: int
    sign: int
    mass: float
    label: str

    @property
    def o2_code(self) -> str:
        """The PDG code as O2Physics spells it in file names: a leading 0 stands for minus.

        >>> by_name("antikaon").o2_code
        '0321'
        """
        return str(self.pdg) if self.pdg > 0 else f"0{-self.pdg}"


# Masses: Particle Data Group 2024, in GeV/c².
_MASS = {"electron": 0.00051099895, "muon": 0.1056583755, "pion": 0.13957039, "kaon": 0.493677, "proton": 0.93827208943}

#: The six species that networks identify, in the order of a network's outputs.
TARGETS: tuple[Species, ...] = (
    Species("pion", 211, +1, _MASS["pion"], r"$\pi^{+}$"),
    Species("kaon", 321, +1, _MASS["kaon"], r"$\mathrm{K}^{+}$"),
    Species("proton", 2212, +1, _MASS["proton"], r"$\mathrm{p}$"),
    Species("antipion", -211, -1, _MASS["pion"], r"$\pi^{-}$"),
    Species("antikaon", -321, -1, _MASS["kaon"], r"$\mathrm{K}^{-}$"),
    Species("antiproton", -2212, -1, _MASS["proton"], r"$\overline{\mathrm{p}}$"),
)

#: Species that occur among tracks but are not identified by a network of their own.
BACKGROUND: tuple[Species, ...] = (
    Species("electron", 11, -1, _MASS["electron"], r"$\mathrm{e}^{-}$"),
    Species("positron", -11, +1, _MASS["electron"], r"$\mathrm{e}^{+}$"),
    Species("muon", 13, -1, _MASS["muon"], r"$\mu^{-}$"),
    Species("antimuon", -13, +1, _MASS["muon"], r"$\mu^{+}$"),
)

ALL: tuple[Species, ...] = TARGETS + BACKGROUND
TARGET_NAMES: tuple[str, ...] = tuple(species.name for species in TARGETS)
_BY_NAME = {species.name: species for species in ALL}
_BY_PDG = {species.pdg: species for species in ALL}


def by_name(name: str) -> Species:
    """Return the species called ``name``; KeyError if there is none."""
    return _BY_NAME[name]


def by_pdg(pdg: int) -> Species:
    """Return the species with PDG code ``pdg``; KeyError if there is none."""
    return _BY_PDG[pdg]
