-- What the hosts of a client, a site or a contract are asked for, as the fleet file says.
CREATE TABLE policy_layer (
    owner_id    BLOB PRIMARY KEY,  -- of the client, the site or the contract
    level       TEXT NOT NULL,     -- client | site | contract
    body        TEXT NOT NULL,     -- JSON
    changed_at  BIGINT NOT NULL
);
-- What one host is asked for beside that, chosen by people.
CREATE TABLE host_watch (
    host_id   BLOB NOT NULL REFERENCES host (id),
    item      TEXT NOT NULL,  -- the key of the check
    body      TEXT NOT NULL,  -- JSON
    added_by  TEXT NOT NULL,  -- a person's name
    added_at  BIGINT NOT NULL,
    PRIMARY KEY (host_id, item)
);
-- Changes with each change of these tables.
INSERT INTO counter (name, value) VALUES ('policy', 0);
