//! Whether one identity is used by two machines: a copied disk, a cloned virtual machine, a machine
//! that was set back to an earlier state while its copy runs on.
//!
//! Every batch names the agent process that sent it. A restart or a reboot ends one process before
//! the next begins; two that send side by side, or one whose numbers and clock run against each
//! other, can't be one machine. Frames in a batch that belong to earlier processes (a spool that is
//! sent later) prove nothing and are not looked at.
//!
//! It errs on the side of patience: an answer that was long on its way, a restart in the middle of
//! an outage or a lost state of the collector is never taken for a clone. Pure; it decides nothing.

use serde::{Deserialize, Serialize};
use watchkeep_shared::{
    BootId, InstanceId, UnixMillis,
    wire::{
        heartbeat::{Batch, Frame},
        limits,
    },
};

use super::HostState;
use crate::authority::HostTrust;

/// Agent processes remembered.
const MAX_SENDERS: usize = 8;
/// Two processes of one boot must overlap by more than this on that boot's own clock, milliseconds.
const SAME_BOOT_OVERLAP_MS: i64 = 5_000;
/// Two boots must overlap by more than this by the collector's clock, milliseconds: longer than any
/// proxy holds a request of an agent that is gone.
const OTHER_BOOT_OVERLAP_MS: i64 = 60_000;
/// A batch of one process that was sent so much earlier than one before, by its own clock, is
/// either a straggler or of a machine that was set back, milliseconds.
const SET_BACK_MS: i64 = 60_000;
/// So many such batches in a row, each later than the one before, are no stragglers.
const SET_BACK_BATCHES: u32 = 5;

/// The agent processes that sent lately, the latest last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Senders(Vec<Sender>);

/// One agent process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sender {
    boot: BootId,
    instance: InstanceId,
    /// Where its last batch came from, for people.
    from: String,
    first_at: UnixMillis,
    last_at: UnixMillis,
    /// The boot clock when its first batch was sent, and the highest such.
    first_sent_ms: i64,
    last_sent_ms: i64,
    /// Its newest frame: number and boot clock.
    newest: Option<(u64, i64)>,
    /// The last batch that was sent earlier than one before, and how many such came in a row.
    #[serde(default)]
    set_back: Option<(i64, u32)>,
}

/// Why a host can't be one machine; the text is for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// When it was found out.
    pub since: UnixMillis,
    /// What was seen.
    pub detail: String,
}

/// Where a batch comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The address that sent it, for people.
    pub from: &'a str,
    /// The certificate that it came with, and whom its sender trusts.
    pub trust: &'a HostTrust,
}

/// Whether a batch may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Welcome,
    /// It may: the host has a new key, and its quarantine is over.
    Lifted,
    /// It may not: it is the proof that the identity is used twice.
    Found,
    /// It may not: that was found before, and its key is the old one.
    Quarantined,
}

/// Looks at a batch before anything else does. A host in quarantine is believed again once it comes
/// with a certificate that was given out since; the host's certificates are not renewed meanwhile.
pub fn admit(
    state: &mut HostState,
    batch: &Batch,
    origin: Origin<'_>,
    at: UnixMillis,
) -> Admission {
    let mut admission = Admission::Welcome;
    if let Some(quarantine) = &state.quarantine {
        if origin.trust.issued_at.0 + 1_000 <= quarantine.since.0 {
            return Admission::Quarantined;
        }
        state.quarantine = None;
        state.senders = Senders::default();
        admission = Admission::Lifted;
    }
    if let Some(found) = state.senders.take(batch, origin.from, at) {
        state.quarantine = Some(found);
        return Admission::Found;
    }
    admission
}

impl Senders {
    /// Takes a batch in, which came from `from`; gives the proof if this can't be one machine.
    pub fn take(&mut self, batch: &Batch, from: &str, at: UnixMillis) -> Option<Quarantine> {
        let i = self.place(batch, from, at);
        let sender = &mut self.0[i];
        from.clone_into(&mut sender.from);
        sender.last_at = sender.last_at.max(at);
        let backwards = sender.runs_backwards(batch);
        sender.last_sent_ms = sender.last_sent_ms.max(batch.sent.boot_ms);
        let proof = backwards.or_else(|| self.overlap(i))?;
        Some(Quarantine {
            since: at,
            detail: proof,
        })
    }

    /// The place of the batch's process, which becomes the last.
    fn place(&mut self, batch: &Batch, from: &str, at: UnixMillis) -> usize {
        let known = self
            .0
            .iter()
            .position(|sender| sender.instance == batch.instance && sender.boot == batch.boot);
        let sender = match known {
            Some(i) => self.0.remove(i),
            None => Sender {
                boot: batch.boot,
                instance: batch.instance,
                from: from.to_owned(),
                first_at: at,
                last_at: at,
                first_sent_ms: batch.sent.boot_ms,
                last_sent_ms: batch.sent.boot_ms,
                newest: None,
                set_back: None,
            },
        };
        if self.0.len() == MAX_SENDERS {
            self.0.remove(0);
        }
        self.0.push(sender);
        self.0.len() - 1
    }

    /// Another process that sent while this one did.
    fn overlap(&self, i: usize) -> Option<String> {
        let this = &self.0[i];
        self.0.iter().filter(|other| *other != this).find_map(|other| {
            let (overlap_ms, least_ms) = if other.boot == this.boot {
                let begin = this.first_sent_ms.max(other.first_sent_ms);
                (this.last_sent_ms.min(other.last_sent_ms).saturating_sub(begin), SAME_BOOT_OVERLAP_MS)
            } else {
                let begin = this.first_at.max(other.first_at);
                (this.last_at.min(other.last_at).since(begin).0, OTHER_BOOT_OVERLAP_MS)
            };
            (overlap_ms > least_ms).then(|| {
                format!(
                    "two agents use its certificate side by side, one at {} and one at {}: a copied disk or a cloned machine",
                    other.from, this.from
                )
            })
        })
    }
}

impl Sender {
    /// Within one process numbers and clock only grow, and together.
    fn runs_backwards(&mut self, batch: &Batch) -> Option<String> {
        let own = batch.frames.iter().filter(|frame| {
            frame.instance.is_none_or(|i| i == self.instance)
                && frame.boot.is_none_or(|b| b == self.boot)
                && is_plausible(frame, batch)
        });
        for frame in own {
            let (seq, boot_ms) = (frame.seq, frame.clocks.boot_ms);
            if let Some((newest, newest_ms)) = self.newest {
                let crossed = (seq <= newest && boot_ms > newest_ms)
                    || (seq > newest && boot_ms < newest_ms)
                    || (seq == newest && boot_ms != newest_ms);
                if crossed {
                    return Some(format!(
                        "heartbeat {seq} came twice with different content, last from {}: a running machine was copied",
                        self.from
                    ));
                }
                if seq <= newest {
                    continue;
                }
            }
            self.newest = Some((seq, boot_ms));
        }
        self.was_set_back(batch.sent.boot_ms)
    }

    fn was_set_back(&mut self, sent_ms: i64) -> Option<String> {
        if sent_ms >= self.last_sent_ms.saturating_sub(SET_BACK_MS) {
            self.set_back = None;
            return None;
        }
        let in_a_row = match self.set_back {
            Some((before, count)) if sent_ms > before => count + 1,
            _ => 1,
        };
        self.set_back = Some((sent_ms, in_a_row));
        (in_a_row >= SET_BACK_BATCHES).then(|| {
            format!(
                "it runs {} s behind what it reported before, last from {}: a running machine was set back to an earlier state, or copied",
                self.last_sent_ms.saturating_sub(sent_ms) / 1_000,
                self.from
            )
        })
    }
}

/// Whether a frame may be taken by its number and clock. One that is refused is a fault of the agent
/// that made it, and no proof of a second one.
fn is_plausible(frame: &Frame, batch: &Batch) -> bool {
    let age_ms = batch.sent.boot_ms.saturating_sub(frame.clocks.boot_ms);
    frame.seq > 0 && (-limits::MAX_FRAME_AHEAD_MS..=limits::MAX_FRAME_AGE_MS).contains(&age_ms)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;
    use watchkeep_shared::{ids::SchemaId, wire::heartbeat::Clocks};

    use super::*;

    const INTERVAL_MS: i64 = 10_000;

    /// One machine as the agent on it sees it.
    #[derive(Clone, Debug)]
    struct Machine {
        boot: u128,
        instance: u128,
        /// The collector's clock when the boot clock was 0.
        booted: i64,
        seq: u64,
        spool: Vec<Frame>,
    }

    fn frame(seq: u64, boot_ms: i64) -> Frame {
        let clocks = Clocks {
            wall_ms: boot_ms,
            mono_ms: boot_ms,
            boot_ms,
        };
        Frame {
            boot: None,
            instance: None,
            seq,
            clocks,
            interval_ms: INTERVAL_MS as u32,
            schema: SchemaId(1),
            values: Vec::new(),
            services: None,
            events: Vec::new(),
        }
    }

    impl Machine {
        fn new(boot: u128, now: i64) -> Self {
            Self {
                boot,
                instance: boot * 1_000,
                booted: now - 5_000,
                seq: 0,
                spool: Vec::new(),
            }
        }

        fn batch(&mut self, now: i64) -> Batch {
            self.seq += 1;
            let boot_ms = now - self.booted;
            self.spool.push(frame(self.seq, boot_ms));
            self.resend(now)
        }

        /// What is not acknowledged, with the clocks of this attempt.
        fn resend(&self, now: i64) -> Batch {
            let boot_ms = now - self.booted;
            Batch {
                v: 1,
                agent_version: String::new(),
                boot: BootId(Uuid::from_u128(self.boot)),
                instance: InstanceId(Uuid::from_u128(self.instance)),
                sent: Clocks {
                    wall_ms: now,
                    mono_ms: boot_ms,
                    boot_ms,
                },
                policy_version: 0,
                trusts: Vec::new(),
                refused: None,
                troubles: None,
                schemas: Vec::new(),
                frames: self.spool.clone(),
            }
        }

        /// A new process; what the one before has left is its first load.
        fn restart(&mut self) {
            let (boot, instance) = (self.boot, self.instance);
            self.disown(boot, instance);
            self.instance += 1;
            self.seq = 0;
        }

        fn reboot(&mut self, now: i64) {
            let (boot, instance) = (self.boot, self.instance);
            self.disown(boot, instance);
            self.boot += 1;
            self.instance = self.boot * 1_000;
            self.booted = now - 4_000;
            self.seq = 0;
        }

        fn disown(&mut self, boot: u128, instance: u128) {
            for frame in &mut self.spool {
                frame.boot.get_or_insert(BootId(Uuid::from_u128(boot)));
                frame
                    .instance
                    .get_or_insert(InstanceId(Uuid::from_u128(instance)));
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Life {
        Beat {
            delay_ms: i64,
            answered: bool,
        },
        /// The request reaches the collector although its process has given up or is gone.
        Straggle {
            after_ms: i64,
        },
        Restart,
        Reboot,
        Gap(i64),
        /// The collector crashes: it remembers an older state.
        Forget,
    }

    fn lives() -> impl Strategy<Value = Vec<Life>> {
        let life = prop_oneof![
            12 => (0_i64..20_000, any::<bool>())
                .prop_map(|(delay_ms, answered)| Life::Beat { delay_ms, answered }),
            2 => (0_i64..50_000).prop_map(|after_ms| Life::Straggle { after_ms }),
            2 => Just(Life::Restart),
            1 => Just(Life::Reboot),
            1 => (0_i64..3_600_000).prop_map(Life::Gap),
            1 => Just(Life::Forget),
        ];
        prop::collection::vec(life, 1..200)
    }

    proptest! {
        /// One machine, whatever befalls it and the network, is never taken for two.
        #[test]
        fn one_machine_is_never_taken_for_two(lives in lives()) {
            let mut now = 1_800_000_000_000;
            let mut machine = Machine::new(1, now);
            let mut senders = Senders::default();
            let mut written = senders.clone();
            // Arrivals by time; a straggler comes between later ones.
            let mut on_the_way: Vec<(i64, Batch)> = Vec::new();
            for (n, life) in lives.into_iter().enumerate() {
                match life {
                    Life::Beat { delay_ms, answered } => {
                        let batch = machine.batch(now);
                        on_the_way.push((now + delay_ms, batch));
                        // One request at a time: the next goes when this one is over.
                        now += delay_ms;
                        if answered {
                            machine.spool.clear();
                        }
                    }
                    Life::Straggle { after_ms } => {
                        let batch = machine.batch(now);
                        on_the_way.push((now + after_ms, batch));
                    }
                    Life::Restart => machine.restart(),
                    Life::Reboot => {
                        now += 1_000;
                        machine.reboot(now);
                    }
                    Life::Gap(ms) => now += ms,
                    Life::Forget => senders = written.clone(),
                }
                now += INTERVAL_MS;
                on_the_way.sort_by_key(|(at, _)| *at);
                let due = on_the_way.partition_point(|(at, _)| *at <= now);
                for (at, batch) in on_the_way.drain(..due) {
                    let proof = senders.take(&batch, "192.0.2.1", UnixMillis(at));
                    prop_assert_eq!(proof, None);
                }
                if n % 7 == 0 {
                    written = senders.clone();
                }
            }
        }

        /// Two machines with one identity are found out, whichever way the copy was made.
        #[test]
        fn two_machines_are_found_out(
            lead in 1_i64..50,
            phase_ms in 1_i64..INTERVAL_MS,
            resumed_after_ms in 0_i64..100_000_000,
            how in 0..3,
        ) {
            let mut now = 1_800_000_000_000;
            let mut one = Machine::new(1, now);
            let mut senders = Senders::default();
            let mut send = |machine: &mut Machine, now: i64, from: &str| {
                let batch = machine.batch(now);
                machine.spool.clear();
                senders.take(&batch, from, UnixMillis(now))
            };
            for _ in 0..lead {
                prop_assert_eq!(send(&mut one, now, "192.0.2.1"), None);
                now += INTERVAL_MS;
            }
            let mut two = one.clone();
            match how {
                // The disk was copied and booted elsewhere.
                0 => {
                    two.boot += 500;
                    two.instance = two.boot * 1_000;
                    two.booted = now;
                    two.seq = 0;
                }
                // It was copied running, and its agent started anew.
                1 => two.instance += 500,
                // It was copied running; its clock stood still until it was resumed.
                // By the millisecond in step numbers and clocks could not distinguish them.
                _ => two.booted += resumed_after_ms + i64::from(resumed_after_ms == phase_ms),
            }
            let mut found = None;
            for _ in 0..10 {
                found = found.or(send(&mut one, now, "192.0.2.1"));
                found = found.or(send(&mut two, now + phase_ms, "192.0.2.2"));
                now += INTERVAL_MS;
            }
            prop_assert!(found.is_some());
        }
    }

    #[test]
    fn a_frame_that_is_refused_proves_nothing() {
        let mut now = 1_800_000_000_000;
        let mut machine = Machine::new(1, now);
        let mut senders = Senders::default();
        let days_ms = limits::MAX_FRAME_AGE_MS + limits::MAX_FRAME_AHEAD_MS + 1;
        for off_ms in [0, days_ms, 0, -days_ms, 0] {
            let mut batch = machine.batch(now);
            batch.frames[0].clocks.boot_ms += off_ms;
            assert_eq!(senders.take(&batch, "192.0.2.1", UnixMillis(now)), None);
            machine.spool.clear();
            now += INTERVAL_MS;
        }
    }

    #[test]
    fn a_machine_that_was_set_back_alone_is_found_out_too() {
        let mut now = 1_800_000_000_000;
        let mut machine = Machine::new(1, now);
        let mut senders = Senders::default();
        let snapshot = machine.clone();
        for _ in 0..100 {
            let batch = machine.batch(now);
            assert_eq!(senders.take(&batch, "192.0.2.1", UnixMillis(now)), None);
            machine.spool.clear();
            now += INTERVAL_MS;
        }
        let mut back = snapshot;
        back.booted += now - 1_800_000_000_000;
        let found = (0..10).find_map(|n| {
            let at = now + n * INTERVAL_MS;
            let batch = back.batch(at);
            back.spool.clear();
            senders.take(&batch, "192.0.2.1", UnixMillis(at))
        });
        assert!(found.unwrap().detail.contains("set back"));
    }
}
