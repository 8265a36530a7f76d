"""AWS IAM and EC2: which instances are handed a role's sessions, by way of instance profiles."""

from __future__ import annotations

from clawback.connectors.aws_account import AwsAccount, asking, code_of
from clawback.errors import Refused

__all__ = ["AwsProfiles"]


class AwsProfiles(AwsAccount):
    """`clawback.world.cloud.CloudProfiles`."""

    def instance_profiles(self, role: str) -> dict[str, str]:
        """Name → ARN of the instance profiles that hold the role."""
        with asking("iam:ListInstanceProfilesForRole"):
            pager = self.own("iam").get_paginator("list_instance_profiles_for_role")
            pages = pager.paginate(RoleName=role.rpartition("/")[2])
            return {found["InstanceProfileName"]: found["Arn"] for page in pages for found in page["InstanceProfiles"]}

    def profile_role_remove(self, profile: str, role: str) -> None:
        """Take the role out of an instance profile. Not in it is success."""
        with asking("iam:RemoveRoleFromInstanceProfile", absent_is_done=True):
            self.own("iam").remove_role_from_instance_profile(
                InstanceProfileName=profile, RoleName=role.rpartition("/")[2]
            )

    def profile_role_add(self, profile: str, role: str) -> None:
        """Put the role into an instance profile. `Refused` where the profile, which holds one at most, has another."""
        from botocore.exceptions import ClientError

        name = role.rpartition("/")[2]
        iam = self.own("iam")
        with asking("iam:AddRoleToInstanceProfile"):
            try:
                iam.add_role_to_instance_profile(InstanceProfileName=profile, RoleName=name)
                return
            except ClientError as error:
                if code_of(error) not in ("LimitExceeded", "LimitExceededException", "EntityAlreadyExists"):
                    raise
        if profile not in self.instance_profiles(role):
            raise Refused(f"instance profile {profile} holds another role", hint=f"take that out, or leave {name} out")

    def profile_associations(self, profile_arn: str) -> dict[str, str]:
        """Instance id → association id, of the instances that have this instance profile now."""
        with asking("ec2:DescribeIamInstanceProfileAssociations"):
            pager = self.own("ec2").get_paginator("describe_iam_instance_profile_associations")
            pages = pager.paginate(Filters=[{"Name": "state", "Values": ["associating", "associated"]}])
            return {
                found["InstanceId"]: found["AssociationId"]
                for page in pages
                for found in page["IamInstanceProfileAssociations"]
                if found["IamInstanceProfile"]["Arn"] == profile_arn
            }

    def profile_disassociate(self, association: str) -> None:
        """Take an instance's profile from it. Already gone is success."""
        with asking("ec2:DisassociateIamInstanceProfile", absent_is_done=True):
            self.own("ec2").disassociate_iam_instance_profile(AssociationId=association)

    def profile_associate(self, instance: str, profile_arn: str) -> None:
        """Give an instance this profile; has it already is success, another is `Refused`, no instance `NotFound`."""
        from botocore.exceptions import ClientError

        with asking("ec2:AssociateIamInstanceProfile"):
            try:
                self.own("ec2").associate_iam_instance_profile(
                    InstanceId=instance, IamInstanceProfile={"Arn": profile_arn}
                )
                return
            except ClientError as error:
                if code_of(error) != "IncorrectState":
                    raise
        if instance not in self.profile_associations(profile_arn):
            raise Refused(f"{instance} was given another instance profile", hint="take that from it, or leave it")
