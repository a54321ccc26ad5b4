//! Replacing the certificate authority in phases, each with a way back.
//!
//! | phase | agents trust | agents' certificates by | server's certificate by |
//! |---|---|---|---|
//! | [`Steady`](Rotation::Steady) | the one CA | it | it |
//! | [`TrustBoth`](Rotation::TrustBoth) | old and new | the old | the old |
//! | [`Reissue`](Rotation::Reissue) | old and new | the new | the old |
//! | [`Dropped`](Rotation::Dropped) | the new | the new | the new |
//!
//! While both are trusted the server also shows the old CA's key certified by the new one, so that an
//! agent that trusts either can check it. In `Dropped` the old CA is kept, trusted by nobody, until
//! the next rotation begins: that is what makes a way back from it.
//!
//! Which step is possible, and which hosts it would cut off, is decided here; keys, files and TLS are
//! the caller's.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use watchkeep_shared::{CaId, UnixMillis};

/// Which CAs there are and what each is for; `C` identifies a CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Rotation<C> {
    /// One CA.
    Steady {
        /// It.
        ca: C,
    },
    /// Agents learn to trust a new one.
    TrustBoth {
        /// The one that signs.
        old: C,
        /// The one that will.
        new: C,
    },
    /// Agents get new certificates.
    Reissue {
        /// The one that agents need no more once they have them.
        old: C,
        /// The one that signs.
        new: C,
    },
    /// The old one counts no more.
    Dropped {
        /// Kept for the way back.
        old: C,
        /// The one that signs.
        new: C,
    },
}

/// What a person asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<C> {
    /// Trust this new CA too.
    Begin(C),
    /// Let the new CA sign.
    Reissue,
    /// Drop the old CA.
    Finish,
    /// To the phase before.
    Back,
}

/// A step that does not follow from the phase; the text is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoStep {
    /// A rotation is under way.
    #[error("a rotation is under way: finish it, or go back, before another begins")]
    UnderWay,
    /// None is under way.
    #[error("no rotation is under way: `ca rotate begin` begins one")]
    NotBegun,
    /// The new CA signs already.
    #[error("the new CA signs already: `ca rotate finish` is the next step")]
    Reissuing,
    /// The new CA does not sign yet.
    #[error("the new CA does not sign yet: `ca rotate reissue` is the next step")]
    NotReissued,
    /// The old CA is dropped already.
    #[error("the old CA is dropped already")]
    Finished,
    /// There was no step before.
    #[error("there is nothing to go back to")]
    AtStart,
}

/// What is known of a host's certificate and trust, from its own requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTrust {
    /// The CA of the certificate that it came with last; none before its first request.
    pub holds: Option<CaId>,
    /// When that certificate was given out, to the second.
    pub issued_at: UnixMillis,
    /// The CAs that it says it trusts; empty from an agent that does not say.
    pub trusts: Vec<CaId>,
}

/// Why a host has not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PendingReason {
    /// It can't connect any more: it needs a new key.
    CutOff,
    /// It has not connected since its certificate was issued, so it is not known which one
    /// it holds.
    Unheard,
    /// Its certificate is of the other CA.
    OldCertificate,
    /// It does not trust all that it should yet.
    OldTrust,
}

impl PendingReason {
    /// For people, as in `web-1: holds a certificate of the old CA`.
    pub const fn text(self) -> &'static str {
        match self {
            Self::CutOff => "can't connect any more: give it a new key with `host rekey`",
            Self::Unheard => "has not connected since its last certificate was issued",
            Self::OldCertificate => "holds a certificate of the other CA",
            Self::OldTrust => "does not trust the new CA yet",
        }
    }
}

impl<C> Rotation<C> {
    /// The phase as written in files and answers.
    pub const fn phase(&self) -> &'static str {
        match self {
            Self::Steady { .. } => "steady",
            Self::TrustBoth { .. } => "trust_both",
            Self::Reissue { .. } => "reissue",
            Self::Dropped { .. } => "dropped",
        }
    }

    /// The CA that signs agents' certificates, and that new enrolment tokens name.
    pub const fn signs(&self) -> &C {
        match self {
            Self::Steady { ca } => ca,
            Self::TrustBoth { old, .. } => old,
            Self::Reissue { new, .. } | Self::Dropped { new, .. } => new,
        }
    }

    /// The CA of the server's certificate.
    pub const fn serves(&self) -> &C {
        match self {
            Self::Steady { ca } => ca,
            Self::TrustBoth { old, .. } | Self::Reissue { old, .. } => old,
            Self::Dropped { new, .. } => new,
        }
    }

    /// The CAs that agents and collector trust: the server's first.
    pub fn trusted(&self) -> Vec<&C> {
        match self {
            Self::Steady { ca } => vec![ca],
            Self::TrustBoth { old, new } | Self::Reissue { old, new } => vec![old, new],
            Self::Dropped { new, .. } => vec![new],
        }
    }

    /// Every CA whose key is kept.
    pub fn kept(&self) -> Vec<&C> {
        match self {
            Self::Steady { ca } => vec![ca],
            Self::TrustBoth { old, new }
            | Self::Reissue { old, new }
            | Self::Dropped { old, new } => vec![old, new],
        }
    }

    /// The same phase with something else in place of each CA.
    pub fn try_map<D, E>(&self, mut f: impl FnMut(&C) -> Result<D, E>) -> Result<Rotation<D>, E> {
        Ok(match self {
            Self::Steady { ca } => Rotation::Steady { ca: f(ca)? },
            Self::TrustBoth { old, new } => Rotation::TrustBoth {
                old: f(old)?,
                new: f(new)?,
            },
            Self::Reissue { old, new } => Rotation::Reissue {
                old: f(old)?,
                new: f(new)?,
            },
            Self::Dropped { old, new } => Rotation::Dropped {
                old: f(old)?,
                new: f(new)?,
            },
        })
    }

    /// The phase after a step.
    pub fn step(self, step: Step<C>) -> Result<Self, NoStep> {
        match (self, step) {
            (Self::Steady { ca: old } | Self::Dropped { new: old, .. }, Step::Begin(new)) => {
                Ok(Self::TrustBoth { old, new })
            }
            (Self::TrustBoth { .. } | Self::Reissue { .. }, Step::Begin(_)) => {
                Err(NoStep::UnderWay)
            }
            (Self::TrustBoth { old, new }, Step::Reissue)
            | (Self::Dropped { old, new }, Step::Back) => Ok(Self::Reissue { old, new }),
            (Self::Reissue { .. }, Step::Reissue) => Err(NoStep::Reissuing),
            (Self::Reissue { old, new }, Step::Finish) => Ok(Self::Dropped { old, new }),
            (Self::TrustBoth { .. }, Step::Finish) => Err(NoStep::NotReissued),
            (Self::Dropped { .. }, Step::Reissue | Step::Finish) => Err(NoStep::Finished),
            (Self::Reissue { old, new }, Step::Back) => Ok(Self::TrustBoth { old, new }),
            (Self::TrustBoth { old, .. }, Step::Back) => Ok(Self::Steady { ca: old }),
            (Self::Steady { .. }, Step::Back) => Err(NoStep::AtStart),
            (Self::Steady { .. }, Step::Reissue | Step::Finish) => Err(NoStep::NotBegun),
        }
    }
}

impl Rotation<CaId> {
    /// Whether going to `after` takes a CA away that some host may need: one that is trusted now, or
    /// one that is only kept, whose way back ends.
    pub fn takes_away(&self, after: &Self) -> bool {
        let (trusted, kept) = (after.trusted(), after.kept());
        self.trusted().iter().any(|ca| !trusted.contains(ca))
            || self.kept().iter().any(|ca| !kept.contains(ca))
    }

    /// Whether a host can connect in this phase: each side can check the other's certificate.
    pub fn can_connect(&self, host: &HostTrust) -> bool {
        let trusted = self.trusted();
        let knows_us = match host.trusts.as_slice() {
            // With its certificate it got what was trusted then, the CA of the certificate included.
            [] => host.holds.is_some_and(|held| trusted.contains(&&held)),
            trusts => trusts.iter().any(|ca| trusted.contains(&ca)),
        };
        knows_us && host.holds.is_some_and(|held| trusted.contains(&&held))
    }

    /// Whether a host must be sent the list of CAs to trust.
    pub fn must_learn(&self, trusts: &[CaId]) -> bool {
        let trusted = self.trusted();
        // An agent that does not say would not understand either; it learns with its next certificate.
        !trusts.is_empty()
            && (trusts.len() != trusted.len() || trusts.iter().any(|ca| !trusted.contains(&ca)))
    }

    /// Whether a host that holds a certificate of `held` must get another.
    pub fn must_renew(&self, held: CaId) -> bool {
        held != *self.signs()
    }

    /// What a host still lacks in this phase; `None` if nothing. `newest` is when the newest
    /// certificate was given out that is good for the host.
    pub fn pending(&self, host: &HostTrust, newest: UnixMillis) -> Option<PendingReason> {
        let Some(held) = host.holds else {
            return Some(PendingReason::Unheard);
        };
        if !self.can_connect(host) {
            return Some(PendingReason::CutOff);
        }
        // Its certificate's own time is cut to the second.
        if newest.0 >= host.issued_at.0 + 1_000 {
            return Some(PendingReason::Unheard);
        }
        if self.must_renew(held) {
            return Some(PendingReason::OldCertificate);
        }
        let inferred = [held];
        let trusts = match host.trusts.as_slice() {
            [] => &inferred,
            trusts => trusts,
        };
        let complete = self.trusted().iter().all(|ca| trusts.contains(ca));
        (!complete).then_some(PendingReason::OldTrust)
    }

    /// Whether the step to `after` would cut a host off, as far as is known.
    pub fn would_lose(
        &self,
        after: &Self,
        host: &HostTrust,
        newest: UnixMillis,
    ) -> Option<PendingReason> {
        if !self.takes_away(after) {
            return None;
        }
        match self.pending(host, newest) {
            Some(PendingReason::Unheard) => Some(PendingReason::Unheard),
            // Already lost; a way back that helps is worth keeping, and there may be none.
            Some(PendingReason::CutOff) => host
                .holds
                .filter(|held| self.kept().contains(&held))
                .map(|_| PendingReason::CutOff),
            pending if !after.can_connect(host) => pending.or(Some(PendingReason::OldCertificate)),
            _ => None,
        }
    }
}
