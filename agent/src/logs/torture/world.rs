//! The machine: a writer with its rotations, the agent's parts, a collector, and what is owed.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::Arc,
};

use tempfile::TempDir;
use watchkeep_shared::{
    BootId, InstanceId, metric,
    wire::{
        heartbeat::{Clocks, Event, Frame},
        policy::{LogCheck, LogRule},
    },
};

use crate::logs::{LogWatcher, Redactor, tests::tick};
use crate::{
    config::{AllowedPath, SpoolLimits},
    spool::{Keep, Run, Spool},
};

const LIMITS: SpoolLimits = SpoolLimits {
    max_bytes: 16 << 20,
    max_age_hours: 168,
    memory_frames: 1_000,
};
/// No story has more generations.
const GENERATIONS: usize = 64;
const FORBIDDEN: usize = GENERATIONS - 1;

/// One content of a log.
#[derive(Clone, Copy, Debug, Default)]
struct Generation {
    written: u64,
    /// Lines that were written between a copy and a truncation.
    in_window: u64,
    /// The agent looked while it was there, and not empty.
    seen: bool,
    /// At which gap count it was destroyed.
    destroyed: Option<usize>,
}

/// What the collector knows.
#[derive(Debug, Default)]
struct Collector {
    taken: HashSet<(InstanceId, u64)>,
    counts: BTreeMap<usize, u64>,
    gaps: usize,
}

impl Collector {
    fn take(&mut self, origin: InstanceId, frame: &Frame) {
        if !self.taken.insert((origin, frame.seq)) {
            return;
        }
        for event in &frame.events {
            match event {
                Event::LogMatch { rule, count, .. } => {
                    *self.counts.entry(rule.parse().unwrap()).or_default() += count;
                }
                Event::LogGap { .. } => self.gaps += 1,
                other => panic!("{other:?}"),
            }
        }
    }
}

pub(super) struct World {
    dir: TempDir,
    checks: Vec<LogCheck>,
    watcher: LogWatcher,
    spool: Spool,
    processes: u128,
    seq: u64,
    pub(super) now_ms: i64,
    collector: Collector,
    generations: Vec<Generation>,
    /// The generation at `app.log`.
    pub(super) live: Option<usize>,
    /// The generations at `app.log.1` and so on; `None`: destroyed.
    pub(super) rotated: Vec<Option<usize>>,
    pub(super) half: bool,
    /// `app.log.1` was renamed, and its writer still has it.
    pub(super) writer_lingers: bool,
    /// When something was last destroyed. While the agent keeps such a file open it can't know after
    /// a crash what was still written to it.
    destroyed_ms: Option<i64>,
    gaps_settled: usize,
}

thread_local! {
    static REDACTOR: Arc<Redactor> = Arc::new(Redactor::new(Vec::new()));
}

fn run(process: u128) -> Run {
    Run {
        boot: BootId(uuid::Uuid::from_u128(1)),
        instance: InstanceId(uuid::Uuid::from_u128(process)),
    }
}

fn watcher(dir: &TempDir, saved: Option<&str>) -> LogWatcher {
    let allowed = AllowedPath::new(dir.path().join("logs/**").to_str().unwrap()).unwrap();
    LogWatcher::new(saved, vec![allowed], REDACTOR.with(Arc::clone))
}

impl World {
    pub(super) fn new(plain: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let name = if plain { "app.log" } else { "app.log*" };
        let rules = (0..GENERATIONS)
            .map(|n| LogRule {
                name: n.to_string(),
                pattern: format!("^k{n} [0-9]+ end$"),
                lines_per_minute: Some(1_000),
            })
            .collect();
        let checks = vec![LogCheck {
            path: dir
                .path()
                .join("logs/app")
                .join(name)
                .to_str()
                .unwrap()
                .to_owned(),
            rules,
            record_start: None,
            journal: None,
            event_log: None,
        }];
        fs::create_dir(dir.path().join("outside")).unwrap();
        let mut world = Self {
            watcher: watcher(&dir, None),
            spool: Spool::open(&dir.path().join("spool"), LIMITS, run(1)),
            dir,
            checks,
            processes: 1,
            seq: 0,
            now_ms: 0,
            collector: Collector::default(),
            generations: Vec::new(),
            live: None,
            rotated: Vec::new(),
            half: false,
            writer_lingers: false,
            destroyed_ms: None,
            gaps_settled: 0,
        };
        world.watcher.set(&world.checks);
        world.look();
        // The directories come later.
        fs::create_dir_all(world.dir.path().join("logs/app")).unwrap();
        fs::create_dir_all(world.dir.path().join("logs/store")).unwrap();
        world
    }

    pub(super) fn path(&self, rotation: usize) -> PathBuf {
        let name = match rotation {
            0 => "app.log".to_owned(),
            n => format!("app.log.{n}"),
        };
        self.dir.path().join("logs/app").join(name)
    }

    pub(super) fn new_generation(&mut self) -> usize {
        self.generations.push(Generation::default());
        assert!(self.generations.len() < FORBIDDEN);
        self.generations.len() - 1
    }

    pub(super) fn destroyed(&mut self, generation: Option<usize>) {
        if let Some(at) = generation {
            self.generations[at]
                .destroyed
                .get_or_insert(self.collector.gaps);
            self.destroyed_ms = Some(self.now_ms);
        }
    }

    // The writer.

    pub(super) fn append(&self, rotation: usize, text: &str) {
        let path = self.path(rotation);
        let mut options = OpenOptions::new();
        let mut file = options.append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    pub(super) fn write_to(&mut self, rotation: usize, generation: usize, lines: u64) {
        let mut text = String::new();
        if rotation == 0 && std::mem::take(&mut self.half) {
            text.push_str(" 0 end\n");
            self.generations[generation].written += 1;
        }
        for _ in 0..lines {
            let n = self.generations[generation].written;
            self.generations[generation].written += 1;
            writeln!(text, "k{generation} {n} end").unwrap();
            // So that some generations are longer than what identifies them.
            writeln!(text, "x{generation} {}", "pad".repeat(20)).unwrap();
        }
        self.append(rotation, &text);
    }

    pub(super) fn write(&mut self, lines: u64) {
        let generation = match self.live {
            Some(generation) => generation,
            None => self.new_generation(),
        };
        self.live = Some(generation);
        self.write_to(0, generation, lines);
    }

    pub(super) fn write_half(&mut self) {
        self.write(0);
        let generation = self.live.unwrap();
        self.append(0, &format!("k{generation}"));
        self.half = true;
    }

    /// Makes room at `app.log.1`.
    pub(super) fn shift(&mut self) {
        for n in (1..=self.rotated.len()).rev() {
            if self.rotated[n - 1].is_some() {
                fs::rename(self.path(n), self.path(n + 1)).unwrap();
            }
        }
        self.rotated.insert(0, None);
        self.writer_lingers = false;
    }

    pub(super) fn finish_line(&mut self) {
        if self.half {
            self.write(0);
        }
    }

    pub(super) fn rename(&mut self) {
        if self.live.is_none() {
            return;
        }
        self.finish_line();
        self.shift();
        fs::rename(self.path(0), self.path(1)).unwrap();
        self.rotated[0] = self.live.take();
        self.writer_lingers = true;
    }

    pub(super) fn create(&mut self) {
        if self.live.is_none() {
            File::create(self.path(0)).unwrap();
            self.live = Some(self.new_generation());
        }
    }

    pub(super) fn copy_truncate(&mut self, look_between: bool, written_between: u64) {
        let Some(generation) = self.live else { return };
        self.finish_line();
        self.shift();
        fs::copy(self.path(0), self.path(1)).unwrap();
        tick();
        self.rotated[0] = Some(generation);
        if look_between {
            self.look();
        }
        if written_between > 0 {
            let before = self.generations[generation].written;
            self.write(written_between);
            self.generations[generation].in_window += self.generations[generation].written - before;
            // Whoever has read them can't tell any more what came after the copy.
            if look_between {
                self.look();
            }
            self.destroyed(Some(generation));
        }
        File::create(self.path(0)).unwrap();
        self.live = Some(self.new_generation());
    }

    pub(super) fn truncate(&mut self) {
        if let Some(generation) = self.live {
            self.half = false;
            self.destroyed(Some(generation));
            File::create(self.path(0)).unwrap();
            self.live = Some(self.new_generation());
        }
    }

    pub(super) fn delete(&mut self) {
        if let Some(generation) = self.live.take() {
            self.half = false;
            fs::remove_file(self.path(0)).unwrap();
            self.destroyed(Some(generation));
        }
    }

    pub(super) fn compress_newest(&mut self) {
        let newest = self.rotated.iter().position(Option::is_some);
        if let Some(at) = newest {
            let generation = self.rotated[at].take();
            let path = self.path(at + 1);
            let mut packed = b"\x1f\x8b\x08".to_vec();
            packed.extend(fs::read(&path).unwrap().into_iter().map(|byte| byte ^ 0x55));
            let name = format!("logs/app/app.log.{}.gz", at + 1);
            let mut archive = File::create(self.dir.path().join(name)).unwrap();
            archive.write_all(&packed).unwrap();
            // Like gzip.
            let written = fs::metadata(&path).unwrap().modified().unwrap();
            archive.set_modified(written).unwrap();
            fs::remove_file(path).unwrap();
            self.destroyed(generation);
            self.writer_lingers = false;
        }
    }

    pub(super) fn switch_link(&mut self) {
        self.finish_line();
        let is_link = self.path(0).is_symlink();
        if is_link {
            // The writer continues elsewhere; what it left is still there, under no followed path.
            fs::remove_file(self.path(0)).unwrap();
            self.live = None;
        } else if self.live.is_some() {
            self.rename();
            self.writer_lingers = false;
        }
        let generation = self.new_generation();
        let target = self.dir.path().join(format!("logs/store/gen-{generation}"));
        fs::write(&target, "").unwrap();
        symlink(target, self.path(0)).unwrap();
        self.live = Some(generation);
    }

    /// For a while the path leads to what the customer does not allow.
    pub(super) fn link_outside(&mut self) {
        if self.live.is_some() {
            return;
        }
        let secret = self.dir.path().join("outside/secret");
        fs::write(&secret, format!("k{FORBIDDEN} 1 end\n")).unwrap();
        symlink(secret, self.path(0)).unwrap();
        self.look();
        fs::remove_file(self.path(0)).unwrap();
        // It is reported that this could not be read.
        self.destroyed_ms = Some(self.now_ms);
    }

    // The agent.

    pub(super) fn look(&mut self) {
        for generation in self.live.iter().chain(self.rotated.iter().flatten()) {
            let generation = &mut self.generations[*generation];
            generation.seen |= generation.written > 0;
        }
        self.now_ms += 1_000;
        while self.watcher.scan(self.now_ms) {}
        if let Some(positions) = self.watcher.save(false) {
            self.spool.save_note(positions);
        }
    }

    pub(super) fn frame(&mut self) {
        self.seq += 1;
        let (events, note) = self.watcher.take();
        let names = vec!["a".to_owned()];
        let frame = Frame {
            boot: None,
            instance: None,
            seq: self.seq,
            clocks: Clocks {
                wall_ms: self.now_ms,
                mono_ms: self.now_ms,
                boot_ms: self.now_ms,
            },
            interval_ms: 1_000,
            schema: metric::schema_id(&names),
            values: vec![None],
            services: None,
            events,
        };
        let keep = match note {
            Some(note) => Keep::Disk { note: Some(note) },
            None => Keep::Memory,
        };
        self.spool.push(frame, &names, keep);
    }

    pub(super) fn deliver(&mut self, answered: bool) {
        loop {
            let batch = self.spool.oldest(128, 1 << 20);
            for spooled in &batch {
                self.collector.take(spooled.run.instance, &spooled.frame);
            }
            if !answered || batch.is_empty() {
                return;
            }
            let ids: Vec<_> = batch.iter().map(|spooled| spooled.id).collect();
            self.spool.acknowledge(&ids);
        }
    }

    pub(super) fn crash(&mut self) {
        self.processes += 1;
        self.seq = 0;
        self.spool = Spool::open(&self.dir.path().join("spool"), LIMITS, run(self.processes));
        self.watcher = watcher(&self.dir, self.spool.note());
        self.watcher.set(&self.checks);
    }

    pub(super) fn settle(&mut self) {
        self.finish_line();
        if self
            .destroyed_ms
            .is_some_and(|at| self.now_ms - at > 100_000)
        {
            self.look();
            self.now_ms += 100_000;
            self.writer_lingers = false;
        }
        for _ in 0..3 {
            self.look();
            self.frame();
            self.deliver(true);
        }
        let gaps = self.collector.gaps;
        for (at, generation) in self.generations.iter().enumerate() {
            let counted = self.collector.counts.get(&at).copied().unwrap_or(0);
            let context =
                || format!("generation {at}: {counted} counted, {generation:?}, {gaps} gaps");
            assert!(
                counted <= generation.written,
                "counted twice: {}",
                context()
            );
            let missing = generation.written - counted;
            let accounted = missing <= generation.in_window
                || !generation.seen
                || generation.destroyed.is_some_and(|before| gaps > before);
            assert!(accounted, "lost in silence: {}", context());
        }
        assert_eq!(
            self.collector.counts.get(&FORBIDDEN),
            None,
            "read outside the caps"
        );
        match self.destroyed_ms {
            None => assert_eq!(gaps, self.gaps_settled, "a gap without a loss"),
            Some(at) if self.now_ms - at > 200_000 => self.destroyed_ms = None,
            Some(_) => {}
        }
        self.gaps_settled = gaps;
    }
}
