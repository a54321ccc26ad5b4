//! Requests that are slow to arrive, machines that pause, and clocks that are set.

use super::*;

#[test]
fn a_pause_of_the_whole_machine_breaks_the_chain_although_its_clocks_stood_still() {
    let mut state = HostState::default();
    take(&mut state, &batch(10_000, vec![frame(1, 10_000)]), 0);
    // Ten seconds later by its own clocks, four minutes later by ours: a pause or a slow request.
    let taken = take(&mut state, &batch(20_000, vec![frame(2, 20_000)]), 230_000);
    assert_eq!(taken.evidence, []);
    assert_eq!(state.last.unwrap().at, at(20_000));
    // The next one shows which.
    let taken = take(&mut state, &batch(30_000, vec![frame(3, 30_000)]), 230_000);
    assert_eq!(kinds(&taken.evidence), ["live", "resumed"]);
    assert_eq!(state.last.unwrap().at, at(260_000));
    // A slow network is not a pause.
    let slow = take(&mut state, &batch(40_000, vec![frame(4, 40_000)]), 234_000);
    assert_eq!(slow.evidence, []);
}

#[test]
fn a_pause_after_which_the_wall_clock_is_put_right_is_told_at_once() {
    let mut state = HostState::default();
    take(&mut state, &batch(10_000, vec![frame(1, 10_000)]), 0);
    let mut after = batch(20_000, vec![frame(2, 20_000)]);
    after.sent.wall_ms += 230_400;
    after.frames[0].clocks.wall_ms += 230_400;
    let taken = take(&mut state, &after, 230_000);
    assert_eq!(kinds(&taken.evidence), ["live", "resumed"]);
    assert_eq!(state.last.unwrap().at, at(250_000));
}

#[test]
fn a_request_that_is_slow_to_arrive_moves_no_frame() {
    let mut state = HostState::default();
    for n in 1..=9_i64 {
        let boot_ms = n * 10_000;
        let delay_ms = if n % 3 == 0 { 18_000 } else { 100 };
        let batch = batch(boot_ms, vec![frame(n as u64, boot_ms)]);
        let taken = take(&mut state, &batch, delay_ms);
        assert_eq!(taken.evidence, [], "frame {n}");
        let off_ms = state.last.unwrap().at.since(at(boot_ms)).0;
        assert!((0..=200).contains(&off_ms), "frame {n} is {off_ms} ms off");
    }
}

#[test]
fn frames_that_were_placed_by_a_slow_first_request_are_put_right_by_a_faster_one() {
    let mut state = HostState::default();
    take(&mut state, &batch(10_000, vec![frame(1, 10_000)]), 18_000);
    let taken = take(&mut state, &batch(20_000, vec![frame(2, 20_000)]), 0);
    let booted = taken.evidence.iter().find_map(|row| match row.kind {
        EvidenceKind::Booted { boot } => Some((boot, row.valid_from, row.valid_to)),
        _ => None,
    });
    assert_eq!(booted, Some((boot(1), at(0), at(10_000))));
    let open = state.open_evidence(host()).unwrap();
    assert_eq!((open.valid_from, open.valid_to), (at(10_000), at(20_000)));
}

#[test]
fn a_batch_whose_place_is_not_known_is_asked_for_again() {
    let mut state = HostState::default();
    let first = batch(10_000, vec![frame(1, 10_000)]);
    // The first of this boot: it may have waited for any time.
    assert!(state.asks_again(&first, at(10_000), true));
    assert!(!state.asks_again(&first, at(10_000), false));
    take(&mut state, &first, 0);
    let next = batch(20_000, vec![frame(2, 20_000)]);
    assert!(!state.asks_again(&next, at(20_000), true));
    assert!(state.asks_again(&next, at(38_000), true));
    // A live frame alone is taken; its place matters little.
    assert!(!state.asks_again(&next, at(38_000), false));
    // Others may be of before a pause or after it, until the lag is confirmed.
    let backlog = |sent_ms| batch(sent_ms, vec![frame(6, 60_000), frame(3, 30_000)]);
    assert!(state.asks_again(&backlog(60_000), at(90_000), false));
    assert!(state.asks_again(&backlog(62_000), at(92_000), false));
    assert!(!state.asks_again(&backlog(66_000), at(96_000), false));
    // Nobody is asked for ever.
    let mut state = HostState::default();
    take(&mut state, &first, 0);
    let answers: Vec<bool> = (0..20)
        .map(|n| {
            let delay_ms = n * n * 10_000;
            state.asks_again(&backlog(60_000 + n * 10_000), at(100_000 + delay_ms), false)
        })
        .collect();
    assert!(answers[0] && answers.contains(&false), "{answers:?}");
}

#[test]
fn a_clock_that_is_set_is_told_once_and_a_sleep_is_no_step() {
    let mut state = HostState::default();
    let send = |state: &mut HostState, n: u64, wall_off: i64, slept: i64| {
        let boot_ms = n as i64 * 10_000 + slept;
        let mut frame = frame(n, boot_ms);
        frame.clocks.mono_ms -= slept;
        let mut batch = batch(boot_ms, vec![frame]);
        batch.sent.wall_ms += wall_off;
        batch.sent.mono_ms -= slept;
        let taken = take(state, &batch, 40);
        (
            taken.clock_step.map(|step| step.0),
            taken.pause.map(|pause| pause.slept.0),
        )
    };
    assert_eq!(send(&mut state, 1, 0, 0), (None, None));
    assert_eq!(send(&mut state, 2, 900, 0), (None, None), "a slow reading");
    assert_eq!(send(&mut state, 3, -7_200_000, 0), (Some(-7_200_000), None));
    assert_eq!(
        send(&mut state, 4, -7_200_000, 0),
        (None, None),
        "told once"
    );
    let asleep = 3_600_000;
    assert_eq!(
        send(&mut state, 5, -7_200_000, asleep),
        (None, Some(asleep))
    );
    assert_eq!(send(&mut state, 6, -7_200_000, asleep), (None, None));
    assert_eq!(send(&mut state, 7, 0, asleep), (Some(7_200_000), None));
}
