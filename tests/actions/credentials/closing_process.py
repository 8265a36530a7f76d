"""Closes one agent's credentials, as a process of its own that can be killed.

python closing_process.py SETTINGS.json
"""

import json
import sys
from pathlib import Path

from clawback.connectors.aws import AwsConnector
from clawback.connectors.aws_records import AwsRecordsConnector
from clawback.connectors.secret_store import FileSecretStore
from clawback.connectors.vault import VaultConnector
from clawback.connectors.vault_records import VaultRecordsConnector
from clawback.errors import Unreachable
from clawback.journal import Journal
from clawback.model import Phase, Receipt, ReceiptState
from clawback.playbooks._credentials import close_credentials
from clawback.response import Responder, Response
from clawback.world import World


class Away:
    def __getattr__(self, name):
        raise Unreachable("not here")


def main(file):
    said = json.loads(Path(file).read_text())
    vault = VaultConnector(said["vault"], Path(said["vault_token"]))
    aws = AwsConnector(endpoint_url=said["aws"], credentials_file=Path(said["aws_credentials"]))
    world = World(
        core=Away(),
        policies=Away(),
        secrets=FileSecretStore(Path(said["store"])),
        tickets=Away(),
        vault_or_none=vault,
        cloud_or_none=aws,
        vault_records_or_none=VaultRecordsConnector(vault, audit_log=Path(said["audit_log"])),
        cloud_records_or_none=AwsRecordsConnector(aws),
    )
    journal = Journal(said["journal"])
    incident = journal.incident(said["incident"])
    scope = Receipt(
        id=0,
        incident=incident.id,
        key="incident.scope:",
        action="incident.scope",
        phase=Phase.IDENTIFY,
        state=ReceiptState.VERIFIED,
        params={"agent": incident.agent},
        outcome={"credentials": said["credentials"]},
    )
    response = Response(journal, world, "tester", incident.id, without_evidence="a rehearsal of issuers")
    close_credentials(Responder(response), incident, scope)


if __name__ == "__main__":
    main(sys.argv[1])
