#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| watchkeep_core::host::fuzz::bodies(data));
