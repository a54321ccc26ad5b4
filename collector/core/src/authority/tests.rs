use proptest::prelude::*;

use super::*;

const OLD: CaId = CaId(1);
const NEW: CaId = CaId(2);

fn host(holds: CaId, trusts: &[CaId]) -> HostTrust {
    HostTrust {
        holds: Some(holds),
        issued_at: UnixMillis(0),
        trusts: trusts.to_vec(),
    }
}

#[test]
fn every_step_forward_has_its_way_back() {
    let steady = Rotation::Steady { ca: OLD };
    let both = steady.step(Step::Begin(NEW)).unwrap();
    let reissue = both.step(Step::Reissue).unwrap();
    let dropped = reissue.step(Step::Finish).unwrap();
    assert_eq!(dropped.step(Step::Back), Ok(reissue));
    assert_eq!(reissue.step(Step::Back), Ok(both));
    assert_eq!(both.step(Step::Back), Ok(steady));
    assert_eq!(steady.step(Step::Back), Err(NoStep::AtStart));
    // The next rotation replaces the new one, and the old one's key is kept no longer.
    let next = dropped.step(Step::Begin(CaId(3))).unwrap();
    assert_eq!(next.kept(), [&NEW, &CaId(3)]);
}

#[test]
fn steps_out_of_order_are_refused_and_say_what_comes_next() {
    let steady = Rotation::Steady { ca: OLD };
    let (both, reissue) = (
        Rotation::TrustBoth { old: OLD, new: NEW },
        Rotation::Reissue { old: OLD, new: NEW },
    );
    let dropped = Rotation::Dropped { old: OLD, new: NEW };
    for (from, step, why) in [
        (steady, Step::Reissue, NoStep::NotBegun),
        (steady, Step::Finish, NoStep::NotBegun),
        (both, Step::Begin(CaId(3)), NoStep::UnderWay),
        (both, Step::Finish, NoStep::NotReissued),
        (reissue, Step::Begin(CaId(3)), NoStep::UnderWay),
        (reissue, Step::Reissue, NoStep::Reissuing),
        (dropped, Step::Reissue, NoStep::Finished),
        (dropped, Step::Finish, NoStep::Finished),
    ] {
        assert_eq!(from.step(step), Err(why));
    }
}

#[test]
fn a_host_that_has_not_followed_is_told_from_one_that_has() {
    let reissue = Rotation::Reissue { old: OLD, new: NEW };
    let dropped = Rotation::Dropped { old: OLD, new: NEW };
    let newest = UnixMillis(0);
    let lost = |host: &HostTrust| reissue.would_lose(&dropped, host, newest);
    assert_eq!(lost(&host(NEW, &[OLD, NEW])), None);
    // An agent that does not say what it trusts got the new CA with its certificate.
    assert_eq!(lost(&host(NEW, &[])), None);
    assert_eq!(
        lost(&host(OLD, &[OLD, NEW])),
        Some(PendingReason::OldCertificate)
    );
    assert_eq!(lost(&host(NEW, &[OLD])), Some(PendingReason::OldTrust));
    assert_eq!(lost(&HostTrust::default()), Some(PendingReason::Unheard));
    let seen = host(NEW, &[OLD, NEW]);
    let given_since = reissue.would_lose(&dropped, &seen, UnixMillis(1_000));
    assert_eq!(given_since, Some(PendingReason::Unheard));
    // One of a CA that is long gone is lost whatever is done, and holds nothing up.
    assert_eq!(lost(&host(CaId(9), &[CaId(9)])), None);
    // The key of the old CA is the last way back to a host that slept.
    let next = dropped.step(Step::Begin(CaId(3))).unwrap();
    let slept = host(OLD, &[OLD]);
    assert_eq!(dropped.pending(&slept, newest), Some(PendingReason::CutOff));
    assert_eq!(
        dropped.would_lose(&next, &slept, newest),
        Some(PendingReason::CutOff)
    );
    // A first rotation takes nothing away.
    let steady = Rotation::Steady { ca: OLD };
    let both = steady.step(Step::Begin(NEW)).unwrap();
    assert_eq!(
        steady.would_lose(&both, &HostTrust::default(), newest),
        None
    );
}

#[test]
fn what_a_host_is_told_follows_from_what_it_says() {
    let both = Rotation::TrustBoth { old: OLD, new: NEW };
    assert!(both.must_learn(&[OLD]));
    assert!(!both.must_learn(&[NEW, OLD]));
    assert!(!both.must_learn(&[]));
    let dropped = Rotation::Dropped { old: OLD, new: NEW };
    assert!(dropped.must_learn(&[OLD, NEW]));
    assert!(!both.must_renew(OLD) && both.must_renew(NEW) && dropped.must_renew(OLD));
}

/// A host as it is, and what the collector knows of it.
#[derive(Clone, Debug)]
struct Machine {
    is: HostTrust,
    /// It reports what it trusts, and learns from acknowledgements.
    modern: bool,
    known: HostTrust,
    newest: UnixMillis,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Turn {
    Step(usize),
    /// A host sends a heartbeat; it may renew then, and either answer may get lost.
    Beat {
        host: usize,
        renews: bool,
        ack_lost: bool,
        renewal_lost: bool,
    },
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let beat = (0..3_usize, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(host, renews, ack_lost, renewal_lost)| Turn::Beat {
            host,
            renews,
            ack_lost,
            renewal_lost,
        },
    );
    proptest::collection::vec(
        prop_oneof![1 => (0..4_usize).prop_map(Turn::Step), 4 => beat],
        0..120,
    )
}

fn beat(now: &Rotation<CaId>, one: &mut Machine, at: UnixMillis, turn: &Turn) {
    let Turn::Beat {
        renews,
        ack_lost,
        renewal_lost,
        ..
    } = turn
    else {
        return;
    };
    // An agent's real trust decides, whether it reports it or not.
    if !now.can_connect(&one.is) {
        return;
    }
    let says = one.is.trusts.clone();
    one.known = HostTrust {
        trusts: if one.modern { says } else { Vec::new() },
        ..one.is.clone()
    };
    let all: Vec<CaId> = now.trusted().into_iter().copied().collect();
    if !ack_lost && now.must_learn(&one.known.trusts) {
        one.is.trusts.clone_from(&all);
    }
    if *renews {
        one.newest = at;
        if !renewal_lost {
            one.is = HostTrust {
                holds: Some(*now.signs()),
                issued_at: at,
                trusts: all,
            };
        }
    }
}

proptest! {
    /// Whatever gets lost and whoever sleeps, a step that the collector allows cuts nobody off.
    #[test]
    fn an_allowed_step_cuts_nobody_off(turns in turns()) {
        let mut now = Rotation::Steady { ca: OLD };
        let begun = HostTrust { holds: Some(OLD), issued_at: UnixMillis(0), trusts: vec![OLD] };
        let machine = |modern| Machine {
            is: begun.clone(),
            modern,
            known: HostTrust::default(),
            newest: UnixMillis(0),
        };
        let mut machines = [machine(true), machine(true), machine(false)];
        let mut next = NEW;
        let mut at = UnixMillis(0);
        for turn in turns {
            at = UnixMillis(at.0 + 2_000);
            match turn {
                Turn::Step(kind) => {
                    let step = [Step::Begin(next), Step::Reissue, Step::Finish, Step::Back][kind];
                    let Ok(after) = now.step(step) else { continue };
                    let loses = |one: &Machine| now.would_lose(&after, &one.known, one.newest);
                    if machines.iter().any(|one| loses(one).is_some()) {
                        continue;
                    }
                    now = after;
                    next = CaId(next.0 + 1);
                }
                Turn::Beat { host, .. } => beat(&now, &mut machines[host], at, &turn),
            }
            for one in &machines {
                prop_assert!(now.can_connect(&one.is), "{now:?} {one:?}");
            }
        }
    }

    /// Once every host has reported and has nothing left to do, every step is allowed that
    /// follows, and the whole way there and back can be walked.
    #[test]
    fn hosts_that_followed_hold_nothing_up(steps in proptest::collection::vec(0..4_usize, 0..40)) {
        let mut now = Rotation::Steady { ca: OLD };
        let mut next = NEW;
        let mut one = host(OLD, &[OLD]);
        for kind in steps {
            let step = [Step::Begin(next), Step::Reissue, Step::Finish, Step::Back][kind];
            let Ok(after) = now.step(step) else { continue };
            prop_assert_eq!(now.would_lose(&after, &one, UnixMillis(0)), None);
            now = after;
            next = CaId(next.0 + 1);
            one = HostTrust {
                holds: Some(*now.signs()),
                issued_at: UnixMillis(0),
                trusts: now.trusted().into_iter().copied().collect(),
            };
            prop_assert_eq!(now.pending(&one, UnixMillis(0)), None);
        }
    }
}
