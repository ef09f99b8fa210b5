# The same stack as ../cloudformation/stack.yaml.

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

locals {
  place = "${data.aws_region.this.region}:${data.aws_caller_identity.this.account_id}"
  ecs   = "arn:${data.aws_partition.this.partition}:ecs:${local.place}"
  image = "${data.aws_caller_identity.this.account_id}.dkr.ecr.${data.aws_region.this.region}.${data.aws_partition.this.dns_suffix}/${var.repository}:${var.tag}"
}

resource "aws_ecs_cluster" "this" {
  name = var.name

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_security_group" "balancer" {
  name_prefix = "${var.name}-balancer-"
  description = "The load balancer"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  security_group_id = aws_security_group.balancer.id
  description       = "clients"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_vpc_security_group_egress_rule" "balancer_to_tasks" {
  security_group_id            = aws_security_group.balancer.id
  description                  = "tasks"
  ip_protocol                  = "tcp"
  from_port                    = 8000
  to_port                      = 8000
  referenced_security_group_id = aws_security_group.tasks.id
}

resource "aws_security_group" "tasks" {
  name_prefix = "${var.name}-tasks-"
  description = "The tasks; /drain is on their port, so only the balancer and the function are let in"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "tasks_let_the_balancer_in" {
  security_group_id            = aws_security_group.tasks.id
  description                  = "balancer"
  ip_protocol                  = "tcp"
  from_port                    = 8000
  to_port                      = 8000
  referenced_security_group_id = aws_security_group.balancer.id
}

resource "aws_vpc_security_group_egress_rule" "tasks" {
  security_group_id = aws_security_group.tasks.id
  description       = "AWS, and what the application needs"
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_lb" "this" {
  name               = var.name
  load_balancer_type = "application"
  internal           = false
  subnets            = var.public_subnet_ids
  security_groups    = [aws_security_group.balancer.id]
  # A WebSocket that is silent for so long is cut: uvicorn pings every 20 s.
  idle_timeout               = 60
  drop_invalid_header_fields = true
  enable_deletion_protection = true
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this.arn
  }
}

resource "aws_lb_target_group" "this" {
  name                          = var.name
  vpc_id                        = var.vpc_id
  target_type                   = "ip"
  protocol                      = "HTTP"
  port                          = 8000
  deregistration_delay          = var.deregistration_delay
  load_balancing_algorithm_type = "least_outstanding_requests"

  # It stays healthy while a task drains: ECS stops tasks that are not.
  health_check {
    path                = "/healthz"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/ecs/${var.name}"
  retention_in_days = 30
}

resource "aws_ecs_task_definition" "this" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 512
  memory                   = 1024
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn

  runtime_platform {
    cpu_architecture        = "X86_64"
    operating_system_family = "LINUX"
  }

  container_definitions = jsonencode([
    {
      name      = "app"
      image     = local.image
      essential = true
      cpu       = 448
      # It starts after the collector, and ECS stops it before.
      dependsOn = [{ containerName = "collector", condition = "START" }]
      command = [
        "opentelemetry-instrument",
        "uvicorn",
        "example_app.server:app",
        "--host=0.0.0.0",
        "--port=8000",
        "--timeout-graceful-shutdown=5",
      ]
      environment = [
        { name = "OTEL_SERVICE_NAME", value = var.name },
        { name = "OTEL_EXPORTER_OTLP_ENDPOINT", value = "http://127.0.0.1:4318" },
        { name = "OTEL_EXPORTER_OTLP_PROTOCOL", value = "http/protobuf" },
        { name = "OTEL_EXPORTER_OTLP_TIMEOUT", value = "3" },
        { name = "OTEL_METRIC_EXPORT_INTERVAL", value = "15000" },
        { name = "OTEL_TRACES_EXPORTER", value = "none" },
        { name = "OTEL_LOGS_EXPORTER", value = "none" },
      ]
      portMappings = [{ containerPort = 8000, protocol = "tcp" }]
      # 24 s may follow SIGTERM at worst.
      stopTimeout = 30
      secrets     = [{ name = "DRAIN_ADMIN_TOKEN", valueFrom = var.token_secret_arn }]
      # Reaps what ECS Exec leaves behind, and passes SIGTERM on.
      linuxParameters = { initProcessEnabled = true }
      ulimits         = [{ name = "nofile", softLimit = 65535, hardLimit = 65535 }]
      logConfiguration = {
        logDriver = "awslogs"
        options = {
          "awslogs-group"         = aws_cloudwatch_log_group.this.name
          "awslogs-region"        = data.aws_region.this.region
          "awslogs-stream-prefix" = "app"
        }
      }
    },
    # Sends what each process of the task measures to CloudWatch, without which there is nothing to show or to alarm on.
    {
      name      = "collector"
      image     = "public.ecr.aws/aws-observability/aws-otel-collector:v0.48.0"
      essential = false
      cpu       = 64
      memory    = 256
      environment = [
        { name = "REGION", value = data.aws_region.this.region },
        { name = "METRICS", value = "https://monitoring.${data.aws_region.this.region}.${data.aws_partition.this.dns_suffix}/v1/metrics" },
        { name = "AOT_CONFIG_CONTENT", value = file("${path.module}/collector.yaml") },
      ]
      logConfiguration = {
        logDriver = "awslogs"
        options = {
          "awslogs-group"         = aws_cloudwatch_log_group.this.name
          "awslogs-region"        = data.aws_region.this.region
          "awslogs-stream-prefix" = "collector"
        }
      }
    },
  ])
}

resource "aws_ecs_service" "this" {
  name             = var.name
  cluster          = aws_ecs_cluster.this.id
  task_definition  = aws_ecs_task_definition.this.arn
  launch_type      = "FARGATE"
  platform_version = "LATEST"
  desired_count    = var.tasks
  # `starlette-drain status` in a task, without a token.
  enable_execute_command             = true
  health_check_grace_period_seconds  = 60
  deployment_minimum_healthy_percent = 100
  # A third more at a time, so that not all old tasks leave together.
  deployment_maximum_percent = 134

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    assign_public_ip = false
    subnets          = var.private_subnet_ids
    security_groups  = [aws_security_group.tasks.id]
  }

  load_balancer {
    container_name   = "app"
    container_port   = 8000
    target_group_arn = aws_lb_target_group.this.arn
  }

  depends_on = [aws_lb_listener.https, aws_iam_role_policy.task, aws_iam_role_policy.execution]
}

# One template for both stacks: the rule, the queues, the function, the dashboard and the alarms are not written twice.
resource "aws_cloudformation_stack" "forwarder" {
  count         = var.code_bucket == "" ? 0 : 1
  name          = "${var.name}-forwarder"
  template_body = file("${path.module}/../lambda-forwarder.yaml")
  capabilities  = ["CAPABILITY_IAM"]

  parameters = {
    ClusterName         = aws_ecs_cluster.this.name
    ServiceName         = aws_ecs_service.this.name
    VpcId               = var.vpc_id
    SubnetIds           = join(",", var.private_subnet_ids)
    TaskSecurityGroupId = aws_security_group.tasks.id
    TokenSecretArn      = var.token_secret_arn
    CodeBucket          = var.code_bucket
  }
}

resource "aws_cloudformation_stack" "dashboard" {
  name          = "${var.name}-dashboard"
  template_body = file("${path.module}/../monitoring/cloudwatch-dashboard.json")
  parameters    = { Service = var.name }
}

resource "aws_cloudformation_stack" "alarms" {
  count         = var.alarm_topic_arn == "" ? 0 : 1
  name          = "${var.name}-alarms"
  template_body = file("${path.module}/../monitoring/cloudwatch-alarms.json")
  parameters    = { Topic = var.alarm_topic_arn, Service = var.name }
}

output "address" {
  value = "https://${aws_lb.this.dns_name}"
}

output "look" {
  value = "starlette-drain status --cluster ${aws_ecs_cluster.this.name} --service ${aws_ecs_service.this.name}"
}
