-- What the agent said of its machine last, for searches: the operating system, and the addresses of its
-- network interfaces, separated by blanks. Empty until it does.
ALTER TABLE host ADD COLUMN system TEXT NOT NULL DEFAULT '';
ALTER TABLE host ADD COLUMN addresses TEXT NOT NULL DEFAULT '';
-- What could not be read is counted by kind.
CREATE INDEX set_aside_by_kind ON set_aside (kind);
