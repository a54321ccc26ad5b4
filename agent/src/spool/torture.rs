//! The spool under everything at once: kills at any point, files cut, bent and deleted, a disk that
//! refuses and comes back. Whatever happens it opens, gives each frame as it was made, and never
//! keeps silent about a loss that the files can show.

use std::collections::BTreeMap;
use std::fs;

use proptest::{prelude::*, sample::Index};

use super::{
    tests::{LIMITS, at, bulky, deliver_all, keep_on_disk, losses, names, run},
    *,
};

#[derive(Clone, Debug)]
enum Step {
    Push {
        on_disk: bool,
        bulk: u8,
    },
    Persist,
    Deliver {
        frames: u8,
    },
    Newest,
    SaveNote,
    Kill,
    Damage(Damage),
    /// The disk refuses for so many frames, then takes writes again.
    Refuse {
        frames: u8,
        killed: bool,
    },
}

/// What is done to one of the spool's files while no process has it open.
#[derive(Clone, Debug)]
enum Damage {
    Cut(Index, Index),
    Flip(Index, Index, u8),
    Zero(Index, Index, u8),
    Append(Index, Vec<u8>),
    Delete(Index),
}

fn damages() -> impl Strategy<Value = Damage> {
    let index = any::<Index>;
    prop_oneof![
        3 => (index(), index()).prop_map(|(file, at)| Damage::Cut(file, at)),
        3 => (index(), index(), 1_u8..).prop_map(|(file, at, by)| Damage::Flip(file, at, by)),
        1 => (index(), index(), any::<u8>()).prop_map(|(file, at, n)| Damage::Zero(file, at, n)),
        1 => (index(), prop::collection::vec(any::<u8>(), 1..64))
            .prop_map(|(file, bytes)| Damage::Append(file, bytes)),
        1 => index().prop_map(Damage::Delete),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (any::<bool>(), 0_u8..40).prop_map(|(on_disk, bulk)| Step::Push { on_disk, bulk }),
        2 => Just(Step::Persist),
        2 => (1_u8..20).prop_map(|frames| Step::Deliver { frames }),
        1 => Just(Step::Newest),
        1 => Just(Step::SaveNote),
        2 => Just(Step::Kill),
        3 => damages().prop_map(Step::Damage),
        1 => (1_u8..30, any::<bool>()).prop_map(|(frames, killed)| Step::Refuse { frames, killed }),
    ];
    prop::collection::vec(step, 1..100)
}

type Key = (u128, u64);

struct World {
    dir: tempfile::TempDir,
    process: u128,
    seq: u64,
    spool: Spool,
    /// Everything that was ever made.
    made: BTreeMap<Key, Frame>,
    delivered: BTreeMap<Key, u32>,
    /// Made and perhaps never written when its process was killed.
    unwritten: Vec<Key>,
    lost_unwritten: u64,
    /// How often each loss was reported by frames that arrived.
    reported: u64,
    damaged: bool,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(&dir.path().join("spool"), LIMITS, run(1));
        Self {
            dir,
            process: 1,
            seq: 0,
            spool,
            made: BTreeMap::new(),
            delivered: BTreeMap::new(),
            unwritten: Vec::new(),
            lost_unwritten: 0,
            reported: 0,
            damaged: false,
        }
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    fn push(&mut self, on_disk: bool, bulk: u8) {
        self.seq += 1;
        let events = self.spool.make_room(at(self.seq as i64));
        let on_disk = on_disk || !events.is_empty();
        let keep = if on_disk {
            keep_on_disk()
        } else {
            Keep::Memory
        };
        let frame = bulky(self.seq, bulk, events);
        let key = (self.process, self.seq);
        self.made.insert(key, frame.clone());
        self.unwritten.push(key);
        self.spool.push(frame, &names(), keep);
        if on_disk && self.spool.write_error().is_none() {
            self.unwritten.clear();
        }
    }

    fn persist(&mut self) {
        self.spool.persist();
        if self.spool.write_error().is_none() {
            self.unwritten.clear();
        }
    }

    fn take(&mut self, batch: &[Spooled]) {
        for spooled in batch {
            let key = (spooled.run.instance.0.as_u128(), spooled.frame.seq);
            let made = self.made.get(&key).expect("only what was made comes out");
            assert_eq!(*made, spooled.frame, "{key:?} came out changed");
            let times = self.delivered.entry(key).or_default();
            *times += 1;
            // The second time under the same number is a repeat, which the collector passes over;
            // it takes damage to the list of acknowledged frames, or its loss.
            assert!(*times == 1 || self.damaged, "{key:?} came twice");
            if *times == 1 {
                self.reported += losses(&spooled.frame.events);
            }
        }
        let ids: Vec<FrameId> = batch.iter().map(|spooled| spooled.id).collect();
        assert!(ids.is_sorted());
        self.spool.acknowledge(&ids);
    }

    fn kill(&mut self) {
        let gone = std::mem::take(&mut self.unwritten);
        let lost = gone.iter().filter(|key| !self.delivered.contains_key(key));
        self.lost_unwritten += lost.count() as u64;
        self.process += 1;
        self.seq = 0;
        let place = self.place();
        self.spool = Spool::open(&place, LIMITS, run(self.process));
    }

    /// A path that leads nowhere refuses everybody, the superuser too.
    fn refuse(&mut self, frames: u8, killed: bool) {
        let aside = self.dir.path().join("aside");
        fs::rename(self.place(), &aside).unwrap();
        fs::write(self.place(), "in the way").unwrap();
        // An open segment would continue taking writes where it is now.
        self.spool.writer = None;
        if killed {
            self.kill();
        }
        for n in 0..frames {
            self.push(n % 2 == 0, 1);
        }
        self.persist();
        assert!(self.spool.trouble().is_some());
        fs::remove_file(self.place()).unwrap();
        fs::rename(&aside, self.place()).unwrap();
        self.persist();
        assert_eq!(self.spool.write_error(), None);
    }

    fn damage(&mut self, damage: &Damage) {
        self.kill();
        let mut files: Vec<PathBuf> = fs::read_dir(self.place())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let (Damage::Cut(which, _)
        | Damage::Flip(which, ..)
        | Damage::Zero(which, ..)
        | Damage::Append(which, _)
        | Damage::Delete(which)) = damage;
        if files.is_empty() {
            return;
        }
        self.damaged = true;
        let path = which.get(&files);
        let mut bytes = fs::read(path).unwrap();
        match damage {
            Damage::Cut(_, at) => bytes.truncate(at.index(bytes.len() + 1)),
            Damage::Flip(_, at, by) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] ^= by;
            }
            Damage::Zero(_, at, n) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                let end = bytes.len().min(at + usize::from(*n));
                bytes[at..end].fill(0);
            }
            Damage::Append(_, more) => bytes.extend(more),
            _ => {}
        }
        if matches!(damage, Damage::Delete(_)) {
            fs::remove_file(path).unwrap();
        } else {
            fs::write(path, bytes).unwrap();
        }
        self.kill();
    }

    fn finish(mut self) {
        self.reported += losses(&self.spool.make_room(at(self.seq as i64)));
        loop {
            let batch = self.spool.oldest(50, 1 << 20);
            if batch.is_empty() {
                break;
            }
            self.take(&batch);
        }
        // What could not be read when it was to be sent.
        self.reported += losses(&self.spool.make_room(at(self.seq as i64)));
        let known = self.delivered.len() as u64 + self.lost_unwritten + self.reported;
        if !self.damaged {
            assert_eq!(known, self.made.len() as u64);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn it_always_opens_and_invents_nothing(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Push { on_disk, bulk } => world.push(on_disk, bulk),
                Step::Persist => world.persist(),
                Step::Deliver { frames } => {
                    let batch = world.spool.oldest(usize::from(frames), 1 << 20);
                    world.take(&batch);
                }
                Step::Newest => {
                    let newest = world.spool.newest();
                    world.take(newest.as_slice());
                }
                Step::SaveNote => world.spool.save_note("positions".to_owned()),
                Step::Kill => world.kill(),
                Step::Damage(damage) => world.damage(&damage),
                Step::Refuse { frames, killed } => world.refuse(frames, killed),
            }
            prop_assert!(world.spool.bytes() <= LIMITS.max_bytes);
            let files = fs::read_dir(world.place()).unwrap().count();
            prop_assert!(files <= 64, "{files} files");
        }
        world.finish();
    }

    /// One wound to one file: every frame that is not delivered is counted, unless the cut falls
    /// exactly between two records, where the file itself shows nothing (the collector sees the
    /// missing numbers then).
    #[test]
    fn a_wound_is_counted(frames in 1_u64..30, at_byte in any::<Index>(), by in 1_u8.., cut in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), LIMITS, run(1));
        for seq in 1..=frames {
            spool.push(bulky(seq, 0, Vec::new()), &names(), keep_on_disk());
        }
        drop(spool);
        let path = dir.path().join("00000001.seg");
        let mut bytes = fs::read(&path).unwrap();
        let at_byte = at_byte.index(bytes.len());
        if cut {
            bytes.truncate(at_byte);
        } else {
            bytes[at_byte] ^= by;
        }
        fs::write(&path, &bytes).unwrap();
        let mut spool = Spool::open(dir.path(), LIMITS, run(2));
        let (got, mut lost) = deliver_all(&mut spool);
        lost += losses(&spool.make_room(at(1)));
        prop_assert!(got.iter().all(|seq| (1..=frames).contains(seq)));
        if cut {
            // Everything before the cut is whole; the torn one is counted.
            prop_assert!(got.iter().copied().eq(1..=got.len() as u64));
            prop_assert!(lost <= 1);
        } else {
            prop_assert!(got.len() as u64 == frames || lost > 0, "a silent loss");
            prop_assert!(got.len() as u64 + lost <= frames);
        }
    }
}
