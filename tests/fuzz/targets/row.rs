#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| watchkeep_core::series::fuzz::rows(data));
