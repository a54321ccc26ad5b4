-- Indexes for pages and periodic queries.

-- Delivery: recipients, tiers, attempts.

-- Tickets: what still fires, when a resolved one is checked again.

-- Incidents of a site or of the collector.

-- Hosts: limits, retirement, metric names.

-- The uptime record.

-- People and sessions.
