-- Reports look for the chains next to a window: without it, through each host's whole history.
CREATE INDEX evidence_of_chain ON evidence (host_id, valid_from) WHERE kind IN ('frames', 'resumed');
