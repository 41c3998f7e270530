"""`movement doctor`: read-only checks of an AWS account, its roles and resources, before and after a deployment."""
