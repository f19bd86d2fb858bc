"""The parts of what the kernel has to hold for a vault, as in `enforced` for a namespace."""

from gateway.daemon.enforced import Enforced, EnforcedRouting, EnforcedRules, Reserve
from gateway.daemon.ports import Inside, Passage, Translator
from gateway.policy.facts import Facts, Uplink
from gateway.policy.firewall import closed
from gateway.policy.routing import LOCKED
from gateway.policy.rules import Ruleset
from gateway.policy.tables import Routing
from gateway.policy.translation import Translation
from gateway.policy.wanted import Wanted


class EnforcedInside(EnforcedRules):
    """The rules in the vault, whose process has closed them."""

    def _part_of(self, wanted: Wanted) -> Ruleset:
        return wanted.inside.rules if wanted.inside else closed()


class EnforcedRoutingInside(EnforcedRouting):
    """The routes and policy rules in the vault; the kernel drops routes with the link for holes."""

    def _part_of(self, wanted: Wanted) -> tuple[Routing, Facts]:
        inside = wanted.inside
        if inside is None:
            return LOCKED, Facts()
        return inside.routing, Facts((inside.hole,) if inside.hole else ())


class EnforcedPassage(Enforced):
    """The pair of links for the listed holes; there is none while none is listed."""

    def __init__(self, passage: Passage, reserve: Reserve) -> None:
        super().__init__(reserve)
        self._passage = passage

    def differences(self, wanted: Wanted) -> tuple[str, ...]:
        """Compare both ends."""
        hole = _hole(wanted)
        return self._passage.faults(hole, _uplinks(wanted)) if hole else ()

    def _part_of(self, wanted: Wanted) -> object:
        return _hole(wanted), tuple(uplink.index for uplink in wanted.facts.uplinks)

    def _put(self, wanted: Wanted) -> None:
        if hole := _hole(wanted):
            self._passage.make(hole, _uplinks(wanted))
        else:
            self._passage.remove()


def _hole(wanted: Wanted) -> Uplink | None:
    return wanted.inside.hole if wanted.inside else None


def _uplinks(wanted: Wanted) -> list[str]:
    return [uplink.name for uplink in wanted.facts.uplinks]


class EnforcedTranslation(Enforced):
    """The translation of addresses between the uplinks and the vault."""

    follows_links = False

    def __init__(self, translator: Translator, reserve: Reserve) -> None:
        super().__init__(reserve)
        self._translator = translator

    def may_miss_a_link(self, error: BaseException) -> bool:
        """Return False: a translation names links that need not be there."""
        del error
        return False

    def differences(self, wanted: Wanted) -> tuple[str, ...]:
        """Compare the table."""
        return self._translator.verify(self._part_of(wanted))

    def _part_of(self, wanted: Wanted) -> Translation:
        return wanted.inside.translation if wanted.inside else Translation()

    def _put(self, wanted: Wanted) -> None:
        self._translator.apply(self._part_of(wanted))


def parts_of_vault(
    inside: Inside | None, reserve: Reserve
) -> tuple[list[EnforcedInside], list[Enforced]]:
    """Return the barriers and the other parts of a vault, nothing without one."""
    if inside is None:
        return [], []
    routing = EnforcedRoutingInside(inside.network, reserve)
    others: list[Enforced] = [routing]
    if inside.passage and inside.translator:
        passage = EnforcedPassage(inside.passage, reserve)
        others = [passage, routing, EnforcedTranslation(inside.translator, reserve)]
    return [EnforcedInside(inside.firewall, reserve)], others
