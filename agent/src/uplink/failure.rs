//! What follows from a failed request: what is given up, how long to wait, what people are shown.

use tokio::time::Instant;
use watchkeep_shared::wire::problem::ProblemType;

use super::{Effects, Sent, Uplink, http::Failure};
use crate::{spool::Spool, status::Connection};

impl Uplink {
    pub(super) fn failed(
        &mut self,
        failure: &Failure,
        sent: &Sent,
        spool: &mut Spool,
        now: Instant,
    ) -> Effects {
        if failure.is_indigestible() {
            if let ([id], [(_, seq)]) = (sent.ids.as_slice(), sent.seqs.as_slice()) {
                self.give_up(format!("heartbeat {seq} was refused: {failure}"));
                spool.acknowledge(&[*id]);
            }
            self.batch_frames = (sent.ids.len() / 2).max(1);
        }
        self.attempted = None;
        self.wait_after(failure, now);
        Effects {
            persist: true,
            ..Effects::default()
        }
    }

    pub(super) fn wait_after(&mut self, failure: &Failure, now: Instant) {
        let random = rand::random::<f64>();
        let (connection, wait) = match failure {
            Failure::Refused {
                kind: Some(ProblemType::CertificateRevoked),
                ..
            } => (
                Connection::Revoked,
                self.backoff.after_final_refusal(random),
            ),
            Failure::Refused {
                kind: Some(ProblemType::HostQuarantined),
                ..
            } => (
                Connection::Quarantined,
                self.backoff.after_final_refusal(random),
            ),
            Failure::Refused {
                kind: Some(ProblemType::UnsupportedVersion | ProblemType::CertificateRequired),
                ..
            } => (
                Connection::Refused,
                self.backoff.after_final_refusal(random),
            ),
            Failure::Refused {
                retry_after: Some(asked),
                ..
            } => (Connection::Busy, self.backoff.as_asked(*asked, random)),
            Failure::Refused {
                status: 429 | 503, ..
            } => (Connection::Busy, self.backoff.after_failure(random)),
            Failure::Refused { .. } | Failure::CertificateRefused(_) => {
                (Connection::Refused, self.backoff.after_failure(random))
            }
            Failure::WrongServer(_) | Failure::BadAnswer(_) => {
                (Connection::WrongServer, self.backoff.after_failure(random))
            }
            Failure::Unreachable(_) => {
                (Connection::Unreachable, self.backoff.after_failure(random))
            }
        };
        let text = failure.to_string();
        if self.last_error.as_deref() != Some(&text) {
            tracing::warn!(retry_in_ms = wait.as_millis() as u64, "{text}");
        }
        self.connection = connection;
        self.last_error = Some(text);
        self.retry_at = now + wait;
    }
}
