//! Notices of Linux (`inotify(7)`): of names in directories, and of writes to the files that are
//! followed. Nothing is asked for about other files in the same directories, however often they are
//! written, nor about opening and reading, which the agent does itself.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::logs::{Changes, FileId, Watches};

/// Room for a few dozen notices.
const BUFFER_BYTES: usize = 4 << 10;

const OF_NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);
const OF_WRITES: WatchFlags = WatchFlags::MODIFY;
/// Editors write a new file in the old one's place, or the old one, which is complete when it is closed.
const OF_CONFIG: WatchFlags = OF_NAMES.union(WatchFlags::CLOSE_WRITE);

#[derive(Debug)]
pub(super) struct Source {
    fd: AsyncFd<OwnedFd>,
    watches: HashMap<Target, i32>,
    /// One watch may be of several targets: names that lead to the same file.
    targets: HashMap<i32, Vec<Target>>,
    /// What could not be watched, and was said.
    unwatched: HashSet<Target>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Target {
    Directory(PathBuf),
    File(FileId, PathBuf),
    Config(PathBuf),
}

impl Target {
    fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::File(_, path) | Self::Config(path) => path,
        }
    }

    const fn flags(&self) -> WatchFlags {
        match self {
            Self::Directory(_) => OF_NAMES,
            Self::File(..) => OF_WRITES,
            Self::Config(_) => OF_CONFIG,
        }
    }
}

impl Source {
    #[expect(
        deprecated,
        reason = "the new form is unsafe; the descriptor is owned by this and is not closed before"
    )]
    pub(super) fn new(_config: &Path) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self {
            fd: AsyncFd::with_interest(fd, Interest::READABLE)?,
            watches: HashMap::new(),
            targets: HashMap::new(),
            unwatched: HashSet::new(),
        })
    }

    pub(super) fn is_complete(&self) -> bool {
        self.unwatched.is_empty()
    }

    pub(super) fn watch(&mut self, watches: Watches, config: &Path) {
        let directories = watches.directories.into_iter().map(Target::Directory);
        let files = watches.files.into_iter();
        let files = files.map(|(file, path)| Target::File(file, path));
        let config = config.parent().filter(|dir| dir.is_dir());
        let config = config.map(|dir| Target::Config(dir.to_owned()));
        let wanted: HashSet<Target> = directories.chain(files).chain(config).collect();
        self.unwatched.retain(|target| wanted.contains(target));
        for target in &wanted {
            if !self.watches.contains_key(target) {
                self.add(target);
            }
        }
        // Later: one of these may have the same watch as one that was added.
        let gone = self
            .watches
            .keys()
            .filter(|target| !wanted.contains(*target));
        for target in gone.cloned().collect::<Vec<_>>() {
            self.remove(&target);
        }
    }

    pub(super) async fn wait(&self) {
        // An error leaves it to polling.
        if self.fd.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Adds what was noticed to `noticed`. Returns whether the file at `config` changed.
    pub(super) fn take_in(&mut self, config: &Path, noticed: &mut Changes) -> bool {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut gone = Vec::new();
        let mut config_changed = false;
        let targets = &self.targets;
        // That there is nothing more is what ends it.
        let end: io::Result<()> = self.fd.try_io(Interest::READABLE, |fd| {
            let mut reader = Reader::new(fd, &mut buffer);
            loop {
                let event = reader.next()?;
                let flags = event.events();
                if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                    *noticed = Changes::everything();
                    continue;
                }
                if flags.contains(ReadFlags::IGNORED) {
                    gone.push(event.wd());
                }
                let name = event.file_name();
                let name = name.map(|name| OsStr::from_bytes(name.to_bytes()));
                for target in targets.get(&event.wd()).into_iter().flatten() {
                    match (target, name) {
                        (Target::File(file, _), _) => noticed.add_file(*file),
                        (Target::Config(dir), Some(name)) => {
                            config_changed |= dir.join(name) == config;
                        }
                        (Target::Config(_), None) => {}
                        (Target::Directory(dir), Some(name)) => {
                            if !flags.contains(ReadFlags::CLOSE_WRITE) {
                                let is_directory = flags.contains(ReadFlags::ISDIR);
                                noticed.add_entry(dir.join(name), is_directory);
                            }
                        }
                        // The directory itself went.
                        (Target::Directory(_), None) => *noticed = Changes::everything(),
                    }
                }
            }
        });
        if let Err(error) = end
            && error.kind() != io::ErrorKind::WouldBlock
        {
            tracing::debug!(%error, "notices of changed files can't be read");
            *noticed = Changes::everything();
        }
        for wd in gone {
            // What is there again under the same name gets a new watch.
            for target in self.targets.remove(&wd).into_iter().flatten() {
                self.watches.remove(&target);
            }
        }
        config_changed
    }

    fn add(&mut self, target: &Target) {
        // The flags of another target with the same watch stay.
        let flags = target.flags() | WatchFlags::MASK_ADD;
        match inotify::add_watch(&self.fd, target.path(), flags) {
            Ok(wd) => {
                self.watches.insert(target.clone(), wd);
                self.targets.entry(wd).or_default().push(target.clone());
                self.unwatched.remove(target);
            }
            // Renamed or deleted just now, which is a change of its own.
            Err(Errno::NOENT) if matches!(target, Target::File(..)) => {}
            Err(error) => {
                if self.unwatched.insert(target.clone()) {
                    let path = target.path();
                    tracing::info!(path = %path.display(), %error, "polled instead of watched");
                }
            }
        }
    }

    fn remove(&mut self, target: &Target) {
        let Some(wd) = self.watches.remove(target) else {
            return;
        };
        let Some(targets) = self.targets.get_mut(&wd) else {
            return;
        };
        targets.retain(|other| other != target);
        if targets.is_empty() {
            self.targets.remove(&wd);
            // It may have ended by itself, with what it was of.
            let _ = inotify::remove_watch(&self.fd, wd);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File, Metadata, OpenOptions},
        io::Write as _,
    };

    use tempfile::TempDir;

    use super::*;

    struct World {
        dir: TempDir,
        source: Source,
        config: PathBuf,
    }

    fn id(metadata: &Metadata) -> FileId {
        FileId::of(metadata)
    }

    impl World {
        /// Watches the directory, and a file in it.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("logs")).unwrap();
            let config = dir.path().join("agent.toml");
            File::create(dir.path().join("logs/app.log")).unwrap();
            let mut world = Self {
                dir,
                source: Source::new(&config).unwrap(),
                config,
            };
            world.watch();
            world
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join("logs").join(name)
        }

        fn watch(&mut self) {
            let mut watches = Watches::default();
            let directory = self.dir.path().join("logs");
            let is_there = directory.is_dir();
            watches.directories.extend(is_there.then_some(directory));
            if let Ok(metadata) = fs::metadata(self.path("app.log")) {
                watches.files.insert(id(&metadata), self.path("app.log"));
            }
            self.source.watch(watches, &self.config);
        }

        fn append(&self, name: &str) {
            let mut options = OpenOptions::new();
            let file = options.append(true).create(true).open(self.path(name));
            file.unwrap().write_all(b"line\n").unwrap();
        }

        /// What is noticed; waits until something is.
        async fn noticed(&mut self) -> (Changes, bool) {
            self.source.wait().await;
            let mut changes = Changes::default();
            let config_changed = self.source.take_in(&self.config, &mut changes);
            (changes, config_changed)
        }
    }

    #[tokio::test]
    async fn only_writes_to_followed_files_are_noticed_and_names_that_come_and_go() {
        let mut world = World::new();
        world.append("app.log");
        let (changes, _) = world.noticed().await;
        let app = id(&fs::metadata(world.path("app.log")).unwrap());
        assert!(changes.names(app) && changes.entries().next().is_none());
        // That it is there is noticed, and not what is written to it.
        world.append("other.log");
        let (changes, _) = world.noticed().await;
        let entries: Vec<_> = changes.entries().collect();
        assert_eq!(entries, [(world.path("other.log").as_path(), false)]);
        for _ in 0..100 {
            world.append("other.log");
        }
        world.append("app.log");
        let (changes, _) = world.noticed().await;
        assert!(changes.names(app) && changes.entries().next().is_none());
    }

    #[tokio::test]
    async fn a_renamed_file_and_its_successor_are_both_noticed() {
        let mut world = World::new();
        let old = id(&fs::metadata(world.path("app.log")).unwrap());
        fs::rename(world.path("app.log"), world.path("app.log.1")).unwrap();
        world.append("app.log");
        let new = id(&fs::metadata(world.path("app.log")).unwrap());
        let mut watches = Watches::default();
        watches.directories.insert(world.dir.path().join("logs"));
        watches.files.insert(old, world.path("app.log"));
        watches.files.insert(new, world.path("app.log"));
        let config = world.config.clone();
        world.source.watch(watches, &config);
        let _ = world.noticed().await;
        world.append("app.log.1");
        assert!(world.noticed().await.0.names(old));
        world.append("app.log");
        assert!(world.noticed().await.0.names(new));
    }

    #[tokio::test]
    async fn a_directory_that_is_made_again_is_watched_again() {
        let mut world = World::new();
        fs::remove_dir_all(world.dir.path().join("logs")).unwrap();
        let (changes, _) = world.noticed().await;
        assert!(changes.is_everything());
        fs::create_dir(world.dir.path().join("logs")).unwrap();
        world.watch();
        world.append("new.log");
        let (changes, _) = world.noticed().await;
        assert!(
            changes
                .entries()
                .any(|(path, _)| path == world.path("new.log"))
        );
    }

    #[tokio::test]
    async fn a_written_or_replaced_configuration_is_noticed_and_no_other_file_beside_it() {
        let mut world = World::new();
        fs::write(world.dir.path().join("other.toml"), "x").unwrap();
        fs::write(&world.config, "x").unwrap();
        assert!(world.noticed().await.1);
        let beside = world.dir.path().join("other.toml");
        fs::write(&beside, "y").unwrap();
        assert!(!world.noticed().await.1);
        fs::rename(&beside, &world.config).unwrap();
        let (changes, is_changed) = world.noticed().await;
        assert!(is_changed && changes.is_empty());
    }
}
