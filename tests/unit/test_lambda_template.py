"""The CloudFormation template of the Lambda function, and the function's outside."""

import ast
import re
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "example_app"
TEMPLATE = EXAMPLE / "deploy" / "lambda-forwarder.yaml"
SOURCE = EXAMPLE / "lambda_forwarder.py"

if not TEMPLATE.exists():
    pytest.skip("the example is not here: these are the tests of an installed wheel", allow_module_level=True)


def test_the_function_is_standard():
    """Nothing but the standard library is imported; boto3 is Lambda's own, and imported late."""
    text = SOURCE.read_text()
    imported = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                imported |= {each.name.partition(".")[0] for each in names}
            case ast.ImportFrom(module=module):
                imported.add(module.partition(".")[0])
    assert imported <= sys.stdlib_module_names


def test_the_template_names_what_the_function_has():
    """Handler, variables and calls in the template are those of the code."""
    template, text = TEMPLATE.read_text(), SOURCE.read_text()
    assert "Handler: lambda_forwarder.handler" in template
    assert "def handler(" in text
    variables = set(re.findall(r"^          ([A-Z_]+): ", template, re.MULTILINE))
    by_botocore = {"AWS_USE_DUALSTACK_ENDPOINT"}
    assert variables - by_botocore == set(re.findall(r"environ(?:\.get\(|\[)[\"']([A-Z_]+)[\"']", text))
    assert "Action: ecs:DescribeTasks" in template
    assert "Action: secretsmanager:GetSecretValue" in template
    assert re.findall(r"\.(describe_\w+|get_secret_value)\(", text) == ["describe_tasks", "get_secret_value"]


def test_the_role_allows_no_more_than_that():
    """Besides what Lambda itself needs: one cluster's tasks, one secret, its own log, and taking from one queue."""
    policy = TEMPLATE.read_text().partition("  ForwarderPolicy:")[2].partition("  Logs:\n")[0]
    allowed = set(re.findall(r"\b((?:ecs|secretsmanager|logs|sqs|lambda|events|s3|kms):[A-Z]\w+)", policy))
    taking = {"sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"}
    logging = {"logs:CreateLogStream", "logs:PutLogEvents"}
    assert (
        allowed - {"lambda:SourceFunctionArn"}
        == {"ecs:DescribeTasks", "secretsmanager:GetSecretValue"} | taking | logging
    )


def test_the_queue_waits_as_long_as_the_function_may_take():
    """Lambda takes no queue whose messages come again while the function still has them."""
    text = TEMPLATE.read_text()
    visibility, limit = (
        int(re.search(rf"\b{name}: (\d+)", text)[1]) for name in ("VisibilityTimeout", "(?<!Visibility)Timeout")
    )
    assert visibility >= limit
    assert "FunctionResponseTypes: [ReportBatchItemFailures]" in text
