//! The fuzz targets' bodies on stable, within a test's time: each is given what once broke it
//! (`tests/fuzz/found/TARGET/`), its seeds, seeds that were bent, and bytes without sense. A
//! package with bodies includes this file into its tests; `tests/run.sh fuzz` goes on with other inputs
//! for a minute a target; `tests/fuzz/run.sh` looks longer, guided by coverage.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

/// How often bent seeds are tried, unless `PROPTEST_CASES` says otherwise; then they are others each
/// time.
const CASES: u32 = 400;

/// Seconds to go on for, with other inputs each time.
const SECONDS: &str = "WATCHKEEP_FUZZ_SECONDS";

/// One change to an input.
#[derive(Clone, Debug)]
enum Bend {
    Set(Index, u8),
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, u8),
    Insert(Index, Vec<u8>),
    Repeat(Index, u8, Index),
    /// Goes on like another seed from there.
    Splice(Index, Index, Index),
}

/// Calls `body` with everything; it panics where something is wrong.
pub(crate) fn check(target: &str, seeds: &[Vec<u8>], body: impl Fn(&[u8])) {
    for input in found(target) {
        body(&input);
    }
    for seed in seeds {
        body(seed);
    }
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let defaults = ProptestConfig::default();
    let config = ProptestConfig {
        cases: if asked { defaults.cases } else { CASES },
        failure_persistence: None,
        ..defaults
    };
    // The same each time in the suite; who asks for more wants others.
    let mut runner = if asked {
        TestRunner::new(config)
    } else {
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
    };
    let bent = (select(seeds.to_vec()), prop::collection::vec(bends(), 1..6));
    let bent = bent.prop_map(|(mut input, bends)| {
        for bend in &bends {
            bend.apply(&mut input, seeds);
        }
        input
    });
    let inputs = prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..300),
        6 => bent,
    ];
    let look = |runner: &mut TestRunner| {
        let checked = runner.run(&inputs, |input| {
            body(&input);
            Ok(())
        });
        if let Err(error) = checked {
            panic!("target {target}: {error}");
        }
    };
    look(&mut runner);
    let Ok(seconds) = std::env::var(SECONDS) else {
        return;
    };
    let seconds = seconds.parse().expect("WATCHKEEP_FUZZ_SECONDS is a number");
    let (begun, length) = (Instant::now(), Duration::from_secs(seconds));
    let mut rounds = 0;
    while begun.elapsed() < length {
        look(&mut TestRunner::new(runner.config().clone()));
        rounds += 1;
    }
    println!("{target}: {} inputs more", rounds * runner.config().cases);
}

fn found(target: &str) -> Vec<Vec<u8>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .find(|dir| dir.join("tests/fuzz/run.sh").is_file())
        .expect("it is in the workspace");
    let Ok(entries) = workspace.join("tests/fuzz/found").join(target).read_dir() else {
        return Vec::new();
    };
    entries
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect()
}

fn bends() -> impl Strategy<Value = Bend> {
    let index = any::<Index>;
    let telling = select(b"\0\x01\x7f\x80\xff\n\r \"'\\{}[]:,0-9aZ@=".to_vec());
    prop_oneof![
        3 => (index(), telling).prop_map(|(at, byte)| Bend::Set(at, byte)),
        3 => (index(), 1_u8..).prop_map(|(at, by)| Bend::Flip(at, by)),
        1 => index().prop_map(Bend::Cut),
        2 => (index(), any::<u8>()).prop_map(|(at, n)| Bend::Remove(at, n)),
        2 => (index(), prop::collection::vec(any::<u8>(), 1..12))
            .prop_map(|(at, bytes)| Bend::Insert(at, bytes)),
        2 => (index(), any::<u8>(), index()).prop_map(|(from, n, to)| Bend::Repeat(from, n, to)),
        2 => (index(), index(), index()).prop_map(|(seed, from, at)| Bend::Splice(seed, from, at)),
    ]
}

impl Bend {
    fn apply(&self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        if input.is_empty() {
            return;
        }
        let length = input.len();
        let end = |from: usize, n: u8| length.min(from + usize::from(n));
        match self {
            Self::Set(at, byte) => input[at.index(length)] = *byte,
            Self::Flip(at, by) => input[at.index(length)] ^= by,
            Self::Cut(at) => input.truncate(at.index(length)),
            Self::Remove(at, n) => {
                let from = at.index(length);
                input.drain(from..end(from, *n));
            }
            Self::Insert(at, bytes) => {
                let at = at.index(length);
                input.splice(at..at, bytes.iter().copied());
            }
            Self::Repeat(from, n, to) => {
                let from = from.index(length);
                let piece = input[from..end(from, *n)].to_vec();
                let to = to.index(length);
                input.splice(to..to, piece);
            }
            Self::Splice(seed, from, at) => {
                let other = seed.get(seeds);
                let from = from.index(other.len() + 1);
                input.truncate(at.index(length));
                input.extend_from_slice(&other[from..]);
            }
        }
    }
}
