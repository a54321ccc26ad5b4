//! A file system whose server is the test: it answers when it is told to, and not before. Just enough
//! of the kernel's FUSE protocol (`include/uapi/linux/fuse.h`) for `statvfs(3)`.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
};

const HEADER_BYTES: usize = 40;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const STATFS: u32 = 17;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
/// `ENOSYS`, as the protocol wants it.
const UNKNOWN: i32 = -38;

/// A mounted file system. Whoever looks at it waits until [`FuseMount::answer`].
pub(crate) struct FuseMount(File);

impl FuseMount {
    /// Mounts it at `point` for the process `pid`, which has a mount namespace of its own.
    pub(crate) fn mount(pid: u32, point: &Path) -> Self {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .unwrap();
        let mounted = Command::new("nsenter")
            .args(["--target", &pid.to_string(), "--mount"])
            .args(["mount", "-i", "-t", "fuse", "-o"])
            .arg("fd=0,rootmode=40000,user_id=0,group_id=0,allow_other")
            .arg("test")
            .arg(point)
            .stdin(Stdio::from(device.try_clone().unwrap()))
            .output()
            .unwrap();
        assert!(mounted.status.success(), "{mounted:?}");
        Self(device)
    }

    /// Answers whatever was asked and is asked from now on.
    pub(crate) fn answer(mut self) {
        std::thread::spawn(move || {
            let mut request = vec![0; 256 << 10];
            // An error: it was unmounted.
            while let Ok(length) = self.0.read(&mut request) {
                if let Some(reply) = reply_to(&request[..length]) {
                    // Whoever asked may be gone.
                    let _ = self.0.write_all(&reply);
                }
            }
        });
    }
}

fn reply_to(request: &[u8]) -> Option<Vec<u8>> {
    assert!(request.len() >= HEADER_BYTES);
    let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
    let (error, body) = match word(4) {
        FORGET | BATCH_FORGET | INTERRUPT => return None,
        INIT => (0, init()),
        STATFS => (0, half_full()),
        GETATTR => (0, directory()),
        _ => (UNKNOWN, Vec::new()),
    };
    let mut reply = Vec::new();
    reply.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
    reply.extend_from_slice(&i32::to_ne_bytes(error));
    reply.extend_from_slice(&request[8..16]);
    reply.extend_from_slice(&body);
    Some(reply)
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

/// `fuse_init_out` of version 7.31, no extras.
fn init() -> Vec<u8> {
    let mut body = words(&[7, 31, 0, 0, 0, 4_096, 1, 1]);
    body.resize(64, 0);
    body
}

/// `fuse_kstatfs`: blocks, free ones, available ones, files, free ones; sizes.
fn half_full() -> Vec<u8> {
    let mut body = longs(&[1_000, 500, 500, 10, 5]);
    body.extend(words(&[4_096, 255, 4_096, 0]));
    body.resize(80, 0);
    body
}

/// `fuse_attr_out`.
fn directory() -> Vec<u8> {
    const MODE_AT: usize = 16 + 48 + 12;
    let mut body = vec![0; 104];
    body[MODE_AT..MODE_AT + 4].copy_from_slice(&0o40_755_u32.to_ne_bytes());
    body[MODE_AT + 4..MODE_AT + 8].copy_from_slice(&2_u32.to_ne_bytes());
    body
}
