-- Indexes for pages and periodic queries.
CREATE INDEX ticket_by_contract ON ticket (contract_id, opened_at);

-- Delivery: recipients, tiers, attempts.

-- Tickets: what still fires, when a resolved one is checked again.

-- Incidents of a site or of the collector.
CREATE TABLE incident (
    ticket_id       UUID PRIMARY KEY REFERENCES ticket (id),
    scope           TEXT NOT NULL,    -- site/ID or fleet/silent, as the ticket's check
    opened_at       BIGINT NOT NULL,
    total           BIGINT NOT NULL,  -- hosts that are or were part of it
    last_return_at  BIGINT,           -- when a host last came back
    reported_at     BIGINT,           -- when those that did not come back were reported
    ended_at        BIGINT
);
CREATE UNIQUE INDEX incident_open ON incident (scope) WHERE ended_at IS NULL;

-- Hosts: limits, retirement, metric names.
-- Since when all certificates of the host are revoked; its requests are rejected until it enrols again.
ALTER TABLE host ADD COLUMN revoked_at BIGINT;
UPDATE host SET revoked_at = (SELECT MAX(c.revoked_at) FROM certificate c WHERE c.host_id = host.id)
    WHERE NOT EXISTS (SELECT 1 FROM certificate c WHERE c.host_id = host.id AND c.revoked_at IS NULL);
-- Hosts that were retired, revoked or enrolled again and that the pipeline has not looked at since.
CREATE TABLE host_change (
    host_id  UUID PRIMARY KEY REFERENCES host (id),
    version  BIGINT NOT NULL  -- grows with each change that comes before the pipeline's look
);
INSERT INTO host_change (host_id, version) SELECT host.id, 1 FROM host
    WHERE (retired_at IS NOT NULL OR revoked_at IS NOT NULL)
    AND EXISTS (SELECT 1 FROM alert WHERE alert.host_id = host.id AND alert.cleared_at IS NULL);

-- The uptime record.

-- People and sessions.
-- Browsers in which a person signed in before: limits on strangers' attempts don't apply to them.
CREATE TABLE known_device (
    token_sha256  BYTEA PRIMARY KEY,
    user_id       UUID NOT NULL REFERENCES app_user (id),
    created_at    BIGINT NOT NULL,
    last_used_at  BIGINT NOT NULL
);
CREATE INDEX known_device_by_user ON known_device (user_id, last_used_at);
