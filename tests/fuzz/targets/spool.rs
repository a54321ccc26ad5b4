#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a directory");
    watchkeep_agent::spool::fuzz::recovery(dir.path(), data);
});
