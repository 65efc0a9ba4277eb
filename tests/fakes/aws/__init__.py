"""AWS in this process: the calls of real boto3 clients end in a world of dictionaries.

Both directions are held against botocore's own models: a request is validated and serialized as
ever, and an answer must have the shape that the model gives it. What is not written here is refused,
never answered with nothing. Rules that matter for a teardown (what must be gone before what) are
enforced; time passes only when somebody waits.
"""

from fakes.aws.answers import Refused
from fakes.aws.client import FakeAws
from fakes.aws.world import Clock, World

__all__ = ["Clock", "FakeAws", "Refused", "World"]
