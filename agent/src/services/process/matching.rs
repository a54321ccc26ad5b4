//! Whether a process is one that is watched. What is needed for that is read when it is first
//! needed, at most once a process and look.
//!
//! The kernel keeps 15 bytes of a name. A longer one is found in the path of the program, which
//! only processes of the same user show, or in the arguments, which all show: there it is the
//! program's own name or, for a script, the one after its interpreter's.

use std::{cell::OnceCell, ffi::OsString};

use crate::platform;

/// How many of the arguments may name the program: an interpreter, an option, a script.
const NAMING_ARGUMENTS: usize = 3;

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The name of the process or the file name of its program.
    Name(String),
    /// A part of its command line, arguments separated by single blanks.
    Command(String),
}

/// A process as a look at all of `/proc` sees it.
pub(super) struct Candidate<'a> {
    pub(super) pid: u32,
    comm: &'a [u8],
    /// The file name of the program; `None` inside: not ours to see.
    program: OnceCell<Option<Vec<u8>>>,
    /// The arguments, each ended by a zero byte.
    command: OnceCell<Vec<u8>>,
    in_container: OnceCell<bool>,
}

impl<'a> Candidate<'a> {
    pub(super) const fn new(pid: u32, comm: &'a [u8]) -> Self {
        Self {
            pid,
            comm,
            program: OnceCell::new(),
            command: OnceCell::new(),
            in_container: OnceCell::new(),
        }
    }

    pub(super) fn is(&self, wanted: &Wanted) -> bool {
        match wanted {
            Wanted::Name(name) => self.is_named(name.as_bytes()),
            Wanted::Command(text) => {
                let command = self.command();
                let line: Vec<u8> = command
                    .iter()
                    .map(|b| if *b == 0 { b' ' } else { *b })
                    .collect();
                memchr::memmem::find(&line, text.as_bytes()).is_some()
            }
        }
    }

    pub(super) fn is_in_container(&self) -> bool {
        let find = || platform::is_process_in_container(self.pid);
        *self.in_container.get_or_init(find)
    }

    fn is_named(&self, name: &[u8]) -> bool {
        let short = &name[..name.len().min(platform::PROCESS_NAME_BYTES)];
        let fits = self.comm == short;
        if fits && short.len() == name.len() || self.program() == Some(name) {
            return true;
        }
        fits && is_named_by(name, short, self.program(), self.command())
    }

    fn program(&self) -> Option<&[u8]> {
        let find = || {
            let program = platform::program_of_process(self.pid);
            program.map(OsString::into_encoded_bytes)
        };
        self.program.get_or_init(find).as_deref()
    }

    fn command(&self) -> &[u8] {
        let find = || platform::command_line_of_process(self.pid);
        self.command.get_or_init(find)
    }
}

/// Whether a process whose name begins with `short`, the first bytes of `name`, is of that name. It
/// is unless it calls itself by another one that begins so.
fn is_named_by(name: &[u8], short: &[u8], program: Option<&[u8]>, command: &[u8]) -> bool {
    let arguments = command.split(|byte| *byte == 0).take(NAMING_ARGUMENTS);
    let names: Vec<&[u8]> = arguments.map(program_name).chain(program).collect();
    names.contains(&name) || !names.iter().any(|one| one.starts_with(short))
}

/// The file name in an argument: after the last slash of its first word, without a colon at the end,
/// for some programs write what they do behind their name.
fn program_name(argument: &[u8]) -> &[u8] {
    let word = argument
        .split(|byte| *byte == b' ')
        .next()
        .unwrap_or(argument);
    let word = word.strip_suffix(b":").unwrap_or(word);
    word.rsplit(|byte| *byte == b'/').next().unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_told_from_others_that_begin_like_it() {
        let cases: [(Option<&str>, &str, bool); 9] = [
            // Of another user: the arguments alone.
            (None, "/opt/metrics-shipper-77\0--verbose\0", true),
            (None, "/opt/metrics-shipper-78\0--verbose\0", false),
            // Scripts, with and without an option of the interpreter.
            (
                Some("python3.11"),
                "/usr/bin/python3\0/opt/metrics-shipper-77\0",
                true,
            ),
            (
                Some("python3.11"),
                "/usr/bin/python3\0-u\0/opt/metrics-shipper-77\0",
                true,
            ),
            (
                Some("python3.11"),
                "/usr/bin/python3\0/opt/metrics-shipper-78\0",
                false,
            ),
            // What it does stands behind its name, or in place of it.
            (None, "metrics-shipper-77: worker 3\0", true),
            (None, "worker 3 of the shipper\0", true),
            (Some("metrics-shipper-78"), "worker 3\0", false),
            (None, "", true),
        ];
        for (program, command, expected) in cases {
            let name = b"metrics-shipper-77";
            let program = program.map(str::as_bytes);
            let is_it = is_named_by(name, &name[..15], program, command.as_bytes());
            assert_eq!(is_it, expected, "{program:?} {command:?}");
        }
    }
}
