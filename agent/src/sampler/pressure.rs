//! Pressure stall information: the share of time in which tasks waited for a resource
//! (the kernel's `Documentation/accounting/psi.rst`). `full` of the CPU means nothing for a whole
//! machine and is left out.

use std::path::Path;

use super::{
    reader::VirtualFile,
    writer::{Writer, share},
};

const NAMES: [&str; 5] = [
    "psi.cpu_some_pct",
    "psi.memory_some_pct",
    "psi.memory_full_pct",
    "psi.io_some_pct",
    "psi.io_full_pct",
];

/// Reads the kernel's stall totals; nothing where it does not keep any.
#[derive(Debug)]
pub(super) struct Pressure {
    /// CPU, memory, I/O.
    files: [VirtualFile; 3],
    /// Stall time since boot in the order of [`NAMES`], microseconds.
    before_us: [Option<u64>; 5],
}

impl Pressure {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            files: ["cpu", "memory", "io"]
                .map(|name| VirtualFile::open(root, &format!("proc/pressure/{name}"))),
            before_us: [None; 5],
        }
    }

    pub(super) fn write(&mut self, writer: &mut Writer) {
        if !self.files[0].is_there() {
            return;
        }
        let [cpu, memory, io] = &self.files;
        let mut totals = |file: &VirtualFile| {
            file.read(&mut writer.buffer)
                .map_or([None; 2], parse_totals)
        };
        let (cpu, memory, io) = (totals(cpu), totals(memory), totals(io));
        let now_us = [cpu[0], memory[0], memory[1], io[0], io[1]];
        for ((name, now), before) in NAMES.into_iter().zip(now_us).zip(self.before_us) {
            let stalled_us_per_s = now.and_then(|now| writer.rate(now, before));
            writer.put(name, stalled_us_per_s.map(|us| share(us, 1e6)));
        }
        self.before_us = now_us;
    }
}

/// `some` and `full`: `some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`.
fn parse_totals(text: &str) -> [Option<u64>; 2] {
    ["some", "full"].map(|kind| {
        text.lines()
            .find(|line| line.starts_with(kind))?
            .rsplit_once("total=")?
            .1
            .trim()
            .parse()
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_read_by_kind() {
        let text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=17\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        assert_eq!(parse_totals(text), [Some(17), Some(9)]);
        assert_eq!(parse_totals("some total=1"), [Some(1), None]);
    }
}
