"""Who may ask the service, for what, and how often. Knows neither HTTP nor gRPC; `rest.access` and `rpc.access` do."""
