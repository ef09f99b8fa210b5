variable "name" {
  type    = string
  default = "streams"
}

variable "vpc_id" {
  type = string
}

variable "public_subnet_ids" {
  description = "Of the balancer"
  type        = list(string)
}

variable "private_subnet_ids" {
  description = "Of the tasks and the function, with a NAT gateway"
  type        = list(string)
}

variable "certificate_arn" {
  type = string
}

variable "repository" {
  description = "Repository of the image in ECR, in this account and Region"
  type        = string
  default     = "streams"
}

variable "tag" {
  type    = string
  default = "1"
}

variable "token_secret_arn" {
  description = "ARN of the secret that holds DRAIN_ADMIN_TOKEN"
  type        = string
}

variable "code_bucket" {
  description = "Bucket with the function's lambda_forwarder.zip; without it there is no function"
  type        = string
  default     = ""
}

variable "alarm_topic_arn" {
  description = "The SNS topic for alarms on the package's metrics; without it there are no alarms"
  type        = string
  default     = ""
}

variable "tasks" {
  type    = number
  default = 3

  validation {
    condition     = var.tasks >= 3
    error_message = "ECS rounds deployment_maximum_percent down: with fewer than three no new task could start."
  }
}

variable "deregistration_delay" {
  description = "Seconds in which the sessions of a task leave; a deployment takes as long"
  type        = number
  default     = 300

  validation {
    condition     = var.deregistration_delay >= 30 && var.deregistration_delay <= 3600
    error_message = "Below 30 s there is no time to spread anything over; AWS takes 3600 s at most."
  }
}
