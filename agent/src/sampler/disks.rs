//! Mounted file systems: space, inodes, read-only, errors, and whether they answer at all. The mount
//! table says what there is, `statvfs(3)` how full it is. Both may block, so both run on threads
//! ([`crate::blocking`]): the cycle waits a moment for this machine's own disks, and reports of what
//! others serve what was found since the cycle before. A file system that misses its deadline is
//! reported as hung and left alone until it answers.
//!
//! A kernel that turns a file system read-only after an error reports it to nobody, so the table is
//! read again every half minute, and when something was mounted or unmounted.

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{StatVfs, statvfs},
    io::Errno,
};

use super::{
    disk_state::{ReadOnly, count_errors, error_counts},
    filesystems::{self, FileSystem, Nature, Points},
    mounts::{self, MountLine},
    reader,
    writer::{Writer, share},
};
use crate::{
    blocking::{Blocking, Call, Rounds},
    config::DiskSettings,
};

/// Most disks that are measured, and most others that are watched for answering.
const MAX_DISKS: usize = 32;
const REREAD_EVERY_MS: i64 = 30_000;
/// A file system that takes longer is reported as hung.
const DEADLINE: Duration = Duration::from_secs(5);
/// With so many that hang, what others serve is not asked any more,
const MAX_HUNG_SERVED: usize = 8;
/// and with so many nothing is: other calls need threads too.
const MAX_HUNG: usize = 14;
/// A hung file system that was unmounted is reported as answering for so long, so that its alert ends.
const GONE_MS: i64 = 600_000;

/// The mounted file systems.
#[derive(Debug)]
pub(super) struct Disks {
    root: PathBuf,
    settings: DiskSettings,
    blocking: Blocking,
    table: Option<Arc<File>>,
    listing: Option<Call<Option<String>>>,
    reread_boot_ms: i64,
    list: Vec<Disk>,
    /// File systems beyond the most that are looked at.
    beyond: usize,
    /// File systems that are not reported.
    left_out: usize,
    rounds: Rounds<Question, Answer>,
    /// Hung ones that were unmounted, and until when they are still reported.
    gone: Vec<(String, i64)>,
}

#[derive(Debug)]
struct Disk {
    system: FileSystem,
    /// One of those that are reported.
    is_chosen: bool,
    answer: Option<Answer>,
    /// It did not answer in time, or what serves it is gone.
    is_hung: bool,
    /// Bytes in all, as it last said; `None` before it has answered.
    size: Option<f64>,
    read_only: Option<ReadOnly>,
    /// Where the kernel counts its errors, if it does.
    error_counts: Vec<PathBuf>,
    errors: Option<f64>,
}

/// Asks a file system how full it is.
#[derive(Clone, Debug)]
struct Question {
    mount_id: u64,
    points: Points,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Space(Space),
    /// The agent may not look there.
    Denied,
    /// The path leads to another file system by now, or to a file.
    Elsewhere,
    /// What serves it is gone, or reports an error.
    Failed,
}

/// As `statvfs(3)` says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Space {
    total_bytes: f64,
    used_bytes: f64,
    /// For others than root.
    available_bytes: f64,
    files: f64,
    files_used: f64,
}

impl Disks {
    pub(super) fn new(root: &Path, blocking: &Blocking, settings: DiskSettings) -> Self {
        Self {
            root: root.to_owned(),
            settings,
            table: File::open(root.join("proc/self/mountinfo"))
                .inspect_err(|error| tracing::warn!(%error, "no disk readings"))
                .ok()
                .map(Arc::new),
            listing: None,
            reread_boot_ms: i64::MIN,
            list: Vec::new(),
            beyond: 0,
            left_out: 0,
            rounds: Rounds::new(blocking.clone(), DEADLINE, ask),
            blocking: blocking.clone(),
            gone: Vec::new(),
        }
    }

    /// Applies other settings from the next cycle on.
    pub(super) fn set(&mut self, settings: DiskSettings) {
        self.settings = settings;
        self.reread_boot_ms = i64::MIN;
    }

    /// Waits at most `patience` for the mount table, and as long for this machine's own disks.
    pub(super) fn write(&mut self, now_boot_ms: i64, patience: Duration, writer: &mut Writer) {
        self.read_table(now_boot_ms, patience);
        self.ask_all(patience);
        for disk in &self.list {
            disk.write(writer);
        }
        self.gone.retain(|(_, until)| now_boot_ms < *until);
        for (name, _) in &self.gone {
            writer.put_of("disk.hung", name, Some(0.0));
        }
        if self.left_out > 0 {
            writer.put("disk.left_out", Some(self.left_out as f64));
        }
    }

    fn read_table(&mut self, now_boot_ms: i64, patience: Duration) {
        let Some(table) = &self.table else {
            return;
        };
        let mut wait = Duration::ZERO;
        // A change is only reported once, so it is asked for even when the table is due anyway.
        let has_changed = has_changed(table);
        if self.listing.is_none() && (has_changed || now_boot_ms >= self.reread_boot_ms) {
            self.reread_boot_ms = now_boot_ms + REREAD_EVERY_MS;
            let table = Arc::clone(table);
            let read = move || reader::text_of(&table);
            self.listing = self.blocking.call("mount table", DEADLINE, read).ok();
            wait = patience;
        } else if has_changed {
            self.reread_boot_ms = i64::MIN;
        }
        let text = self.listing.as_ref().and_then(|call| call.wait(wait));
        if let Some(text) = text {
            self.listing = None;
            let table = mounts::parse(&text.unwrap_or_default());
            self.relist(&table, now_boot_ms);
            self.update_states(&table);
        }
    }

    fn relist(&mut self, table: &[MountLine], now_boot_ms: i64) {
        let mut found = filesystems::find(table, self.settings);
        let all = found.len();
        if all > filesystems::MAX_CANDIDATES {
            let chosen = filesystems::select(&found, filesystems::MAX_CANDIDATES, &|_| 0.0);
            found.retain(|system| chosen.contains(&system.name));
        }
        self.beyond = all - found.len();
        let mut before = std::mem::take(&mut self.list);
        for system in found {
            let same = |disk: &Disk| {
                disk.system.name == system.name && disk.system.mount.id == system.mount.id
            };
            let known = before
                .iter()
                .position(same)
                .map(|at| before.swap_remove(at));
            let disk = match known {
                Some(disk) => Disk { system, ..disk },
                None => Disk::new(&self.root, system),
            };
            self.list.push(disk);
        }
        let is_listed = |name: &String| self.list.iter().any(|disk| disk.system.name == *name);
        self.gone.retain(|(name, _)| !is_listed(name));
        let unmounted = before
            .into_iter()
            .filter(|disk| disk.is_hung && disk.is_chosen);
        for disk in unmounted.filter(|disk| !is_listed(&disk.system.name)) {
            let until = now_boot_ms + GONE_MS;
            self.gone.push((disk.system.name, until));
        }
        self.choose();
    }

    /// Marks those that are reported.
    fn choose(&mut self) {
        let sizes: HashMap<&str, f64> = self
            .list
            .iter()
            .map(|disk| (disk.system.name.as_str(), disk.size.unwrap_or(0.0)))
            .collect();
        let systems: Vec<FileSystem> = self.list.iter().map(|disk| disk.system.clone()).collect();
        let size = |name: &str| sizes.get(name).copied().unwrap_or(0.0);
        let chosen = filesystems::select(&systems, MAX_DISKS, &size);
        self.left_out = self.beyond + self.list.len() - chosen.len();
        for disk in &mut self.list {
            disk.is_chosen = chosen.contains(&disk.system.name);
        }
    }

    /// Takes over what changes slowly.
    fn update_states(&mut self, table: &[MountLine]) {
        let is_new = self.list.iter().any(|disk| disk.read_only.is_none());
        let fstab = is_new.then(|| reader::text(self.root.join("etc/fstab")).unwrap_or_default());
        let lines: HashMap<u64, &MountLine> = table.iter().map(|line| (line.id, line)).collect();
        for disk in &mut self.list {
            if let Some(line) = lines.get(&disk.system.mount.id) {
                let meant = || mounts::is_meant_writable(fstab.as_deref()?, &disk.system.name);
                let state = ReadOnly::next(disk.read_only, line, meant().unwrap_or(false));
                disk.read_only = Some(state);
            }
            let counts = disk.error_counts.iter();
            let errors: Vec<f64> = counts
                .filter_map(|path| reader::text(path).and_then(|text| count_errors(&text)))
                .collect();
            disk.errors = (!errors.is_empty()).then(|| errors.iter().sum());
        }
    }

    /// Asks all that do not hang how full they are, and takes the answers that are there.
    fn ask_all(&mut self, patience: Duration) {
        let mut own = 0;
        if !self.rounds.is_under_way() {
            let questions = self.questions();
            let is_local = |question: &Question| {
                let of = |disk: &&Disk| disk.system.mount.id == question.mount_id;
                let disk = self.list.iter().find(of);
                disk.is_some_and(|disk| disk.system.nature != Nature::Served)
            };
            own = questions.iter().filter(|one| is_local(one)).count();
            if !questions.is_empty() && !self.rounds.start(questions) {
                // Rather nothing than what was true some time ago.
                for disk in &mut self.list {
                    disk.answer = None;
                }
            }
        }
        let mut has_new_size = false;
        for (question, answer, took) in self.rounds.take(own, patience) {
            for disk in &mut self.list {
                if disk.system.mount.id == question.mount_id {
                    has_new_size |= disk.size.is_none();
                    disk.accept(answer, took);
                }
            }
        }
        let hung: Vec<u64> = self.rounds.hung().map(|one| one.mount_id).collect();
        for disk in &mut self.list {
            if hung.contains(&disk.system.mount.id) {
                disk.is_hung = true;
                disk.answer = None;
            }
        }
        if has_new_size && self.left_out > 0 {
            self.choose();
        }
    }

    /// Own disks first, so that none waits behind another machine.
    fn questions(&self) -> Vec<Question> {
        let hung: Vec<u64> = self.rounds.hung().map(|one| one.mount_id).collect();
        if hung.len() >= MAX_HUNG {
            return Vec::new();
        }
        let mut asked: Vec<&Disk> = self
            .list
            .iter()
            .filter(|disk| disk.is_chosen || disk.size.is_none())
            .filter(|disk| !hung.contains(&disk.system.mount.id))
            .filter(|disk| hung.len() < MAX_HUNG_SERVED || disk.system.nature != Nature::Served)
            .collect();
        asked.sort_by_key(|disk| disk.system.nature);
        asked
            .into_iter()
            .map(|disk| Question {
                mount_id: disk.system.mount.id,
                points: disk.system.points.clone(),
            })
            .collect()
    }
}

/// Whether a file system was mounted or unmounted since the last call (`proc_pid_mountinfo(5)`).
fn has_changed(table: &File) -> bool {
    let mut watched = [PollFd::new(table, PollFlags::PRI)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut watched, Some(&at_once)).is_ok() && watched[0].revents().contains(PollFlags::PRI)
}

impl Disk {
    fn new(root: &Path, system: FileSystem) -> Self {
        Self {
            is_chosen: false,
            answer: None,
            is_hung: false,
            size: None,
            read_only: None,
            error_counts: error_counts(root, &system.mount),
            errors: None,
            system,
        }
    }

    fn accept(&mut self, answer: Answer, took: Duration) {
        self.is_hung = took >= DEADLINE || answer == Answer::Failed;
        self.size = Some(match answer {
            Answer::Space(space) => space.total_bytes,
            _ => 0.0,
        });
        self.answer = Some(answer);
    }

    fn write(&self, writer: &mut Writer) {
        if !self.is_chosen || self.answer == Some(Answer::Elsewhere) {
            return;
        }
        let name = &self.system.name;
        let answers = self.is_hung || self.answer.is_some();
        let hung = answers.then_some(f64::from(u8::from(self.is_hung)));
        if self.system.is_measured {
            self.write_space(writer);
        }
        writer.put_of("disk.hung", name, hung);
        if self.answer == Some(Answer::Denied) {
            writer.put_of("disk.denied", name, Some(1.0));
        }
    }

    fn write_space(&self, writer: &mut Writer) {
        let name = &self.system.name;
        let space = match self.answer {
            Some(Answer::Space(space)) if space.total_bytes > 0.0 => Some(space),
            _ => None,
        };
        let value = |of: fn(Space) -> f64| space.map(of);
        writer.put_of("disk.total_bytes", name, value(|s| s.total_bytes));
        writer.put_of("disk.used_bytes", name, value(|s| s.used_bytes));
        // As df(1): what root alone may use counts as neither used nor free.
        let used_pct = value(|s| share(s.used_bytes, s.used_bytes + s.available_bytes));
        writer.put_of("disk.used_pct", name, used_pct);
        let inodes_pct = value(|s| share(s.files_used, s.files));
        writer.put_of("disk.inodes_used_pct", name, inodes_pct);
        let yes = |of: fn(ReadOnly) -> bool| self.read_only.map(|s| f64::from(u8::from(of(s))));
        writer.put_of("disk.readonly", name, yes(|state| state.now));
        writer.put_of("disk.turned_readonly", name, yes(|state| state.unasked));
        if !self.error_counts.is_empty() {
            writer.put_of("disk.errors", name, self.errors);
        }
    }
}

/// May block for ever.
fn ask(question: &Question) -> Answer {
    match &question.points {
        Points::First(points) => {
            let mut worst = Answer::Elsewhere;
            for (point, may_be_file) in points {
                match ask_at(point, *may_be_file) {
                    answer @ (Answer::Space(_) | Answer::Failed) => return answer,
                    Answer::Denied => worst = Answer::Denied,
                    Answer::Elsewhere => {}
                }
            }
            worst
        }
        Points::Sum(points) => {
            let answers = points
                .iter()
                .map(|(point, may_be_file)| ask_at(point, *may_be_file));
            answers.fold(Answer::Elsewhere, Answer::and)
        }
    }
}

fn ask_at(point: &str, may_be_file: bool) -> Answer {
    if may_be_file && Path::new(point).is_file() {
        return Answer::Elsewhere;
    }
    match statvfs(point) {
        Ok(stat) => Answer::Space(Space::of(&stat)),
        Err(Errno::ACCESS | Errno::PERM) => Answer::Denied,
        Err(Errno::NOENT | Errno::NOTDIR) => Answer::Elsewhere,
        Err(_) => Answer::Failed,
    }
}

impl Answer {
    /// Of two data sets of one pool, which share what is available.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Space(one), Self::Space(two)) => Self::Space(one.and(two)),
            (Self::Failed, _) | (_, Self::Failed) => Self::Failed,
            (space @ Self::Space(_), _) | (_, space @ Self::Space(_)) => space,
            (Self::Denied, _) | (_, Self::Denied) => Self::Denied,
            (Self::Elsewhere, Self::Elsewhere) => Self::Elsewhere,
        }
    }
}

impl Space {
    fn of(stat: &StatVfs) -> Self {
        let used = stat.f_blocks.saturating_sub(stat.f_bfree);
        Self {
            total_bytes: (stat.f_blocks * stat.f_frsize) as f64,
            used_bytes: (used * stat.f_frsize) as f64,
            available_bytes: (stat.f_bavail * stat.f_frsize) as f64,
            files: stat.f_files as f64,
            files_used: stat.f_files.saturating_sub(stat.f_ffree) as f64,
        }
    }

    fn and(self, other: Self) -> Self {
        let used_bytes = self.used_bytes + other.used_bytes;
        let available_bytes = self.available_bytes.max(other.available_bytes);
        let files_used = self.files_used + other.files_used;
        let files_free = (self.files - self.files_used).max(other.files - other.files_used);
        Self {
            total_bytes: used_bytes + available_bytes,
            used_bytes,
            available_bytes,
            files: files_used + files_free,
            files_used,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fmt::Write as _};

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    /// A machine of directories: a mount point is below the root, and hangs while a file `hang` is
    /// in it.
    struct Machine {
        root: tempfile::TempDir,
        disks: Disks,
    }

    impl Machine {
        fn new(ask: fn(&Question) -> Answer) -> Self {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(root.path().join("proc/self")).unwrap();
            std::fs::write(root.path().join("proc/self/mountinfo"), "").unwrap();
            let blocking = Blocking::default();
            let mut disks = Disks::new(root.path(), &blocking, DiskSettings::default());
            disks.rounds = Rounds::new(blocking, Duration::ZERO, ask);
            Self { root, disks }
        }

        /// `mounts`: point, device, type, source.
        fn mount(&self, mounts: &[(&str, &str, &str, &str)]) {
            let mut table = String::new();
            for (n, (point, device, kind, source)) in mounts.iter().enumerate() {
                let point = self.point(point);
                std::fs::create_dir_all(&point).unwrap();
                writeln!(
                    table,
                    "{} 1 {device} / {point} rw - {kind} {source} rw",
                    n + 10
                )
                .unwrap();
            }
            std::fs::write(self.root.path().join("proc/self/mountinfo"), table).unwrap();
        }

        fn point(&self, point: &str) -> String {
            format!("{}{point}", self.root.path().display())
        }

        /// A cycle's values; mount points without the root.
        fn cycle(&mut self, now_boot_ms: i64) -> BTreeMap<String, Option<f64>> {
            let mut writer = Writer {
                joined: String::new(),
                values: Vec::new(),
                elapsed_s: None,
                looks_again: false,
                buffer: Vec::new(),
            };
            self.disks.write(now_boot_ms, LONG, &mut writer);
            let root = self.root.path().to_str().unwrap();
            let names = writer.joined.split('\n').filter(|name| !name.is_empty());
            let names = names.map(|name| name.replacen(root, "", 1));
            names.zip(writer.values).collect()
        }
    }

    const GIB: f64 = (1_u64 << 30) as f64;

    /// 1 of 4 GiB used; hangs at a point with a file `hang`.
    fn quarter_full(question: &Question) -> Answer {
        let (Points::First(points) | Points::Sum(points)) = &question.points;
        let answers = points.iter().map(|(point, _)| {
            while Path::new(point).join("hang").exists() {
                std::thread::yield_now();
            }
            Answer::Space(Space {
                total_bytes: 4.0 * GIB,
                used_bytes: GIB,
                available_bytes: 3.0 * GIB,
                files: 100.0,
                files_used: 10.0,
            })
        });
        match &question.points {
            Points::First(_) => answers.take(1).fold(Answer::Elsewhere, Answer::and),
            Points::Sum(_) => answers.fold(Answer::Elsewhere, Answer::and),
        }
    }

    #[test]
    fn one_that_hangs_is_reported_until_it_answers_and_others_are_measured() {
        let mut machine = Machine::new(quarter_full);
        machine.mount(&[
            ("/own", "8:1", "ext4", "/dev/sda1"),
            ("/far", "0:50", "nfs4", "nas:/x"),
        ]);
        let hang = machine.point("/far/hang");
        std::fs::write(&hang, "").unwrap();
        for now in [0, 10_000] {
            let values = machine.cycle(now);
            assert_eq!(values["disk.used_pct:/own"], Some(25.0));
            assert_eq!(values["disk.hung:/own"], Some(0.0));
            assert_eq!(values["disk.hung:/far"], Some(1.0));
            assert!(!values.contains_key("disk.used_pct:/far"));
        }
        std::fs::remove_file(hang).unwrap();
        while machine.cycle(20_000)["disk.hung:/far"] != Some(0.0) {}
    }

    #[test]
    fn the_alert_of_a_hung_one_that_is_unmounted_can_end() {
        let mut machine = Machine::new(quarter_full);
        machine.mount(&[("/far", "0:50", "nfs4", "nas:/x")]);
        let hang = machine.point("/far/hang");
        std::fs::write(&hang, "").unwrap();
        assert_eq!(machine.cycle(0)["disk.hung:/far"], Some(1.0));
        machine.mount(&[]);
        let unmounted_ms = REREAD_EVERY_MS;
        assert_eq!(machine.cycle(unmounted_ms)["disk.hung:/far"], Some(0.0));
        let later = unmounted_ms + GONE_MS;
        assert_eq!(machine.cycle(later - 1)["disk.hung:/far"], Some(0.0));
        assert!(machine.cycle(later).is_empty());
        std::fs::remove_file(hang).unwrap();
    }

    #[test]
    fn a_pool_is_one_disk_of_all_that_its_data_sets_hold() {
        let mut machine = Machine::new(quarter_full);
        machine.mount(&[
            ("/tank", "0:40", "zfs", "tank"),
            ("/tank/a", "0:41", "zfs", "tank/a"),
            ("/tank/b", "0:42", "zfs", "tank/b"),
        ]);
        let values = machine.cycle(0);
        assert_eq!(values["disk.used_bytes:/tank"], Some(3.0 * GIB));
        assert_eq!(values["disk.total_bytes:/tank"], Some(6.0 * GIB));
        assert_eq!(values["disk.used_pct:/tank"], Some(50.0));
        assert_eq!(values["disk.inodes_used_pct:/tank"], Some(25.0));
        assert!(values.keys().all(|name| name.ends_with(":/tank")));
    }

    #[test]
    fn how_many_are_left_out_is_told_and_the_largest_stay() {
        fn by_name(question: &Question) -> Answer {
            let (Points::First(points) | Points::Sum(points)) = &question.points;
            let is_large = points[0].0.ends_with("/z-large");
            Answer::Space(Space {
                total_bytes: if is_large { 2.0 } else { 1.0 },
                ..Space::default()
            })
        }
        let mut machine = Machine::new(by_name);
        let names: Vec<(String, String)> = (0..40)
            .map(|n| (format!("/backup/{n:02}"), format!("8:{n}")))
            .chain([("/z-large".to_owned(), "9:1".to_owned())])
            .collect();
        let mounts: Vec<(&str, &str, &str, &str)> = names
            .iter()
            .map(|(point, device)| (point.as_str(), device.as_str(), "xfs", "/dev/x"))
            .collect();
        machine.mount(&mounts);
        let values = machine.cycle(0);
        assert_eq!(values["disk.left_out"], Some(41.0 - MAX_DISKS as f64));
        assert_eq!(values["disk.total_bytes:/z-large"], Some(2.0));
        assert_eq!(machine.cycle(10_000), values);
    }

    #[test]
    fn one_that_may_not_be_looked_at_is_told() {
        let mut machine = Machine::new(|_| Answer::Denied);
        machine.mount(&[("/root/backup", "8:1", "ext4", "/dev/sda1")]);
        let values = machine.cycle(0);
        assert_eq!(values["disk.denied:/root/backup"], Some(1.0));
        assert_eq!(values["disk.used_pct:/root/backup"], None);
        assert_eq!(values["disk.hung:/root/backup"], Some(0.0));
    }

    #[test]
    fn a_server_that_is_gone_does_not_answer() {
        let mut machine = Machine::new(|_| Answer::Failed);
        machine.mount(&[("/own", "8:1", "xfs", "/dev/sda1")]);
        let values = machine.cycle(0);
        assert_eq!(values["disk.hung:/own"], Some(1.0));
        assert_eq!(values["disk.used_pct:/own"], None);
    }

    #[test]
    fn the_directory_that_is_a_mount_point_is_asked_not_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hosts");
        std::fs::write(&file, "").unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let first = |points: Vec<(String, bool)>| {
            ask(&Question {
                mount_id: 1,
                points: Points::First(points),
            })
        };
        assert_eq!(first(vec![(text(&file), true)]), Answer::Elsewhere);
        let both = vec![(text(&file), true), (text(dir.path()), true)];
        assert!(matches!(first(both), Answer::Space(space) if space.total_bytes > 0.0));
        let gone = vec![(text(&dir.path().join("gone")), false)];
        assert_eq!(first(gone), Answer::Elsewhere);
    }
}
