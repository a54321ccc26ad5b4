-- Clients, what they bought, where their hosts stand.
CREATE TABLE client (
    id          UUID PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    created_at  BIGINT NOT NULL
);
CREATE TABLE contract (
    id             UUID PRIMARY KEY,
    client_id      UUID NOT NULL REFERENCES client (id),
    name           TEXT NOT NULL UNIQUE,
    kind           TEXT NOT NULL,             -- managed | block_hours | time_and_material
    zone           TEXT NOT NULL,             -- IANA time zone
    service_hours  TEXT NOT NULL,             -- 24x7
    unknown_rule   TEXT NOT NULL,             -- count_as_up | count_as_down | exclude
    target_pct     DOUBLE PRECISION NOT NULL, -- promised availability, 0 to 100
    created_at     BIGINT NOT NULL
);
CREATE TABLE site (
    id           UUID PRIMARY KEY,
    client_id    UUID NOT NULL REFERENCES client (id),
    contract_id  UUID REFERENCES contract (id), -- covers the hosts that enrol at this site
    name         TEXT NOT NULL UNIQUE,
    created_at   BIGINT NOT NULL
);
CREATE TABLE host (
    id             UUID PRIMARY KEY,
    client_id      UUID NOT NULL REFERENCES client (id),
    site_id        UUID NOT NULL REFERENCES site (id),
    contract_id    UUID REFERENCES contract (id),
    part           INTEGER NOT NULL,  -- partition, 0 to 63, from the id
    name           TEXT NOT NULL,     -- host name told at enrolment
    agent_version  TEXT NOT NULL,
    enrolled_at    BIGINT NOT NULL,
    retired_at     BIGINT
);
CREATE INDEX host_by_client ON host (client_id, name);

-- Identity.
CREATE TABLE enrolment_token (
    id             UUID PRIMARY KEY,
    site_id        UUID NOT NULL REFERENCES site (id),
    secret_sha256  BYTEA NOT NULL,
    uses_left      BIGINT NOT NULL,
    expires_at     BIGINT NOT NULL,
    created_at     BIGINT NOT NULL
);
CREATE TABLE certificate (
    serial      TEXT PRIMARY KEY,  -- lowercase hexadecimal
    host_id     UUID NOT NULL REFERENCES host (id),
    not_before  BIGINT NOT NULL,
    not_after   BIGINT NOT NULL,
    revoked_at  BIGINT
);
CREATE INDEX certificate_by_host ON certificate (host_id);

-- Who decides for which partition, and the collectors' own liveness.
CREATE TABLE partition_lease (
    part        INTEGER PRIMARY KEY,
    owner       UUID NOT NULL,
    epoch       BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL
);
CREATE TABLE collector_node (
    id             UUID PRIMARY KEY,
    started_at     BIGINT NOT NULL,
    last_alive_at  BIGINT NOT NULL
);

-- Heartbeats as they arrive. Append only; the sealer moves them into `chunk`. There is no index by
-- host on purpose: `prev_id` links each host's rows backwards, so a host's recent past is a walk by
-- primary key.
CREATE TABLE metric_schema (
    id          BIGINT PRIMARY KEY,
    names       TEXT NOT NULL,  -- JSON array
    created_at  BIGINT NOT NULL
);
CREATE TABLE heartbeat (
    id           BIGINT PRIMARY KEY,
    prev_id      BIGINT NOT NULL,  -- 0: the first of its host
    host_id      UUID NOT NULL,
    boot         UUID NOT NULL,
    instance     UUID NOT NULL,
    seq          BIGINT NOT NULL,
    at           BIGINT NOT NULL,  -- valid time
    recorded_at  BIGINT NOT NULL,  -- arrival
    mono_ms      BIGINT NOT NULL,
    boot_ms      BIGINT NOT NULL,
    interval_ms  INTEGER NOT NULL,
    late         BOOLEAN NOT NULL,
    schema_id    BIGINT NOT NULL,
    vals         BYTEA NOT NULL
);
CREATE TABLE chunk (
    client_id  UUID NOT NULL,
    host_id    UUID NOT NULL,
    hour       BIGINT NOT NULL,  -- start of the hour, milliseconds
    body       BYTEA NOT NULL,
    PRIMARY KEY (client_id, host_id, hour)
);
CREATE TABLE host_state (
    host_id     UUID PRIMARY KEY REFERENCES host (id),
    part        INTEGER NOT NULL,
    arrival_id  BIGINT NOT NULL,  -- heartbeats up to this id are in `state`
    last_id     BIGINT NOT NULL,  -- the host's newest heartbeat then
    state       TEXT NOT NULL,    -- JSON
    updated_at  BIGINT NOT NULL
);
CREATE INDEX host_state_by_part ON host_state (part);

-- The record.
CREATE TABLE evidence (
    id           BIGINT PRIMARY KEY,
    host_id      UUID,           -- NULL: about the collector itself
    kind         TEXT NOT NULL,
    detail       TEXT NOT NULL,    -- JSON
    valid_from   BIGINT NOT NULL,
    valid_to     BIGINT NOT NULL,
    recorded_at  BIGINT NOT NULL
);
CREATE INDEX evidence_by_host ON evidence (host_id, valid_from);
CREATE TABLE host_event (
    id           BIGINT PRIMARY KEY,
    host_id      UUID NOT NULL,
    kind         TEXT NOT NULL,
    detail       TEXT NOT NULL,    -- JSON
    at           BIGINT NOT NULL,
    recorded_at  BIGINT NOT NULL
);
CREATE INDEX host_event_by_host ON host_event (host_id, at);

-- Alerts and tickets.
CREATE TABLE ticket (
    id                 UUID PRIMARY KEY,
    number             BIGINT NOT NULL UNIQUE,
    client_id          UUID NOT NULL REFERENCES client (id),
    contract_id        UUID REFERENCES contract (id),
    host_id            UUID REFERENCES host (id),
    check_key          TEXT,
    dedup_key          TEXT,            -- NULL for tickets made by hand
    previous_id        UUID REFERENCES ticket (id),
    title              TEXT NOT NULL,
    priority           TEXT NOT NULL,   -- P1 to P4
    severity           TEXT NOT NULL,   -- info | warning | critical
    state              TEXT NOT NULL,   -- new | open | waiting_customer | waiting_supplier |
                                        -- waiting_scheduled | resolved | closed
    tier               INTEGER NOT NULL,
    assignee           UUID,
    touched_by_human   BOOLEAN NOT NULL,
    opened_at          BIGINT NOT NULL,
    episode_at         BIGINT NOT NULL, -- opened, or last reopened by an alert
    acknowledged_at    BIGINT,
    first_response_at  BIGINT,
    resolved_at        BIGINT,
    escalate_at        BIGINT,          -- next escalation step, if one is due
    updated_at         BIGINT NOT NULL
);
-- One open automatic ticket for a (contract, host, check).
CREATE UNIQUE INDEX ticket_one_open ON ticket (dedup_key)
    WHERE dedup_key IS NOT NULL AND state NOT IN ('resolved', 'closed');
CREATE INDEX ticket_by_key ON ticket (dedup_key, opened_at);
CREATE INDEX ticket_by_client ON ticket (client_id, opened_at);
CREATE INDEX ticket_by_state ON ticket (state, opened_at);
CREATE INDEX ticket_by_host ON ticket (host_id, opened_at);
CREATE INDEX ticket_due ON ticket (escalate_at) WHERE escalate_at IS NOT NULL;
CREATE TABLE ticket_event (
    id         BIGINT PRIMARY KEY,
    ticket_id  UUID NOT NULL REFERENCES ticket (id),
    at         BIGINT NOT NULL,
    actor      TEXT NOT NULL,  -- JSON
    kind       TEXT NOT NULL,
    detail     TEXT NOT NULL   -- JSON
);
CREATE INDEX ticket_event_by_ticket ON ticket_event (ticket_id, id);
-- The metric around the breach, kept for as long as the ticket.
CREATE TABLE ticket_evidence (
    ticket_id  UUID PRIMARY KEY REFERENCES ticket (id),
    body       TEXT NOT NULL  -- JSON
);
CREATE TABLE alert (
    id            UUID PRIMARY KEY,
    host_id       UUID NOT NULL,
    rule_id       TEXT NOT NULL,
    check_key     TEXT NOT NULL,
    severity      TEXT NOT NULL,
    priority      TEXT NOT NULL,
    summary       TEXT NOT NULL,
    evidence      TEXT NOT NULL,  -- JSON
    raised_at     BIGINT NOT NULL,
    recorded_at   BIGINT NOT NULL,
    cleared_at    BIGINT,
    clear_reason  TEXT,
    ticket_id     UUID REFERENCES ticket (id)
);
CREATE INDEX alert_by_host ON alert (host_id, raised_at);
CREATE INDEX alert_by_ticket ON alert (ticket_id);
CREATE INDEX alert_firing ON alert (raised_at) WHERE cleared_at IS NULL;
CREATE TABLE counter (
    name   TEXT PRIMARY KEY,
    value  BIGINT NOT NULL
);
INSERT INTO counter (name, value) VALUES ('ticket', 1000);

-- What is to be delivered, at least once.
CREATE TABLE outbox (
    id           BIGINT PRIMARY KEY,
    ticket_id    UUID REFERENCES ticket (id),
    channel      TEXT NOT NULL,   -- mail | webhook
    kind         TEXT NOT NULL,   -- page | notice
    payload      TEXT NOT NULL,   -- JSON
    state        TEXT NOT NULL,   -- pending | sent | cancelled | dead
    attempts     INTEGER NOT NULL,
    next_at      BIGINT NOT NULL,
    lease_token  UUID,
    lease_until  BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    done_at      BIGINT,
    last_error   TEXT
);
CREATE INDEX outbox_due ON outbox (next_at) WHERE state = 'pending';
CREATE INDEX outbox_by_ticket ON outbox (ticket_id);
CREATE TABLE outbox_attempt (
    id         BIGINT PRIMARY KEY,
    outbox_id  BIGINT NOT NULL REFERENCES outbox (id),
    at         BIGINT NOT NULL,
    error      TEXT             -- NULL: delivered
);
CREATE INDEX outbox_attempt_by_outbox ON outbox_attempt (outbox_id, id);

-- People.
CREATE TABLE app_user (
    id             UUID PRIMARY KEY,
    login          TEXT NOT NULL UNIQUE,
    name           TEXT NOT NULL,
    password_hash  TEXT NOT NULL,   -- PHC string, Argon2id
    role           TEXT NOT NULL,   -- admin
    must_change    BOOLEAN NOT NULL,
    created_at     BIGINT NOT NULL,
    disabled_at    BIGINT
);
CREATE TABLE session (
    token_sha256  BYTEA PRIMARY KEY,
    user_id       UUID NOT NULL REFERENCES app_user (id),
    csrf          TEXT NOT NULL,
    address       TEXT NOT NULL,  -- of the sign-in
    user_agent    TEXT NOT NULL,  -- of the sign-in
    created_at    BIGINT NOT NULL,
    last_seen_at  BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL
);
CREATE INDEX session_by_user ON session (user_id);
CREATE TABLE audit_log (
    id       BIGINT PRIMARY KEY,
    at       BIGINT NOT NULL,
    actor    TEXT NOT NULL,
    action   TEXT NOT NULL,
    subject  TEXT NOT NULL,
    detail   TEXT NOT NULL
);
