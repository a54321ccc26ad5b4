-- Indexes for pages and periodic queries. Open tickets and firing alerts are a small part of all: queries
-- that want only those repeat the predicate of the partial index.
CREATE INDEX ticket_open ON ticket (priority, number) WHERE state NOT IN ('resolved', 'closed');
CREATE INDEX ticket_open_by_host ON ticket (host_id)
    WHERE state NOT IN ('resolved', 'closed') AND host_id IS NOT NULL;
CREATE INDEX ticket_by_opening ON ticket (opened_at);
DROP INDEX ticket_by_client;
CREATE INDEX ticket_by_client ON ticket (client_id, number);
DROP INDEX ticket_by_state;
CREATE INDEX ticket_by_state ON ticket (state, number);
DROP INDEX ticket_by_host;
CREATE INDEX ticket_by_host ON ticket (host_id, number);
CREATE INDEX ticket_by_assignee ON ticket (assignee, number) WHERE assignee IS NOT NULL;
DROP INDEX alert_firing;
CREATE INDEX alert_firing ON alert (host_id, raised_at) WHERE cleared_at IS NULL;
CREATE INDEX alert_firing_by_ticket ON alert (ticket_id) WHERE cleared_at IS NULL;
DROP INDEX alert_by_ticket;
CREATE INDEX alert_by_ticket ON alert (ticket_id, raised_at);
DROP INDEX host_event_by_host;
CREATE INDEX host_event_by_host ON host_event (host_id, kind, at);
DROP INDEX outbox_by_ticket;
CREATE INDEX outbox_by_ticket ON outbox (ticket_id, id);
CREATE INDEX chunk_by_hour ON chunk (hour);
CREATE INDEX certificate_revoked ON certificate (not_after) WHERE revoked_at IS NOT NULL;
-- A window is mostly a recent one: few rows end after its begin.
DROP INDEX evidence_by_host;
CREATE INDEX evidence_by_host ON evidence (host_id, valid_to);
CREATE INDEX evidence_of_enrolment ON evidence (host_id) WHERE kind IN ('enrolled', 'retired');
CREATE INDEX host_by_contract ON host (contract_id) WHERE contract_id IS NOT NULL;
-- What a search looks at: title, check, host, site, client and contract, folded by
-- `watchkeep_core::search`. Tickets of before have their title alone.
ALTER TABLE ticket ADD COLUMN search TEXT NOT NULL DEFAULT '';
UPDATE ticket SET search = LOWER(title);
-- Grows when a client, contract, site or host changes, whoever changes it, so that what pages keep in
-- memory of them is read again only then.
INSERT INTO counter (name, value) VALUES ('fleet', 0);
CREATE TRIGGER client_insert_counted AFTER INSERT ON client
    BEGIN UPDATE counter SET value = value + 1 WHERE name = 'fleet'; END;
CREATE TRIGGER client_update_counted AFTER UPDATE ON client
    BEGIN UPDATE counter SET value = value + 1 WHERE name = 'fleet'; END;
CREATE TRIGGER contract_insert_counted AFTER INSERT ON contract
    BEGIN UPDATE counter SET value = value + 1 WHERE name = 'fleet'; END;
CREATE TRIGGER contract_update_counted AFTER UPDATE ON contract
    BEGIN UPDATE counter SET value = value + 1 WHERE name = 'fleet'; END;
CREATE TRIGGER site_insert_counted AFTER INSERT ON site
    BEGIN UPDATE counter SET value = value + 1 WHERE name = 'fleet'; END;
CREATE TRIGGER site_update_counted AFTER UPDATE ON site
    BEGIN UPDATE counter SET value = value + 1 WHERE name = 'fleet'; END;
CREATE TRIGGER host_insert_counted AFTER INSERT ON host
    BEGIN UPDATE counter SET value = value + 1 WHERE name = 'fleet'; END;
CREATE TRIGGER host_update_counted AFTER UPDATE ON host
    BEGIN UPDATE counter SET value = value + 1 WHERE name = 'fleet'; END;
CREATE INDEX ticket_by_contract ON ticket (contract_id, opened_at);

-- Delivery: recipients, tiers, attempts.
-- mail: the address; webhook: tier1 or tier2.
ALTER TABLE outbox ADD COLUMN recipient TEXT NOT NULL DEFAULT '';
-- The line of support that this copy goes to.
ALTER TABLE outbox ADD COLUMN tier INTEGER NOT NULL DEFAULT 1;
-- The id of the first copy: all copies of one message have it.
ALTER TABLE outbox ADD COLUMN message_id BIGINT;
ALTER TABLE outbox ADD COLUMN first_failed_at BIGINT;
-- Pages: when it was decided that other recipients get it too, or need not.
ALTER TABLE outbox ADD COLUMN handed_over_at BIGINT;
-- Pages: when it was reported that this copy is not delivered.
ALTER TABLE outbox ADD COLUMN reported_at BIGINT;
UPDATE outbox SET message_id = id;
-- What was given up before this version is not reported now.
UPDATE outbox SET handed_over_at = created_at, reported_at = created_at WHERE state <> 'pending';
DROP INDEX outbox_due;
CREATE INDEX outbox_due ON outbox (channel, kind, next_at, created_at) WHERE state = 'pending';
CREATE INDEX outbox_by_message ON outbox (message_id);
CREATE INDEX outbox_dead ON outbox (done_at) WHERE state = 'dead';
CREATE INDEX outbox_to_hand_over ON outbox (created_at)
    WHERE kind = 'page' AND state IN ('pending', 'dead') AND handed_over_at IS NULL;
CREATE INDEX outbox_to_report ON outbox (created_at)
    WHERE kind = 'page' AND state IN ('pending', 'dead') AND reported_at IS NULL;
-- How each recipient fares; written with each attempt.
CREATE TABLE recipient (
    channel         TEXT NOT NULL,
    address         TEXT NOT NULL,  -- as outbox.recipient
    last_sent_at    BIGINT,
    failing_since   BIGINT,         -- first failure since the last delivery
    last_failed_at  BIGINT,
    failures        BIGINT NOT NULL, -- failures since the last delivery
    last_error      TEXT,
    reported_at     BIGINT,         -- when this run of failures got into a ticket
    PRIMARY KEY (channel, address)
);

-- Tickets: what still fires, when a resolved one is checked again.
-- The most urgent priority of the alerts of this episode; `priority` differs if a person chose it.
ALTER TABLE ticket ADD COLUMN alert_priority TEXT NOT NULL DEFAULT 'P4';
-- Its alerts that fire: how many, and the priority of the most urgent one.
ALTER TABLE ticket ADD COLUMN firing INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ticket ADD COLUMN firing_priority TEXT;
-- When this episode first paged; NULL while nothing of it did.
ALTER TABLE ticket ADD COLUMN paged_at BIGINT;
-- When everything recovered, or a person resolved it; NULL while the episode goes on.
ALTER TABLE ticket ADD COLUMN over_at BIGINT;
-- When a ticket that was resolved while it fired is checked again.
ALTER TABLE ticket ADD COLUMN recheck_at BIGINT;
-- When a ticket that waits for a date opens again.
ALTER TABLE ticket ADD COLUMN hold_until BIGINT;
CREATE INDEX ticket_hold ON ticket (hold_until) WHERE hold_until IS NOT NULL;
CREATE INDEX ticket_recheck ON ticket (recheck_at) WHERE recheck_at IS NOT NULL;
-- What a contract changes of the table of priorities, JSON.
ALTER TABLE contract ADD COLUMN paging TEXT;
UPDATE ticket SET alert_priority = priority;
UPDATE ticket SET
    firing = (SELECT COUNT(*) FROM alert a WHERE a.ticket_id = ticket.id AND a.cleared_at IS NULL),
    firing_priority =
        (SELECT MIN(a.priority) FROM alert a WHERE a.ticket_id = ticket.id AND a.cleared_at IS NULL)
    WHERE id IN (SELECT a.ticket_id FROM alert a WHERE a.cleared_at IS NULL);
UPDATE ticket SET over_at = COALESCE(resolved_at, updated_at)
    WHERE state IN ('resolved', 'closed') OR firing = 0;
UPDATE ticket SET escalate_at = NULL WHERE over_at IS NOT NULL;
UPDATE ticket SET paged_at = episode_at WHERE over_at IS NULL AND acknowledged_at IS NULL;
-- What a person resolved while it fired, and still fires, comes back.
UPDATE ticket SET recheck_at = over_at + 1800000
    WHERE state IN ('resolved', 'closed') AND firing > 0
    AND EXISTS (SELECT 1 FROM host h WHERE h.id = ticket.host_id AND h.retired_at IS NULL);

-- Incidents of a site or of the collector.
CREATE TABLE incident (
    ticket_id       BLOB PRIMARY KEY REFERENCES ticket (id),
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
-- What people say of a host, and the name that its agent gave at its newest enrolment.
ALTER TABLE host ADD COLUMN reported_name TEXT NOT NULL DEFAULT '';
ALTER TABLE host ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE host ADD COLUMN notes TEXT NOT NULL DEFAULT '';
UPDATE host SET reported_name = name;
-- Hosts that were renamed, retired, revoked or enrolled again and that the pipeline has not looked at since.
CREATE TABLE host_change (
    host_id  BLOB PRIMARY KEY REFERENCES host (id),
    version  BIGINT NOT NULL  -- grows with each change that comes before the pipeline's look
);
INSERT INTO host_change (host_id, version) SELECT host.id, 1 FROM host
    WHERE (retired_at IS NOT NULL OR revoked_at IS NOT NULL)
    AND EXISTS (SELECT 1 FROM alert WHERE alert.host_id = host.id AND alert.cleared_at IS NULL);
-- The lists of metric names that each host uses now. A list that no host uses is pruned once no row of the
-- tail refers to it; a chunk holds its own names.
CREATE TABLE host_schema (
    host_id    BLOB NOT NULL,
    schema_id  BIGINT NOT NULL,
    since      BIGINT NOT NULL,
    PRIMARY KEY (host_id, schema_id)
);
CREATE INDEX host_schema_by_schema ON host_schema (schema_id);
INSERT INTO host_schema (host_id, schema_id, since)
    SELECT host_id, schema_id, MAX(recorded_at) FROM heartbeat GROUP BY host_id, schema_id;
ALTER TABLE metric_schema ADD COLUMN unused_at BIGINT;  -- since when no host uses it
-- Chunks of hours up to this one may refer to it: those of earlier versions hold no names.
ALTER TABLE metric_schema ADD COLUMN chunks_through BIGINT NOT NULL DEFAULT 0;
UPDATE metric_schema SET chunks_through = (SELECT COALESCE(MAX(hour), 0) FROM chunk);
CREATE INDEX metric_schema_unused ON metric_schema (unused_at) WHERE unused_at IS NOT NULL;
-- The host's partition: the sealer reads the tail by partitions.
ALTER TABLE heartbeat ADD COLUMN part INTEGER NOT NULL DEFAULT 0;
UPDATE heartbeat SET part = COALESCE((SELECT host.part FROM host WHERE host.id = heartbeat.host_id), 0);
-- What the sealer could not read, kept for a while for support.
CREATE TABLE set_aside (
    id       BIGINT PRIMARY KEY,
    at       BIGINT NOT NULL,
    host_id  BLOB NOT NULL,
    kind     TEXT NOT NULL,    -- row | chunk
    hour     BIGINT NOT NULL,  -- start of its hour, milliseconds
    reason   TEXT NOT NULL,
    body     BLOB NOT NULL
);

-- The uptime record.

-- People and sessions.
-- Browsers in which a person signed in before: limits on strangers' attempts don't apply to them.
CREATE TABLE known_device (
    token_sha256  BLOB PRIMARY KEY,
    user_id       BLOB NOT NULL REFERENCES app_user (id),
    created_at    BIGINT NOT NULL,
    last_used_at  BIGINT NOT NULL
);
CREATE INDEX known_device_by_user ON known_device (user_id, last_used_at);
