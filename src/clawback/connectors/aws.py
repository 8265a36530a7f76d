"""AWS IAM, STS and EC2 by boto3: `clawback.world.Cloud`. Also what speaks their API, by `endpoint_url`."""

from __future__ import annotations

from clawback.connectors.aws_keys import AwsKeys
from clawback.connectors.aws_logins import AwsLogins
from clawback.connectors.aws_policies import AwsPolicies
from clawback.connectors.aws_profiles import AwsProfiles
from clawback.connectors.aws_sessions import AwsSessions

__all__ = ["AwsConnector"]


class AwsConnector(AwsKeys, AwsLogins, AwsPolicies, AwsProfiles, AwsSessions):
    """All of them, for one account; see `AwsAccount` for what it takes."""
