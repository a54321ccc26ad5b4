//! Channels that record what they are given, or refuse it as the scenario says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use watchkeep_collector::notify::{Channel, Channels, Outgoing, SendError, Sending, Trace};
use watchkeep_core::delivery::{Failure, MessageKind};

/// A message that was delivered.
#[derive(Clone, Debug)]
pub(super) struct Delivered {
    pub(super) message: i64,
    pub(super) channel: &'static str,
    pub(super) recipient: String,
    pub(super) kind: MessageKind,
    pub(super) payload: String,
}

#[derive(Debug, Default)]
struct Records {
    delivered: Vec<Delivered>,
    /// Recipients that refuse, with the way in which they do.
    refusing: BTreeMap<String, Failure>,
}

/// All channels of a scenario.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorders {
    records: Arc<Mutex<Records>>,
}

#[derive(Debug)]
struct Recorder {
    name: &'static str,
    records: Arc<Mutex<Records>>,
}

impl Recorders {
    pub(super) fn channels(&self) -> Channels {
        let channel = |name| -> Arc<dyn Channel> {
            Arc::new(Recorder {
                name,
                records: Arc::clone(&self.records),
            })
        };
        Channels::of(vec![channel("mail"), channel("webhook")])
    }

    /// What was delivered since the last call, in the order in which it was written.
    pub(super) fn take(&self) -> Vec<Delivered> {
        let mut delivered = std::mem::take(&mut self.records.lock().unwrap().delivered);
        delivered.sort_by_key(|one| (one.message, one.channel, one.recipient.clone()));
        delivered
    }

    /// From now on a recipient refuses messages in this way, or takes them again.
    pub(super) fn set(&self, recipient: &str, failure: Option<Failure>) {
        let refusing = &mut self.records.lock().unwrap().refusing;
        match failure {
            Some(failure) => refusing.insert(recipient.to_owned(), failure),
            None => refusing.remove(recipient),
        };
    }
}

impl Channel for Recorder {
    fn name(&self) -> &'static str {
        self.name
    }

    fn max_sends(&self) -> usize {
        64
    }

    fn deliver<'a>(
        &'a self,
        outgoing: &'a Outgoing<'_>,
        _trace: &'a mut Trace,
    ) -> Sending<'a, Result<(), SendError>> {
        let mut records = self.records.lock().unwrap();
        let result = match records.refusing.get(outgoing.recipient) {
            Some(failure) => Err(SendError::failed(*failure, "recipient", "refused")),
            None => Ok(()),
        };
        if result.is_ok() {
            records.delivered.push(Delivered {
                message: outgoing.message,
                channel: self.name,
                recipient: outgoing.recipient.to_owned(),
                kind: outgoing.kind,
                payload: outgoing.payload.to_owned(),
            });
        }
        Box::pin(std::future::ready(result))
    }
}
