"""What a running Atlas tells its operator: logs, metrics and the ids that tie them to a trace."""
