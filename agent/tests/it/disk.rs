//! A spool whose disk is full, read-only, or forbidden: real file systems that really refuse. The
//! agent goes on in memory, says so to the MSP, and goes back to the disk by itself.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use rustix::process::geteuid;
use watchkeep_shared::wire::{heartbeat::Event, policy::Trouble};

use crate::{
    agent::{Agent, events, policy, with_policy},
    fake::{Answer, Arrival, Fake, accept},
};

/// Runs what follows in a mount namespace of its own, with a small file system of its own at the
/// spool's place, which goes with the process.
const WITH_DISK: &str =
    r#"mkdir -p "$0" && mount -t tmpfs -o "$1,size=1m,mode=0700" none "$0" && shift && exec "$@""#;

impl Agent {
    /// `options` are of mount(8): `rw` or `ro`.
    fn start_with_disk(&mut self, options: &str) {
        let spool = self.state("spool");
        let spool = spool.to_str().unwrap();
        let mut wrapper = vec!["unshare", "--mount"];
        if !geteuid().is_root() {
            wrapper.push("--map-root-user");
        }
        wrapper.extend(["sh", "-c", WITH_DISK, spool, options]);
        self.start_under(&wrapper);
    }

    /// The spool as the agent sees it.
    fn inner_spool(&self) -> PathBuf {
        let spool = self.state("spool");
        let inner = spool.strip_prefix("/").unwrap();
        PathBuf::from(format!("/proc/{}/root", self.pid())).join(inner)
    }

    fn remount(&self, how: &str) {
        let pid = self.pid().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--mount"]);
        if !geteuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        let options = format!("remount,{how}");
        let done = command
            .args(["mount", "-o", &options])
            .arg(self.state("spool"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    }
}

fn says_trouble(arrival: &Arrival) -> bool {
    let troubles = arrival.batch.troubles.iter().flatten();
    troubles.into_iter().any(|trouble: &Trouble| {
        trouble.item == "spool" && trouble.detail.contains("the disk refuses writes")
    })
}

fn says_well(arrival: &Arrival) -> bool {
    arrival.batch.troubles.as_ref().is_some_and(Vec::is_empty)
}

/// Waits until each of these was seen, in whatever order.
fn see_all(fake: &Fake, wanted: &[&dyn Fn(&Arrival) -> bool]) {
    let mut missing: Vec<_> = wanted.to_vec();
    let mut left = 500;
    while !missing.is_empty() {
        let arrival = fake.arrival();
        missing.retain(|wanted| !wanted(&arrival));
        left -= 1;
        assert!(left > 0, "{} things were never seen", missing.len());
    }
}

#[test]
fn a_full_disk_is_survived_in_memory_and_left_when_it_has_room() {
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    fake.answer(with_policy(policy(&agent, Vec::new())));
    agent.start_with_disk("rw");
    fake.arrival_that(|arrival| arrival.batch.policy_version == 3);

    fake.answer(|_| Answer::Close);
    fake.arrival_that(|arrival| arrival.batch.frames.len() > 3);
    let filler = agent.inner_spool().join("filler");
    fill(&filler);
    fake.arrival_that(says_trouble);
    agent.append("ERROR without a disk\n");
    let before = fake.arrival_that(|arrival| arrival.batch.frames.len() > 30);
    assert!(agent.status()["spool_error"].is_string());
    assert!(
        agent.status_text().contains("problem"),
        "{}",
        agent.status_text()
    );
    let files = fs::read_dir(agent.inner_spool()).unwrap().count();
    assert!(
        files <= 8,
        "a disk that refuses is not filled with {files} files"
    );

    let first = before.batch.frames[0].seq;
    let newest = before.batch.frames.last().unwrap().seq;
    let taken = Arc::new(Mutex::new(BTreeSet::new()));
    let book = taken.clone();
    fake.answer(move |batch| {
        let seqs = batch.frames.iter().map(|frame| frame.seq);
        book.lock().unwrap().extend(seqs);
        accept(batch)
    });
    // Nothing is lost: every frame of the outage comes, in whatever order.
    let all = |_: &Arrival| {
        let taken = taken.lock().unwrap();
        (first..=newest).all(|seq| taken.contains(&seq))
    };
    see_all(&fake, &[&all]);

    fs::remove_file(filler).unwrap();
    // A frame with an event wants the disk.
    agent.append("ERROR with a disk again\n");
    see_all(&fake, &[&says_well, &matched]);
    fake.settle();
    assert!(agent.status()["spool_error"].is_null());
    agent.stop();
}

/// Writes until not a byte fits.
fn fill(filler: &Path) {
    let mut file = fs::File::create(filler).unwrap();
    let mut piece = 64 << 10;
    while piece > 0 {
        if file.write_all(&vec![0; piece]).is_err() {
            piece /= 2;
        }
    }
}

#[test]
fn a_read_only_disk_is_survived_in_memory_and_used_once_it_can_be() {
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    fake.answer(with_policy(policy(&agent, Vec::new())));
    agent.start_with_disk("ro");
    see_all(
        &fake,
        &[&says_trouble, &|arrival| arrival.batch.policy_version == 3],
    );
    agent.append("ERROR on a read-only disk\n");
    fake.arrival_that(matched);
    agent.remount("rw,size=1m");
    agent.append("ERROR on a disk\n");
    see_all(&fake, &[&says_well, &matched]);
    let files = fs::read_dir(agent.inner_spool()).unwrap().count();
    assert!(files > 0, "the disk is used");
    agent.stop();
}

fn matched(arrival: &Arrival) -> bool {
    events(arrival).any(|event| matches!(event, Event::LogMatch { .. }))
}

#[test]
fn a_forbidden_directory_is_survived_and_what_it_held_comes_when_it_opens() {
    let fake = Fake::start();
    let mut agent = Agent::enrolled(&fake);
    fake.answer(with_policy(policy(&agent, Vec::new())));
    agent.start();
    fake.arrival_that(|arrival| arrival.batch.policy_version == 3);
    fake.answer(|_| Answer::Close);
    let held = fake.arrival_that(|arrival| arrival.batch.frames.len() > 5);
    agent.kill();
    let spool = agent.state("spool");
    let allow = |mode| fs::set_permissions(&spool, fs::Permissions::from_mode(mode)).unwrap();
    allow(0o000);
    fake.answer(accept);
    let mut wrapper = vec!["env"];
    if geteuid().is_root() {
        // The superuser without his privileges is one of the forbidden.
        wrapper = vec![
            "setpriv",
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--ambient-caps=-all",
        ];
    }
    agent.start_under(&wrapper);
    fake.arrival_that(says_trouble);
    allow(0o700);
    agent.append("ERROR\n");
    let first = held.batch.frames[2].seq;
    let held_comes = |arrival: &Arrival| {
        let mut frames = arrival.batch.frames.iter();
        frames.any(|frame| frame.instance == Some(held.batch.instance) && frame.seq == first)
    };
    see_all(&fake, &[&says_well, &held_comes]);
    agent.stop();
}
