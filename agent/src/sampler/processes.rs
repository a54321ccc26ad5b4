//! The table of processes, read by hand: a pass costs about 4 µs a process, several times less
//! than by a library that reads all there is to know. Still too much for each heartbeat.

use std::{fs::File, io::Read as _, path::Path};

use rustix::fs::{Mode, OFlags, openat};

/// Most processes that one pass looks at.
const MAX_PROCESSES: usize = 65_536;
/// `/proc/PID/stat` is shorter.
const STAT_BYTES: usize = 1 << 10;

/// How many processes there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Counts {
    pub(super) all: f64,
    /// Ended, and nobody asked how.
    pub(super) zombies: f64,
}

/// One process, of `/proc/PID/stat` (`proc_pid_stat(5)`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process<'t> {
    pub(super) pid: u32,
    /// Its name, at most 15 bytes; never its arguments, which may hold secrets.
    pub(super) name: &'t str,
    pub(super) state: char,
    /// CPU time in user and kernel mode since it started, ticks.
    pub(super) cpu_ticks: u64,
    /// When it started, ticks since boot: distinguishes it from another with the same id.
    pub(super) started_ticks: u64,
    pub(super) resident_pages: u64,
}

/// Counts processes; `None` where the others' are hidden (`hidepid`, `ProtectProc=`).
pub(super) fn count(root: &Path, buffer: &mut Vec<u8>) -> Option<Counts> {
    if !root.join("proc/1/stat").exists() {
        return None;
    }
    let mut counts = Counts {
        all: 0.0,
        zombies: 0.0,
    };
    for_each(root, buffer, |process| {
        counts.all += 1.0;
        if process.state == 'Z' {
            counts.zombies += 1.0;
        }
    });
    Some(counts)
}

/// Shows every process to `each`. One that ends meanwhile is left out.
pub(super) fn for_each(root: &Path, buffer: &mut Vec<u8>, mut each: impl FnMut(&Process<'_>)) {
    if buffer.len() < STAT_BYTES {
        buffer.resize(STAT_BYTES, 0);
    }
    let directory = root.join("proc");
    let Ok(base) = File::open(&directory) else {
        return;
    };
    let entries = std::fs::read_dir(&directory).into_iter().flatten();
    let mut path = String::with_capacity(24);
    for entry in entries.filter_map(Result::ok).take(MAX_PROCESSES) {
        let name = entry.file_name();
        if !name
            .as_encoded_bytes()
            .first()
            .is_some_and(u8::is_ascii_digit)
        {
            continue;
        }
        let Some(pid) = name.to_str() else { continue };
        path.clear();
        path.push_str(pid);
        path.push_str("/stat");
        let opened = openat(
            &base,
            path.as_str(),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let Ok(length) = opened
            .map_err(std::io::Error::from)
            .and_then(|file| File::from(file).read(&mut buffer[..STAT_BYTES]))
        else {
            continue;
        };
        let text = String::from_utf8_lossy(&buffer[..length]);
        if let Some(process) = parse(&text) {
            each(&process);
        }
    }
}

/// `42 (name) S ...`; the name may hold blanks and brackets.
fn parse(text: &str) -> Option<Process<'_>> {
    let (pid, rest) = text.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    // Fields by their numbers in the manual, of which the state is the third.
    let mut at = 3;
    let mut field = |number: usize| -> Option<u64> {
        let value = fields.nth(number - at - 1)?;
        at = number;
        value.trim_end().parse().ok()
    };
    let (user, system) = (field(14)?, field(15)?);
    Some(Process {
        pid: pid.parse().ok()?,
        name,
        state,
        cpu_ticks: user + system,
        started_ticks: field(22)?,
        resident_pages: field(24)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let text = "42 (a b) c) Z 1 2 3 4 5 6 7 8 9 10 110 22 13 14 15 16 17 18 1234 20 77 22\n";
        let process = parse(text).unwrap();
        assert_eq!(
            (process.pid, process.name, process.state),
            (42, "a b) c", 'Z')
        );
        assert_eq!(
            (
                process.cpu_ticks,
                process.started_ticks,
                process.resident_pages
            ),
            (132, 1_234, 77)
        );
        assert!(parse("42 (x) S 1 2").is_none());
    }

    #[test]
    fn this_process_and_a_zombie_are_counted() {
        let mut buffer = Vec::new();
        let before = count(Path::new("/"), &mut buffer).unwrap();
        assert!(before.all >= 1.0);
        let own = std::process::id();
        let mut seen = false;
        for_each(Path::new("/"), &mut buffer, |process| {
            seen |= process.pid == own && process.resident_pages > 0;
        });
        assert!(seen);
        // A child that ended and was not waited for.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let stat = format!("/proc/{}/stat", child.id());
        let is_zombie = || {
            let text = std::fs::read_to_string(&stat).unwrap();
            parse(&text).unwrap().state == 'Z'
        };
        while !is_zombie() {
            std::thread::yield_now();
        }
        assert!(count(Path::new("/"), &mut buffer).unwrap().zombies >= 1.0);
        child.wait().unwrap();
    }
}
