-- Since when two machines use the host's identity; nothing is taken from it then.
ALTER TABLE host ADD COLUMN quarantined_at BIGINT;
-- The one host that the token gives a new key; null: it takes in new hosts.
ALTER TABLE enrolment_token ADD COLUMN host_id UUID REFERENCES host (id);
