"""Decides whether the public address is looked up, by which services, and where it is written."""

from dataclasses import replace

from gateway.model.public_ip import FILE, PublicIp
from gateway.settings.findings import Findings
from gateway.settings.public_ip import DEFAULT, TAKE_TOKENS
from gateway.settings.schema_public_ip import PublicIpSettings


def settle(given: PublicIpSettings, findings: Findings) -> PublicIp | None:
    """Return how the public address is looked up, None where it is not."""
    switch, chosen = given.publicip_enabled, given.publicip_api
    if not (switch.value if switch else chosen):
        for it in (chosen, given.publicip_api_token, given.publicip_file):
            if it:
                findings.info(
                    it.origin.where, "has no effect without PUBLICIP_ENABLED=on or PUBLICIP_API"
                )
        return None
    asked = list(chosen.value if chosen else DEFAULT)
    if secrets := given.publicip_api_token:
        where = secrets.origin.where
        if len(secrets.value) > len(asked):
            findings.problem(where, "has more tokens than PUBLICIP_API has services; remove some")
            return None
        for number, token in enumerate(secrets.value):
            api = asked[number]
            if api.kind not in TAKE_TOKENS:
                able = " and ".join(TAKE_TOKENS)
                findings.problem(
                    where,
                    f"has a token for {api.kind}, which takes none; write those for {able} first "
                    "in PUBLICIP_API, or remove it",
                )
            asked[number] = replace(api, token=token)
    file = given.publicip_file
    return PublicIp(tuple(asked), str(file.value) if file else FILE)
