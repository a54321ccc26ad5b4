-- Indexes for pages and periodic queries.

-- Delivery: recipients, tiers, attempts.

-- Tickets: what still fires, when a resolved one is checked again.

-- Incidents of a site or of the collector.

-- Hosts: limits, retirement, metric names.
-- Since when all certificates of the host are revoked; its requests are rejected until it enrols again.
ALTER TABLE host ADD COLUMN revoked_at BIGINT;
UPDATE host SET revoked_at = (SELECT MAX(c.revoked_at) FROM certificate c WHERE c.host_id = host.id)
    WHERE NOT EXISTS (SELECT 1 FROM certificate c WHERE c.host_id = host.id AND c.revoked_at IS NULL);

-- The uptime record.

-- People and sessions.
